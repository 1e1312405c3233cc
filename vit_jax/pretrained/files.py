"""Reading files of parameters: arrays by name, and never a program.

Nothing here unpickles: a pickle can run any code when it is opened.
"""

import argparse
import pathlib
import zipfile

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from vit_jax import archives

_FORMATS = '.npz, .safetensors, .bin, .pth, .pth.tar or .pt'
_AGAIN = 'Fetch it again from where it was published.'


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of a file by name; bfloat16 and float16 come as float32.

  Args:
    path: ends in .npz, .safetensors, .bin, .pth, .pth.tar or .pt. The last four
      are read by torch, which is needed only for them, with
      `weights_only=True`; of parameters and their average, the average.

  Raises:
    ValueError: if there is no such file, it is damaged, or it is not what its
      name says; it names the file and the remedy.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'There is no file {path}. Check the path.')
  if path.suffix not in READERS:
    raise ValueError(
      f'{path}: parameters are read from files that end in {_FORMATS}, not '
      f'in {path.suffix!r}.'
    )
  refuse_html(path)
  arrays = READERS[path.suffix](path)
  if not arrays:
    raise ValueError(f'{path} holds no arrays. {_AGAIN}')
  return {name: _widen(x) for name, x in arrays.items()}


def refuse_html(path: pathlib.Path) -> None:
  """Raises a ValueError if the file is a web page, such as an error message."""
  with path.open('rb') as file:
    start = file.read(256).lstrip().lower()
  if start.startswith((b'<!doctype', b'<html', b'<?xml')):
    raise ValueError(
      f'{path} is a web page, not parameters: most likely the error message '
      'of a server. Delete it and check the address that it came from.'
    )


def _widen(x: np.ndarray) -> np.ndarray:
  if x.dtype == np.dtype('V2'):  # how NumPy stores a bfloat16 it does not know
    x = x.view(ml_dtypes.bfloat16)
  if x.dtype in (ml_dtypes.bfloat16, np.float16):
    return x.astype(np.float32)
  return x


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return archives.read_npz(path)
  except ValueError as error:
    raise ValueError(f'{error} {_AGAIN}') from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(
      f'{path} is damaged or no safetensors file: {error}. {_AGAIN}'
    ) from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ImportError as error:
    raise ValueError(
      f'{path} is a file of torch, which is not installed: pip install torch, '
      'or use the .safetensors file of the same model.'
    ) from error
  if zipfile.is_zipfile(path):
    archives.refuse_bombs(path)
  try:
    # Many programs save their flags beside the arrays: plain values.
    with torch.serialization.safe_globals([argparse.Namespace]):
      content = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # torch raises errors of many kinds
    raise ValueError(
      f'{path} is damaged or holds more than arrays, and what could run code '
      'is not opened. Use the .safetensors file of the same model. torch '
      f'says: {str(error).splitlines()[0] if str(error) else error!r}'
    ) from error
  for wrapper in ('model', 'state_dict_ema', 'state_dict'):
    if isinstance(content, dict) and wrapper in content:
      content = content[wrapper]
  if not isinstance(content, dict):
    raise ValueError(
      f'{path} holds a {type(content).__name__}, not arrays by name: save a '
      'state_dict().'
    )
  return {
    name: (x.float() if x.is_floating_point() else x).numpy()
    for name, x in content.items()
    if isinstance(x, torch.Tensor)
  }


READERS = {
  '.npz': _read_npz,
  '.safetensors': _read_safetensors,
  '.bin': _read_torch,
  '.pth': _read_torch,
  '.tar': _read_torch,
  '.pt': _read_torch,
}
