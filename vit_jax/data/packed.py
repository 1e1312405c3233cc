"""Images that were decoded and shrunk once: raw bytes, mapped into memory.

A folder holds one for each split, with two files:

  pixels.bin   uint8, the images one after the other, (h, w, 3) each
  index.npz    their sizes, int32 (n, 2); CRC-32 of their bytes, uint32 (n,);
               labels, (n,) or multi-hot (n, k); class_names (k,)

The operating system reads what is asked for, keeps what fits into memory, and
shares it among all processes. `tools/prepare.py` writes such a folder.
"""

import functools
import pathlib
import shutil
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vit_jax import archives
from vit_jax.data.files import SPLITS

INDEX, PIXELS = 'index.npz', 'pixels.bin'
# What is not finished is named so, and no source.
UNFINISHED = '.unfinished'


class Packed:
  """A source of packed images."""

  def __init__(self, folder: pathlib.Path):
    """Opens a split.

    Raises:
      ValueError: if a file is missing or damaged.
    """
    self.folder = folder
    try:
      index = archives.read_npz(folder / INDEX)
      self.sizes, self.crc = index['sizes'], index['crc']  # (N, 2), (N,)
      self.all_labels = index['labels']  # (N,) or (N, K)
      self.class_names = tuple(map(str, index['class_names']))
    except (KeyError, ValueError, OSError) as error:
      raise ValueError(
        f'{folder / INDEX} is damaged ({error}); prepare the data again.'
      ) from error
    self.ends = np.cumsum(3 * self.sizes.astype(np.int64).prod(1))  # (N,)
    path = folder / PIXELS
    found = path.stat().st_size if path.is_file() else 0
    if found != self.ends[-1]:
      raise ValueError(
        f'{path} has {found:,} bytes, not {self.ends[-1]:,}: it is damaged or '
        'not wholly copied; copy it or prepare the data again.'
      )

  @property
  def labels(self) -> np.ndarray | None:
    """Integers (n,); None if an image may have several."""
    return self.all_labels if self.all_labels.ndim == 1 else None

  @functools.cached_property
  def pixels(self) -> np.ndarray:
    """All bytes, read only; mapped when they are first asked for."""
    return np.asarray(np.memmap(self.folder / PIXELS, np.uint8, mode='r'))

  def __reduce__(self):
    # A worker process maps the file itself.
    return Packed, (self.folder,)

  def __len__(self) -> int:
    return len(self.sizes)

  def __getitem__(self, index: int) -> dict[str, Any]:
    height, width = self.sizes[index]
    end = self.ends[index]
    image = self.pixels[end - 3 * int(height) * int(width) : end]
    label = self.all_labels[index]
    return {
      'image': image.reshape(height, width, 3),
      'label': label if label.ndim else int(label),
    }

  def name(self, index: int) -> str:
    """Identifies an example in a warning."""
    return f'{self.folder}[{index}]'

  def check(self) -> None:
    """Reads every byte.

    Raises:
      ValueError: if an image is not what was written.
    """
    for index in range(len(self)):
      if zlib.crc32(self[index]['image']) != self.crc[index]:
        raise ValueError(
          f'{self.name(index)} is damaged; copy the folder or prepare it again.'
        )


def split_folders(location: str) -> dict[str, pathlib.Path]:
  """Finds the packed splits in a folder by name; none, if it is no such one."""
  folder = pathlib.Path(location).expanduser()
  found = {path.parent.name: path.parent for path in folder.glob(f'*/{INDEX}')}
  return {
    name: found[name]
    for name in sorted(found, key=lambda name: (name != 'train', name))
    if not name.endswith(UNFINISHED)
  }


def split_folder(location: str, split: str | None) -> pathlib.Path:
  """Finds one split; None is the training split, or the only one.

  Raises:
    ValueError: if there is none of that name.
  """
  folders = split_folders(location)
  name = next(iter(folders)) if split is None else split
  if name not in folders and name in SPLITS:
    name = SPLITS[name]
  if name not in folders:
    there = ', '.join(f'{location}:{name}' for name in folders)
    raise ValueError(f'{location} has no split {split!r}; there are {there}.')
  return folders[name]


def write(
  folder: pathlib.Path,
  examples: Iterable[tuple[np.ndarray, Any]],
  *,
  class_names: Sequence[str],
) -> int:
  """Packs images; the folder appears when all are written.

  Args:
    folder: of the split, must not exist.
    examples: pairs of an image, uint8 (h, w, 3), and a label.
    class_names: (k,).

  Returns:
    The number of images.

  Raises:
    ValueError: if the folder exists, was left unfinished, or would be empty.
  """
  refuse_existing(folder)
  unfinished = folder.with_name(folder.name + UNFINISHED)
  unfinished.mkdir(parents=True)
  try:
    count = _write(unfinished, examples, class_names)
  except BaseException:
    shutil.rmtree(unfinished)
    raise
  unfinished.rename(folder)
  return count


def _write(
  folder: pathlib.Path,
  examples: Iterable[tuple[np.ndarray, Any]],
  class_names: Sequence[str],
) -> int:
  sizes, crc, labels = [], [], []
  with (folder / PIXELS).open('wb') as file:
    for image, label in examples:
      image = np.ascontiguousarray(image)
      sizes.append(image.shape[:2])
      crc.append(zlib.crc32(image))
      labels.append(label)
      file.write(image.data)
  if not sizes:
    raise ValueError(f'None of the images for {folder} can be read.')
  np.savez(
    folder / INDEX,
    sizes=np.array(sizes, np.int32),
    crc=np.array(crc, np.uint32),
    labels=np.array(labels),
    class_names=np.array(class_names),
  )
  return len(sizes)


def refuse_existing(folder: pathlib.Path) -> None:
  """Raises a ValueError if a split cannot be written there."""
  for path in (folder, folder.with_name(folder.name + UNFINISHED)):
    if path.exists():
      why = '' if path == folder else ', of a run that broke off or goes on'
      raise ValueError(
        f'{path} exists{why}; remove it, or name another --output.'
      )
