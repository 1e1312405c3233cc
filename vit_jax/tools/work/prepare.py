"""Decodes and shrinks images once."""

import argparse
import logging
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
import rich.progress

from vit_jax import data
from vit_jax.data import packed, transforms

logger = logging.getLogger(__name__)


def examples(
  source: data.Source, *, size: int, num_threads: int | None = None
) -> Iterator[tuple[np.ndarray, Any] | None]:
  """Yields the image, shrunk, and the label of each example, in order.

  Args:
    source: of the examples.
    size: of the shorter side, in pixels.
    num_threads: that decode in parallel; None is one per core.

  Yields:
    uint8 (h, w, 3) and the label; None for an image that cannot be read.
  """

  def load(index):
    try:
      example = source[index]
      image = example['image']
      if isinstance(image, bytes):
        image = data.decode(image)
    except (data.DecodeError, OSError) as error:
      logger.warning('Left out %s: %s', source.name(index), error)
      return None
    return shrink(image, size=size), example['label']

  if num_threads is None:
    num_threads = os.cpu_count() or 1
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=8 * num_threads
  )
  # Grain takes None for an example that was filtered out.
  indices = grain.MapDataset.range(len(source))
  loaded = indices.map(lambda index: (load(index),)).to_iter_dataset(options)
  return (example for (example,) in loaded)


def shrink(image: np.ndarray, *, size: int) -> np.ndarray:
  """Returns RGB (h, w, 3) whose shorter side is at most `size` pixels."""
  if min(image.shape[:2]) > size:
    rng = np.random.default_rng(0)  # of which nothing is drawn
    image = transforms.resize_small(image, rng, size=size, antialias=True)
  return np.broadcast_to(image, (*image.shape[:2], 3))


def prepare(
  address: str,
  output: pathlib.Path,
  *,
  size: int,
  data_dir: str | None = None,
  num_threads: int | None = None,
) -> dict[str, int]:
  """Packs every split of a data set.

  Args:
    address: of the data; one without a split stands for all.
    output: the folder to write to; its splits must not exist yet.
    size: of the shorter side, in pixels.
    data_dir: where TFDS data sets are.
    num_threads: that decode in parallel; None is one per core.

  Returns:
    The number of images of each split.

  Raises:
    ValueError: what is wrong with the address, the data or the output.
  """
  if size < 1:
    raise ValueError(f'--size={size} must be positive, in pixels.')
  splits = data.splits(address, data_dir=data_dir)
  addresses = {name: f'{address}:{name}' for name in splits}
  if not splits:
    # 'tfds:cifar10:test[:10%]' -> 'test'
    named = re.search(r':([a-z]\w*)(?:\[.*)?$', address)
    of_tfds = address.startswith('tfds:') and address.count(':') < 2
    addresses = {named[1] if named and not of_tfds else 'train': address}
  for name in addresses:
    packed.refuse_existing(output / name)
  counts, class_names = {}, None
  for name, part in addresses.items():
    source = data.open(part, class_names=class_names, data_dir=data_dir)
    class_names = source.class_names
    found = rich.progress.track(
      examples(source, size=size, num_threads=num_threads),
      description=name,
      total=len(source),
    )
    counts[name] = packed.write(
      output / name,
      (example for example in found if example is not None),
      class_names=class_names,
    )
  return counts


def run(args: argparse.Namespace) -> int:
  """Packs, or checks what is packed."""
  if args.check:
    folders = packed.split_folders(args.check)
    if not folders:
      raise ValueError(f'{args.check} holds no packed images.')
    for name, folder in folders.items():
      source = packed.Packed(folder)
      source.check()
      print(f'{name}: {len(source):,} images are as they were written')
    return 0
  counts = prepare(
    args.data,
    args.output.expanduser(),
    size=args.size,
    data_dir=args.data_dir,
    num_threads=args.num_threads,
  )
  for name, count in counts.items():
    print(f'{name}: {count:,} images in {args.output / name}')
  return 0
