"""Parameters by the names of PyTorch: timm and Hugging Face, both ways.

A family of checkpoints is one table. A row says how a module is called here and
there, `#` standing for a number, and in which form its arrays are written. The
same row is read in both directions, so that what leaves can come back, bit by
bit.

  ours = to_ours(files.read('model.safetensors'), num_heads=12)
  theirs = from_ours(ours, family='timm_vit')

`ours` are parameters by path, 'block_0/attn/qkv/kernel', with blocks one by
one. Where they fuse less than we do, a row names all their modules; their
arrays are put together along the first axis.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.pretrained import families
from vit_jax.pretrained.torch_rows import Form, Row

Flat = Mapping[str, np.ndarray]


# What torch keeps in files though it follows from the sizes, or serves no one.
COMPUTED = re.compile(
  r'.*\.(attn_mask|relative_position_index|relative_coords_table|k_bias'
  r'|num_batches_tracked)'
)


def detect(names: Iterable[str]) -> str:
  """The family in which all these names have a meaning.

  Raises:
    ValueError: if there is none; it lists the names that are unknown to the
      family that knows most of them.
  """
  names = list(names)
  unknown = {
    family: [name for name in names if _find(name, rows, theirs=True) is None]
    for family, rows in families.NAMES.items()
  }
  family = min(unknown, key=lambda family: len(unknown[family]))
  _check_all_known(unknown[family], family)
  return family


def to_ours(
  theirs: Flat, *, num_heads: int | Sequence[int] | None = None
) -> dict:
  """Our parameters from those of timm or Hugging Face, unless they are neither.

  Args:
    theirs: arrays by name, e.g. 'blocks.0.attn.qkv.weight'.
    num_heads: of the attention, which the arrays do not tell, or that of each
      stage; a Mixer has none.

  Returns:
    Arrays by path, e.g. 'block_0/attn/qkv/kernel'.

  Raises:
    ValueError: if a name is unknown in every family, if a part of a fused
      array is missing, or if the number of heads is not given or not possible.
  """
  theirs = {k: x for k, x in theirs.items() if not COMPUTED.fullmatch(k)}
  rows = families.NAMES[detect(theirs)]
  ours, missing = {}, []
  for name in theirs:
    row, form, numbers = _find(name, rows, theirs=True)
    parts = [_name(m, form.theirs, numbers, '.') for m in row.modules]
    if lost := [part for part in parts if part not in theirs]:
      missing += lost
    elif name == parts[0]:
      joined = np.concatenate([theirs[part] for part in parts])
      path = _name(row.ours, form.ours, numbers, '/')
      heads = _heads(num_heads, path) if form.by_heads else None
      _check_heads(name, form, joined, heads)
      ours[path] = form.to_ours(joined, heads)
  if missing:
    raise ValueError(
      'The checkpoint is incomplete; it lacks '
      + ', '.join(sorted(set(missing)))
    )
  return ours


def from_ours(ours: Flat, *, family: str) -> dict:
  """The parameters by their names in a family; undoes `to_ours`.

  Args:
    ours: arrays by path, with blocks one by one.
    family: a key of families.NAMES.

  Returns:
    Contiguous arrays by name.

  Raises:
    ValueError: if the family has no name for some of the parameters.
  """
  rows = families.NAMES[family]
  found = {path: _find(path, rows, theirs=False) for path in ours}
  _check_all_known([path for path, hit in found.items() if not hit], family)
  theirs = {}
  for path, (row, form, numbers) in found.items():
    array = form.from_ours(np.asarray(ours[path]))
    parts = np.split(array, len(row.modules))
    for module, part in zip(row.modules, parts, strict=True):
      name = _name(module, form.theirs, numbers, '.')
      theirs[name] = np.ascontiguousarray(part)
  return theirs


def _find(name: str, rows: tuple[Row, ...], *, theirs: bool) -> Any:
  """(row, form, numbers) of a name; None if it is unknown."""
  for row in rows:
    for form in row.forms:
      for module in row.modules if theirs else (row.ours,):
        leaf = form.theirs if theirs else form.ours
        full = _name(module, leaf, (), '.' if theirs else '/')
        if match := _pattern(full).fullmatch(name):
          return row, form, match.groups()
  return None


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
  return re.compile(re.escape(name).replace(r'\#', r'(\d+)'))


def _name(module: str, leaf: str, numbers: tuple[str, ...], dot: str) -> str:
  """A full name, with numbers in the places of `#`."""
  for number in numbers:
    module = module.replace('#', number, 1)
  return f'{module}{dot}{leaf}' if leaf else module


def _heads(num_heads: int | Sequence[int] | None, path: str) -> int | None:
  """The number of heads of the stage of 'stage_2/block_0/...'."""
  if not isinstance(num_heads, Sequence):
    return num_heads
  stage = re.match(r'stage_(\d+)/', path)
  index = int(stage[1]) if stage else 0
  return num_heads[index] if index < len(num_heads) else None


def _check_all_known(unknown: list[str], family: str) -> None:
  if unknown:
    raise ValueError(
      f'{len(unknown)} parameters have no counterpart in {family!r}: '
      f'{", ".join(sorted(unknown))}. Is it another architecture, or a file '
      f'with more than the model? Known families: {", ".join(families.NAMES)}.'
    )


def _check_heads(
  name: str, form: Form, array: np.ndarray, num_heads: int | None
) -> None:
  if form.by_heads and (not num_heads or array.shape[-1] % num_heads):
    raise ValueError(
      f'{name} {array.shape} cannot be split into num_heads={num_heads}: give '
      'the number of heads of the architecture.'
    )
