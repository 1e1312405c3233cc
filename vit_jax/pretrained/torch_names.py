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
  for family in families.NAMES:
    if all(_find(name, family, theirs=True) for name in names):
      return family
  unknown = {
    family: [name for name in names if not _find(name, family, theirs=True)]
    for family in families.NAMES
  }
  family = min(unknown, key=lambda family: len(unknown[family]))
  raise _unknown(unknown[family], family)


def to_ours(
  theirs: Flat,
  *,
  num_heads: int | Sequence[int | None] | Mapping[str, int] | None = None,
) -> dict:
  """Our parameters from those of timm or Hugging Face, unless they are neither.

  Args:
    theirs: arrays by name, e.g. 'blocks.0.attn.qkv.weight'.
    num_heads: of the attention, which the arrays do not tell; or that of each
      stage, or of each part of a block by its name; a Mixer has none.

  Returns:
    Arrays by path, e.g. 'block_0/attn/qkv/kernel'.

  Raises:
    ValueError: if a name is unknown in every family, if a part of a fused
      array is missing, or if the number of heads is not given or not possible.
  """
  theirs = {k: x for k, x in theirs.items() if not COMPUTED.fullmatch(k)}
  family = detect(theirs)
  ours, missing = {}, []
  for name in theirs:
    row, form, numbers = _find(name, family, theirs=True)
    if not row.ours:
      continue
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
  found = {path: _find(path, family, theirs=False) for path in ours}
  if unknown := [path for path, hit in found.items() if not hit]:
    raise _unknown(unknown, family)
  theirs = {}
  for path, (row, form, numbers) in found.items():
    array = form.from_ours(np.asarray(ours[path]))
    for module, part in zip(row.modules, row.split(array), strict=True):
      name = _name(module, form.theirs, numbers, '.')
      theirs[name] = np.ascontiguousarray(part)
  return theirs


def heads_of(ours: Flat) -> tuple[int | None, ...] | dict[str, int]:
  """The number of heads of each stage, a ViT being one, for `to_ours`.

  None stands for a stage without attention. Where a block has several
  attentions, as in TNT, it is by part of the block.
  """
  kernel = re.compile(r'(?:.*/)?block_0/(?:(\w+)/)?attn/(?:q|qkv)/kernel')
  by_stage, by_part = {}, {}
  for path, array in ours.items():
    if match := kernel.fullmatch(path):
      heads = array.shape[-2]
      if match[1]:
        by_part[match[1]] = heads
      else:
        by_stage[_stage(path)] = heads
  stages = range(max(by_stage, default=-1) + 1)
  return by_part or tuple(
    by_stage[i] if i in by_stage else None for i in stages
  )


def _find(name: str, family: str, *, theirs: bool) -> Any:
  """(row, form, numbers) of a name; None if it is unknown."""
  for pattern, row, form in _patterns(family, theirs=theirs):
    if match := pattern.fullmatch(name):
      return row, form, match.groups()
  return None


@functools.cache
def _patterns(
  family: str, *, theirs: bool
) -> list[tuple[re.Pattern[str], Row, Form]]:
  """Of the names of all arrays in a family, in the order of its table."""
  found = []
  for row in families.NAMES[family]:
    for form in row.forms:
      leaf = form.theirs if theirs else form.ours
      for module in row.modules if theirs else (row.ours,):
        name = re.escape(_name(module, leaf, (), '.' if theirs else '/'))
        pattern = re.compile(name.replace(r'\#', r'(\d+)'))
        found.append((pattern, row, form))
  return found


def _name(module: str, leaf: str, numbers: tuple[str, ...], dot: str) -> str:
  """A full name, with numbers in the places of `#`."""
  for number in numbers:
    module = module.replace('#', number, 1)
  return f'{module}{dot}{leaf}' if leaf else module


def _heads(
  num_heads: int | Sequence[int | None] | Mapping[str, int] | None, path: str
) -> int | None:
  """That of the stage of 'stage_2/...', or the part of 'block_0/inner/...'."""
  if isinstance(num_heads, Mapping):
    part = path.split('/')[1]
    return num_heads[part] if part in num_heads else None
  if not isinstance(num_heads, Sequence):
    return num_heads
  stage = _stage(path)
  return num_heads[stage] if stage < len(num_heads) else None


def _stage(path: str) -> int:
  """2 for 'stage_2/...'; 0 where there are no stages."""
  match = re.match(r'stage_(\d+)/', path)
  return int(match[1]) if match else 0


def _unknown(names: list[str], family: str) -> ValueError:
  return ValueError(
    f'{len(names)} parameters have no counterpart in {family!r}: '
    f'{", ".join(sorted(names))}. Is it another architecture, or a file with '
    f'more than the model? Known families: {", ".join(families.NAMES)}.'
  )


def _check_heads(
  name: str, form: Form, array: np.ndarray, num_heads: int | None
) -> None:
  if form.by_heads and (not num_heads or len(array) % num_heads):
    raise ValueError(
      f'{name} {array.shape} cannot be split into num_heads={num_heads}: give '
      'the number of heads of the architecture.'
    )
