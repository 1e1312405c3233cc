r"""Images per second and core of the ways by which images reach a model.

  python -m benchmarks.input
  PYTHONPATH=/where/tensorflow/is python -m benchmarks.input

Each row makes batches of random crops of 224 pixels out of JPEGs of 500 x 375,
or of what was made of them once, on one core, reading ahead where it can; the
rows take turns, and the figures are medians.

  decoding alone   a bare loop over libjpeg-turbo, all pixels of each file: what
                   a pipeline that decodes every file in full cannot exceed
  tf.data          as in big_vision: the box of an Inception crop is decoded,
                   resized and mirrored; for this row TensorFlow, any version
                   that runs beside jax, must be importable
  timm             torchvision's RandomResizedCrop in torch's DataLoader, if
                   both are importable
  jpeg             `inception_crop` on the files
  jpeg, scaled     the same with `loader.scaled_decoding`
  packed           the same of what `tools.prepare` made of the files
  on device        `loader.on_device`; images already 224 x 224
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import jax
import numpy as np
import rich.box
import rich.console
import rich.table
import simplejpeg
from sklearn import datasets

from configs import from_scratch
from vit_jax import data, experiment, feed
from vit_jax.tools.work import prepare

SIZE, BATCH, IMAGES = 224, 64, 4096
CROP = {'name': 'inception_crop', 'size': SIZE}
Batches = Iterator[Any]


def write_photographs(folder: pathlib.Path) -> None:
  """Writes JPEGs of 500 x 375 pixels in two classes."""
  rng = np.random.default_rng(0)
  photos = datasets.load_sample_images().images
  for i in range(IMAGES):
    photo = photos[i % 2]
    # Of another place and size each, so that the files differ.
    height = int(rng.integers(220, photo.shape[0] + 1))
    width = height * 4 // 3
    top = rng.integers(photo.shape[0] - height + 1)
    left = rng.integers(photo.shape[1] - width + 1)
    part = photo[top : top + height, left : left + width]
    part = cv2.resize(part, (500, 375), interpolation=cv2.INTER_AREA)
    path = folder / f'class_{i % 2}' / f'{i}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(simplejpeg.encode_jpeg(part, quality=90))


def decoding_alone(files: list[pathlib.Path], **_) -> Batches:
  """All pixels of every file."""
  while True:
    for i in range(0, len(files), BATCH):
      for path in files[i : i + BATCH]:
        simplejpeg.decode_jpeg(path.read_bytes())
      yield


def ours(folder: pathlib.Path, *, scaled: bool = False, **_) -> Batches:
  """`data.pipeline` on one thread."""
  return iter(
    data.pipeline(
      data.open(str(folder)),
      data.build_transforms([CROP]),
      batch_size=BATCH,
      seed=0,
      steps=10**9,
      num_threads=1,
      scaled_decoding=scaled,
    )
  )


def on_device(folder: pathlib.Path) -> Batches:
  """`feed.batches` of images that are on the device."""
  config = from_scratch.get_config('Ti_16')
  config.batch_size = config.eval_batch_size = BATCH
  config.duration = '1e9 steps'
  config.data.train = str(folder)
  config.evals, config.checkpoint.best = {}, ''
  config.transforms = ({'name': 'resize', 'size': SIZE},)
  config.loader.on_device = True
  built = experiment.build(config.to_dict())
  return map(jax.block_until_ready, feed.batches(built, first_step=0))


def tf_data(files: list[pathlib.Path]) -> Batches:
  """A tf.data pipeline of one thread, like big_vision's."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import tensorflow as tf

  def load(path):
    encoded = tf.io.read_file(path)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
      tf.image.extract_jpeg_shape(encoded),
      tf.zeros([0, 0, 4], tf.float32),
      area_range=(0.05, 1.0),
      min_object_covered=0,
      use_image_if_no_bounding_boxes=True,
    )
    box = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = tf.image.decode_and_crop_jpeg(
      encoded, box, channels=3, dct_method='INTEGER_ACCURATE'
    )
    image = tf.image.resize(image, (SIZE, SIZE))
    return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

  ds = tf.data.Dataset.from_tensor_slices([str(path) for path in files])
  ds = ds.shuffle(len(files)).repeat().map(load, tf.data.AUTOTUNE)
  ds = ds.batch(BATCH, drop_remainder=True).prefetch(2)
  options = tf.data.Options()
  options.threading.private_threadpool_size = 1
  return iter(ds.with_options(options).as_numpy_iterator())


def timm(folder: pathlib.Path) -> Batches:
  """As timm loads: transforms of torchvision, a DataLoader of torch."""
  import torch
  from torchvision import datasets as folders
  from torchvision import transforms

  torch.set_num_threads(1)
  transform = transforms.Compose(
    [
      transforms.RandomResizedCrop(SIZE, scale=(0.05, 1.0)),
      transforms.RandomHorizontalFlip(),
      transforms.PILToTensor(),
    ]
  )
  loader = torch.utils.data.DataLoader(
    folders.ImageFolder(str(folder), transform), BATCH, shuffle=True
  )
  while True:
    yield from loader


def rate(batches: Batches, *, seconds: float) -> float:
  """Images per second."""
  start, count = time.perf_counter(), 0
  while (elapsed := time.perf_counter() - start) < seconds:
    next(batches)
    count += BATCH
  return count / elapsed


def rows(folder: pathlib.Path) -> dict[str, Callable[[], Batches]]:
  """The contenders, by name; an ImportError says that one is not here."""
  jpegs, packed = folder / 'jpegs', folder / 'packed'
  write_photographs(jpegs)
  prepare.prepare(str(jpegs), packed, size=256)
  files = sorted(jpegs.rglob('*.jpg'))
  return {
    'decoding alone': lambda: decoding_alone(files),
    'tf.data': lambda: tf_data(files),
    'timm': lambda: timm(jpegs),
    'jpeg': lambda: ours(jpegs),
    'jpeg, scaled': lambda: ours(jpegs, scaled=True),
    'packed': lambda: ours(packed),
    'on device': lambda: on_device(packed),
  }


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--seconds', type=float, default=3.0, help='of a turn')
  parser.add_argument('--turns', type=int, default=5)
  args = parser.parse_args()
  # Before anything starts threads, which all stay on this core.
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  cv2.setNumThreads(1)
  with tempfile.TemporaryDirectory() as folder:
    contenders, rates = {}, {}
    for name, make in rows(pathlib.Path(folder)).items():
      try:
        contenders[name] = make()
        rate(contenders[name], seconds=args.seconds)  # warm
        rates[name] = []
      except (ImportError, RuntimeError) as error:
        print(f'{name}: {error}')
        contenders.pop(name, None)
    for _ in range(args.turns):
      for name, batches in contenders.items():
        rates[name].append(rate(batches, seconds=args.seconds))
  medians = {name: statistics.median(all_) for name, all_ in rates.items()}
  table = rich.table.Table(box=rich.box.SIMPLE)
  table.add_column('images of 224 pixels')
  for column in ('images/s', '/ decoding alone', '/ tf.data'):
    table.add_column(column, justify='right')
  for name, value in medians.items():
    ratios = (
      f'{value / medians[other]:.2f}' if other in medians else ''
      for other in ('decoding alone', 'tf.data')
    )
    table.add_row(name, f'{value:,.0f}', *ratios)
  rich.console.Console().print(table)


if __name__ == '__main__':
  main()
