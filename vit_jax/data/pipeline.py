"""From a source to batches, in an order that is a function of the step alone.

Training reads an endless sequence of positions 0, 1, 2, ...: each epoch is
another permutation of the examples. Step s of batch size B holds the positions
[s B, (s + 1) B), of which process p of P takes the p-th of P equal parts. A
position alone decides which example it is and which random numbers its
transforms draw. So resuming at step s, on any number of processes, workers and
threads, continues as if nothing had happened: there is no state to save.

With repeated augmentation (arXiv:1902.05509) the positions of an epoch stand
for fewer images, each `repeats` times in succession, every time with random
numbers of its own. In the batch the copies stand apart: mixup pairs neighbours,
and an image would be mixed with itself.

The threads and workers run over whole batches. That costs one hand-over per
batch rather than per image, and nothing depends on how many there are. A
process holds about `num_threads` + 2 batches in memory, with workers so many
for each worker.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Collection

import cv2
import numpy as np

from vit_jax.data.batches import Batches
from vit_jax.data.decoding import DecodeError, Jpeg, read
from vit_jax.data.order import Order
from vit_jax.data.sources import Source

# (image uint8 (h, w, c), rng) -> image uint8 (h, w, c)
Image = np.ndarray | Jpeg
Transform = Callable[[Image, np.random.Generator], Image]

logger = logging.getLogger(__name__)

# So many unreadable images in a row are not an accident: a disk is gone.
MAX_BAD_IN_A_ROW = 100
# Seconds without a batch that are no slow disk any more.
TIMEOUT = 300.0
# So many are named one by one in the log, then only counted.
MAX_BAD_NAMED = 10


def pipeline(
  source: Source,
  transform: Transform,
  *,
  batch_size: int,
  seed: int,
  steps: int,
  start: int = 0,
  repeats: int = 1,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int | None = None,
  num_workers: int = 0,
  timeout: float | None = TIMEOUT,
  on_bad_image: str = 'skip',
  scaled_decoding: bool = False,
) -> Batches:
  """Batches for training: this process's share of `steps` steps.

  Args:
    source: the examples; each is seen once an epoch, unless they repeat.
    transform: must bring all images to one shape.
    batch_size: of all processes together.
    seed: 0 <= seed < 2**32, of the order and of the transforms.
    steps: how many batches to yield.
    start: the step to begin with, where a run resumes.
    repeats: how often a batch holds an image, each time transformed anew; an
      epoch is as long as before and sees one in so many images.
    process_index: of this process.
    process_count: how many share the batch.
    num_threads: that load in parallel; None is one per core, at most 16; 0
      loads when asked.
    num_workers: processes that load in parallel, each with `num_threads`, for
      when Python's lock rather than the cores is the limit.
    timeout: seconds to wait for a batch, see `batches`; None waits for ever.
    on_bad_image: 'skip' takes the next readable example of the order instead,
      and warns with the name of the file; 'error' raises.
    scaled_decoding: whether a JPEG may be decoded at 1/2, 1/4 or 1/8 of its
      size where what is left of it stays as large as it is resized to.

  Returns:
    An iterable of dicts: image uint8 (b, h, w, c), label int32 (b,), or
    multi-hot float32 (b, k) if the source has several for an image, and mask
    float32 (b,), all ones, where b is batch_size / process_count.

  Raises:
    ValueError: an argument out of range; while iterating, a label out of
      range, images that differ in shape, or a bad image if that is an error.
    StalledError: while iterating, no batch came in time, or the workers died
      again and again.
  """
  if start < 0 or steps < 0:
    raise ValueError(f'{start=} and {steps=} must not be negative.')
  order = Order(
    length=len(source),
    batch_size=batch_size,
    seed=seed,
    repeats=repeats,
    process_index=process_index,
    process_count=process_count,
  )
  load = _Load(
    source=source,
    transform=transform,
    order=order,
    on_bad_image=on_bad_image,
    scaled_decoding=scaled_decoding,
  )
  return Batches(
    load=load,
    start=start,
    stop=start + steps,
    num_threads=num_threads,
    num_workers=num_workers,
    timeout=timeout,
  )


def one_pass(
  source: Source,
  transform: Transform,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int | None = None,
  num_workers: int = 0,
  timeout: float | None = TIMEOUT,
  on_bad_image: str = 'skip',
  scaled_decoding: bool = False,
) -> Batches:
  """Batches for evaluation: every example once, in the order of the source.

  All batches have the same size and all processes yield equally many. Rows
  that only fill the last batch repeat other examples, with mask 0; so do rows
  whose own image is unreadable, each with a warning. Arguments, result and
  errors are those of `pipeline`; the result can be iterated over again.
  """
  order = Order(
    length=len(source),
    batch_size=batch_size,
    process_index=process_index,
    process_count=process_count,
    shuffled=False,
  )
  load = _Load(
    source=source,
    transform=transform,
    order=order,
    on_bad_image=on_bad_image,
    scaled_decoding=scaled_decoding,
  )
  return Batches(
    load=load,
    start=0,
    stop=-(-len(source) // batch_size),
    num_threads=num_threads,
    num_workers=num_workers,
    timeout=timeout,
  )


def all_of(
  source: Source,
  transform: Transform,
  *,
  num_threads: int | None = None,
  num_workers: int = 0,
  timeout: float | None = TIMEOUT,
  on_bad_image: str = 'skip',
) -> dict[str, np.ndarray]:
  """A whole data set as one batch, in the order of the source.

  Arguments and errors are those of `pipeline`; so is the result, but that the
  mask is 0 for an example that cannot be read.
  """
  batches = one_pass(
    source,
    transform,
    batch_size=min(len(source), 256),
    num_threads=num_threads,
    num_workers=num_workers,
    timeout=timeout,
    on_bad_image=on_bad_image,
  )
  parts = list(batches)
  shapes = {part['image'].shape[1:] for part in parts}
  if len(shapes) > 1:
    raise _differ(shapes)
  return {
    key: np.concatenate([part[key] for part in parts])[: len(source)]
    for key in parts[0]
  }


def indices(
  readable: np.ndarray,
  *,
  batch_size: int,
  seed: int,
  steps: int,
  start: int = 0,
  repeats: int = 1,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """The examples that `pipeline` would load, int32 (b,) for each step.

  Args:
    readable: whether each example is, (n,); others are skipped as there.
    batch_size: see `pipeline`, as all that follows.
    seed: of the order.
    steps: how many to yield.
    start: the step to begin with.
    repeats: how often a batch holds an example.
    process_index: of this process.
    process_count: how many share the batch.

  Raises:
    ValueError: an argument out of range, or none is readable.
  """
  order = Order(
    length=len(readable),
    batch_size=batch_size,
    seed=seed,
    repeats=repeats,
    process_index=process_index,
    process_count=process_count,
  )
  if not readable.any():
    raise ValueError('The source holds no example that can be read.')

  def load(step):
    return np.array([find(x) for x in order.positions(step)], np.int32)

  def find(position):
    index = order.index(position)
    while not readable[index]:
      position += 1
      index = order.index(position)
    return index

  return Batches(
    load=load,
    start=start,
    stop=start + steps,
    num_threads=1,
    num_workers=0,
    timeout=None,
  )


class _BadImages:
  """Warns of the first few by name, then counts; each image only once."""

  def __init__(self):
    # Adding to a set is atomic: threads need no lock, and it can be pickled.
    self.names = set()

  def report(self, name: str, error: Exception) -> None:
    if name in self.names:
      return
    self.names.add(name)
    count = len(self.names)
    if count <= MAX_BAD_NAMED:
      logger.warning('Unreadable image %s: %s', name, error)
    elif count % 100 == 0:
      logger.warning('%d unreadable images, the last is %s', count, name)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Load:
  """The function step -> batch; it can be sent to another process."""

  source: Source
  transform: Transform
  order: Order
  on_bad_image: str
  scaled_decoding: bool
  bad_images: _BadImages = dataclasses.field(default_factory=_BadImages)

  def __post_init__(self):
    if self.on_bad_image not in ('skip', 'error'):
      raise ValueError(
        f"on_bad_image={self.on_bad_image!r} is neither 'skip' nor 'error'."
      )

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    # The threads of the pipeline keep the cores busy; OpenCV's own would only
    # compete with them.
    cv2.setNumThreads(1)
    positions = self.order.positions(step)
    images, labels, mask = zip(*map(self._row, positions), strict=True)
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
      raise _differ(shapes)
    return {
      'image': np.stack(images),  # (B, H, W, C)
      'label': np.stack(labels),  # (B,), or (B, K) if several
      'mask': np.array(mask, np.float32),
    }

  def _row(self, position: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """The image, label and mask of a position, or of the next readable one."""
    attempts = min(MAX_BAD_IN_A_ROW, len(self.source))
    for attempt in range(attempts):
      index = self.order.index(position + attempt)
      # A counter-based generator: the key may be any pair of numbers, without
      # a correlation between neighbours.
      rng = np.random.Generator(
        np.random.Philox(key=(self.order.seed, position))
      )
      try:
        example = self.source[index]
        image = example['image']
        if isinstance(image, bytes):
          image = read(image, scaled=self.scaled_decoding)
        # A JPEG is decoded where the transforms say which part of it.
        image = np.asarray(self.transform(image, rng))
      except (DecodeError, OSError) as error:
        name = self.source.name(index)
        # No bad image: to go on without it would be to learn from other data.
        # A link to nowhere is one, from the beginning.
        is_gone = isinstance(error, FileNotFoundError)
        if is_gone and not os.path.islink(error.filename or ''):
          raise ValueError(
            f'{name} was there when this began, and is gone. Bring it back, or '
            'the disk that it is on, and give the same command again.'
          ) from error
        if self.on_bad_image == 'error':
          raise ValueError(f'Unreadable image {name}: {error}') from error
        self.bad_images.report(name, error)
        continue
      readable = attempt == 0 and position < self.order.length
      mask = self.order.shuffled or readable
      return image, self._checked_label(example['label'], index), mask
    raise ValueError(
      f'No readable image among {attempts} in a row, the last of which is '
      f'{self.source.name(index)}. Are these images, and is the disk there?'
    )

  def _checked_label(self, label: int | np.ndarray, index: int) -> np.ndarray:
    num_classes = len(self.source.class_names)
    if np.ndim(label):
      return np.asarray(label, np.float32)
    if not 0 <= label < num_classes:
      raise ValueError(
        f'{self.source.name(index)} has the label {label}, which is not in '
        f'[0, {num_classes}); choose a split that has labels.'
      )
    return np.asarray(label, np.int32)


def _differ(shapes: Collection[tuple[int, ...]]) -> ValueError:
  return ValueError(
    f'The images of a batch differ in shape: {sorted(shapes)[:3]}. End the '
    "transforms with one that fixes it, e.g. {'name': 'resize', 'size': 224} "
    "or {'name': 'central_crop', 'size': 224}."
  )
