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

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

Flat = Mapping[str, np.ndarray]


class Form(NamedTuple):
  """How one array of a module is written.

  Attributes:
    ours: its name here; '' if the row names the array itself.
    theirs: its name there.
    to_ours: (their array, number of heads) -> our array.
    from_ours: undoes it.
    by_heads: whether the number of heads matters.
  """

  ours: str
  theirs: str
  to_ours: Callable[[np.ndarray, Any], np.ndarray] = lambda x, heads: x
  from_ours: Callable[[np.ndarray], np.ndarray] = lambda x: x
  by_heads: bool = False


class Row(NamedTuple):
  """One module here, one or several there."""

  ours: str
  theirs: str | tuple[str, ...]
  forms: tuple[Form, ...]


def _heads_in(*fused: int) -> tuple[Form, ...]:
  """A projection into heads, or so many fused: (f * h * t, d) <-> (d, f, h, t).

  The first axis of theirs has the fused projections, then the heads.
  """

  def kernel(x, heads):
    return np.moveaxis(x.reshape(*fused, heads, -1, x.shape[-1]), -1, 0)

  def weight(x):
    return np.moveaxis(x, 0, -1).reshape(-1, len(x))

  def bias(x, heads):
    return x.reshape(*fused, heads, -1)

  return (
    Form('kernel', 'weight', kernel, weight, by_heads=True),
    Form('bias', 'bias', bias, np.ravel, by_heads=True),
  )


BIAS = Form('bias', 'bias')
ARRAY = (Form('', ''),)
DENSE = (Form('kernel', 'weight', lambda x, heads: x.T, np.transpose), BIAS)
NORM = (Form('scale', 'weight'), BIAS)
SCALE = (Form('scale', 'gamma'),)
CONV = (
  Form(
    'kernel',
    'weight',
    lambda x, heads: x.transpose(2, 3, 1, 0),
    lambda x: x.transpose(3, 2, 0, 1),
  ),
  BIAS,
)
Q, KV, QKV = _heads_in(), _heads_in(2), _heads_in(3)
HEADS_OUT = (
  Form(
    'kernel',
    'weight',
    lambda x, heads: x.T.reshape(heads, -1, x.shape[0]),
    lambda x: x.reshape(-1, x.shape[-1]).T,
    by_heads=True,
  ),
  BIAS,
)

# ViT and DeiT; `pre_logits` is of timm before 0.6.
_TIMM_VIT = (
  Row('cls', 'cls_token', ARRAY),
  Row('pos_embed', 'pos_embed', ARRAY),
  Row('patch_embed/proj', 'patch_embed.proj', CONV),
  Row('block_#/norm1', 'blocks.#.norm1', NORM),
  Row('block_#/attn/qkv', 'blocks.#.attn.qkv', QKV),
  Row('block_#/attn/out', 'blocks.#.attn.proj', HEADS_OUT),
  Row('block_#/scale1', 'blocks.#.ls1', SCALE),
  Row('block_#/norm2', 'blocks.#.norm2', NORM),
  Row('block_#/mlp/fc#', 'blocks.#.mlp.fc#', DENSE),
  Row('block_#/scale2', 'blocks.#.ls2', SCALE),
  Row('norm', 'norm', NORM),
  Row('pool/probe', 'attn_pool.latent', ARRAY),
  Row('pool/attn/q', 'attn_pool.q', Q),
  Row('pool/attn/kv', 'attn_pool.kv', KV),
  Row('pool/attn/out', 'attn_pool.proj', HEADS_OUT),
  Row('pool/norm', 'attn_pool.norm', NORM),
  Row('pool/mlp/fc#', 'attn_pool.mlp.fc#', DENSE),
  Row('pre_logits', 'pre_logits.fc', DENSE),
  Row('head', 'head', DENSE),
)

_UNIT, _TIMM_UNIT = (
  'resnet/stage#_unit#',
  'patch_embed.backbone.stages.#.blocks',
)
_TIMM_HYBRID = (
  *_TIMM_VIT,
  Row('resnet/conv_root', 'patch_embed.backbone.stem.conv', CONV),
  Row('resnet/gn_root', 'patch_embed.backbone.stem.norm', NORM),
  Row(f'{_UNIT}/conv#', f'{_TIMM_UNIT}.#.conv#', CONV),
  Row(f'{_UNIT}/gn#', f'{_TIMM_UNIT}.#.norm#', NORM),
  Row(f'{_UNIT}/conv_proj', f'{_TIMM_UNIT}.#.downsample.conv', CONV),
  Row(f'{_UNIT}/gn_proj', f'{_TIMM_UNIT}.#.downsample.norm', NORM),
)

# R+Ti/16, whose ResNet is but a stem.
_TIMM_STEM = (
  *_TIMM_VIT,
  Row('resnet/conv_root', 'patch_embed.backbone.conv', CONV),
  Row('resnet/gn_root', 'patch_embed.backbone.norm', NORM),
)

_TIMM_MIXER = (
  Row('patch_embed/proj', 'stem.proj', CONV),
  Row('block_#/norm#', 'blocks.#.norm#', NORM),
  Row('block_#/token_mlp/fc#', 'blocks.#.mlp_tokens.fc#', DENSE),
  Row('block_#/channel_mlp/fc#', 'blocks.#.mlp_channels.fc#', DENSE),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)

# As files on the hub have them. The pooler of the models trained on
# ImageNet-21k is what the paper calls the pre-logits.
_LAYER = 'vit.encoder.layer.#'
_HF_VIT = (
  Row('cls', 'vit.embeddings.cls_token', ARRAY),
  Row('pos_embed', 'vit.embeddings.position_embeddings', ARRAY),
  Row('patch_embed/proj', 'vit.embeddings.patch_embeddings.projection', CONV),
  Row('block_#/norm1', f'{_LAYER}.layernorm_before', NORM),
  Row(
    'block_#/attn/qkv',
    (
      f'{_LAYER}.attention.attention.query',
      f'{_LAYER}.attention.attention.key',
      f'{_LAYER}.attention.attention.value',
    ),
    QKV,
  ),
  Row('block_#/attn/out', f'{_LAYER}.attention.output.dense', HEADS_OUT),
  Row('block_#/norm2', f'{_LAYER}.layernorm_after', NORM),
  Row('block_#/mlp/fc1', f'{_LAYER}.intermediate.dense', DENSE),
  Row('block_#/mlp/fc2', f'{_LAYER}.output.dense', DENSE),
  Row('norm', 'vit.layernorm', NORM),
  Row('pre_logits', 'vit.pooler.dense', DENSE),
  Row('head', 'classifier', DENSE),
)


def _respell(
  rows: tuple[Row, ...], renames: Mapping[str, str]
) -> tuple[Row, ...]:
  """The same table, with parts of their names replaced in this order."""

  def respell(name):
    for old, new in renames.items():
      name = name.replace(old, new)
    return name

  return tuple(
    row._replace(theirs=tuple(map(respell, _modules(row)))) for row in rows
  )


def _modules(row: Row) -> tuple[str, ...]:
  return (row.theirs,) if isinstance(row.theirs, str) else row.theirs


# Of the families whose names fit, reading takes the first.
FAMILIES = {
  'timm_vit': _TIMM_VIT,
  'timm_hybrid': _TIMM_HYBRID,
  'timm_stem': _TIMM_STEM,
  'timm_mixer': _TIMM_MIXER,
  'hf_vit': _HF_VIT,
  # A file without a classifier.
  'hf_vit_bare': _respell(_HF_VIT, {'vit.': ''}),
  # As transformers 5 calls them in memory.
  'hf_vit_memory': _respell(
    _HF_VIT,
    {
      'encoder.layer.': 'layers.',
      'attention.attention.query': 'attention.q_proj',
      'attention.attention.key': 'attention.k_proj',
      'attention.attention.value': 'attention.v_proj',
      'attention.output.dense': 'attention.o_proj',
      'intermediate.dense': 'mlp.fc1',
      'output.dense': 'mlp.fc2',
    },
  ),
}


def detect(names: Iterable[str]) -> str:
  """The family in which all these names have a meaning.

  Raises:
    ValueError: if there is none; it lists the names that are unknown to the
      family that knows most of them.
  """
  names = list(names)
  unknown = {
    family: [name for name in names if _find(name, rows, theirs=True) is None]
    for family, rows in FAMILIES.items()
  }
  family = min(unknown, key=lambda family: len(unknown[family]))
  _check_all_known(unknown[family], family)
  return family


def to_ours(theirs: Flat, *, num_heads: int | None = None) -> dict:
  """Our parameters from those of timm or Hugging Face, unless they are neither.

  Args:
    theirs: arrays by name, e.g. 'blocks.0.attn.qkv.weight'.
    num_heads: of the attention, which the arrays do not tell; a Mixer has none.

  Returns:
    Arrays by path, e.g. 'block_0/attn/qkv/kernel'.

  Raises:
    ValueError: if a name is unknown in every family, if a part of a fused
      array is missing, or if the number of heads is not given or not possible.
  """
  rows = FAMILIES[detect(theirs)]
  ours, missing = {}, []
  for name in theirs:
    row, form, numbers = _find(name, rows, theirs=True)
    parts = [_name(m, form.theirs, numbers, '.') for m in _modules(row)]
    if lost := [part for part in parts if part not in theirs]:
      missing += lost
    elif name == parts[0]:
      joined = np.concatenate([theirs[part] for part in parts])
      _check_heads(name, form, joined, num_heads)
      path = _name(row.ours, form.ours, numbers, '/')
      ours[path] = form.to_ours(joined, num_heads)
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
    family: a key of FAMILIES.

  Returns:
    Contiguous arrays by name.

  Raises:
    ValueError: if the family has no name for some of the parameters.
  """
  rows = FAMILIES[family]
  found = {path: _find(path, rows, theirs=False) for path in ours}
  _check_all_known([path for path, hit in found.items() if not hit], family)
  theirs = {}
  for path, (row, form, numbers) in found.items():
    modules = _modules(row)
    parts = np.split(form.from_ours(np.asarray(ours[path])), len(modules))
    for module, part in zip(modules, parts, strict=True):
      name = _name(module, form.theirs, numbers, '.')
      theirs[name] = np.ascontiguousarray(part)
  return theirs


def _find(name: str, rows: tuple[Row, ...], *, theirs: bool) -> Any:
  """(row, form, numbers) of a name; None if it is unknown."""
  for row in rows:
    for form in row.forms:
      for module in _modules(row) if theirs else (row.ours,):
        leaf = form.theirs if theirs else form.ours
        full = _name(module, leaf, (), '.' if theirs else '/')
        pattern = re.escape(full).replace(r'\#', r'(\d+)')
        if match := re.fullmatch(pattern, name):
          return row, form, match.groups()
  return None


def _name(module: str, leaf: str, numbers: tuple[str, ...], dot: str) -> str:
  """A full name, with numbers in the places of `#`."""
  for number in numbers:
    module = module.replace('#', number, 1)
  return f'{module}{dot}{leaf}' if leaf else module


def _check_all_known(unknown: list[str], family: str) -> None:
  if unknown:
    raise ValueError(
      f'{len(unknown)} parameters have no counterpart in {family!r}: '
      f'{", ".join(sorted(unknown))}. Is it another architecture, or a file '
      f'with more than the model? Known families: {", ".join(FAMILIES)}.'
    )


def _check_heads(
  name: str, form: Form, array: np.ndarray, num_heads: int | None
) -> None:
  if form.by_heads and (not num_heads or array.shape[-1] % num_heads):
    raise ValueError(
      f'{name} {array.shape} cannot be split into num_heads={num_heads}: give '
      'the number of heads of the architecture.'
    )
