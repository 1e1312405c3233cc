"""Arrays in `.npz` files of unknown origin: never a program, never a bomb.

Nothing is unpacked to disk: the names in an archive lead nowhere.
"""

import lzma
import os
import zipfile
import zlib
from collections.abc import Container

import numpy as np

# What zipfile and NumPy raise: RuntimeError is of a zip version or an
# encryption that nobody wrote, MemoryError of a shape.
_DAMAGED = (
  *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
  *(ValueError, OSError, RuntimeError, MemoryError),
)
# Weights and images do not shrink more than that, and zeros may, up to a size.
MAX_RATIO = 100
ALWAYS = 2**30  # bytes
MAX_HEADER = 10_000  # bytes of an array: NumPy's limit, which it checks late
MAGIC = b'\x93NUMPY'


def read_npz(
  path: str | os.PathLike[str], *, names: Container[str] | None = None
) -> dict[str, np.ndarray]:
  """Reads the arrays of a file by name.

  Args:
    path: of the file.
    names: of the arrays that are wanted, if they are there; None for all.

  Raises:
    ValueError: if the file is no archive, is damaged, holds pickled objects, or
      claims to hold more than `refuse_bombs` allows.
  """
  if not zipfile.is_zipfile(path):
    raise ValueError(
      f'{path} is damaged or was not read to its end: an .npz file is a zip '
      'archive, and this is none.'
    )
  refuse_bombs(path)
  found = {}
  try:
    with zipfile.ZipFile(path) as archive:
      for member in archive.namelist():
        name = member.removesuffix('.npy')
        if names is None or name in names:
          found[name] = _read_array(archive, member)
  except _DAMAGED as error:
    if 'allow_pickle' not in str(error):
      raise ValueError(f'{path} is damaged: {error}.') from error
    raise ValueError(
      f'{path} holds pickled objects, which could run code when opened, and '
      'only plain arrays are read. Save it again with np.savez of arrays of '
      'numbers.'
    ) from error
  return found


def refuse_bombs(path: str | os.PathLike[str]) -> None:
  """Raises a ValueError if a zip archive would fill the memory.

  That is, if it claims to hold more than `ALWAYS` bytes, and more than
  `MAX_RATIO` times its own size. No reader unpacks more than what is claimed.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      claimed = sum(info.file_size for info in archive.infolist())
  except _DAMAGED as error:
    raise ValueError(f'{path} is damaged: {error}.') from error
  size = os.path.getsize(path)
  if claimed > max(ALWAYS, MAX_RATIO * size):
    raise ValueError(
      f'{path} has {size:,} bytes and claims to hold {claimed:,}, which no '
      'file of weights or images does: remove it, or if it is yours, save it '
      'with np.savez, uncompressed.'
    )


def _read_array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
  with archive.open(member) as file:
    start = file.read(12)
    if not start.startswith(MAGIC):
      raise ValueError(f'{member} in it is no array')
    # After the magic: a version, of one byte and another, and the length.
    length = int.from_bytes(start[8 : 10 if start[6] == 1 else 12], 'little')
    if length > MAX_HEADER:
      raise ValueError(f'{member} in it has a header of {length:,} bytes')
    file.seek(0)
    return np.lib.format.read_array(
      file, allow_pickle=False, max_header_size=MAX_HEADER
    )
