"""The layouts of google-research/vision_transformer and big_vision, and ours.

Four layouts were published, all as flat .npz files:

- before Linen: submodules are numbered over all children of their parent, so
  that a block has LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2 and
  MlpBlock_3; nearly all files of `gs://vit_models` are of this kind;
- Linen: numbered for each class: LayerNorm_0 and 1, ...Attention_0, MlpBlock_0;
- big_vision: as Linen, below `params/`; the positions are at the top, without
  a row for the class token;
- big_vision, scanned: the same with all blocks stacked on a first axis.

Optimiser state and a text tower beside the parameters are left behind.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

# The deepest published model has 56 blocks.
_MAX_DEPTH = 128
_MAX_UNITS = 64

_PREFIXES = ('opt/target/', 'params/img/', 'params/', 'img/')
_ROOTS = ('embedding/kernel', 'stem/kernel')

_POSITIONS = 'Transformer/posembed_input/pos_embedding'
_ATTENTION = 'MultiHeadDotProductAttention_0'

# Linen names, and the numbers that they bore in a block before.
_BEFORE_LINEN = {
  'LayerNorm_1': 'LayerNorm_2',
  'MultiHeadDotProductAttention_0': 'MultiHeadDotProductAttention_1',
  'MlpBlock_0': 'MlpBlock_3',
}

# Classes of layers. Blocks are left alone: a gap between them is an error.
_NUMBERED = re.compile(
  r'(LayerNorm|MultiHeadDotProductAttention|MlpBlock|Dense|MAPHead)_(\d+)'
)

# Names in older files -> Linen names: an inlined attention pooling, ...
_OLD = (
  (r'^Transformer/pos_embedding$', _POSITIONS),
  (r'^(probe$|(LayerNorm|MultiHeadDot\w+|MlpBlock)_0/)', r'MAPHead_0/\1'),
)
# ... and the first Mixers.
_FIRST_MIXERS = (
  (r'^embedding/', 'stem/'),
  (r'^Mixer/encoder_norm/', 'pre_head_layer_norm/'),
  (r'^Mixer/encoderblock_', 'MixerBlock_'),
  (r'_mixing_phase_0/(kernel|bias)1$', r'_mixing/Dense_0/\1'),
  (r'_mixing_phase_0/(kernel|bias)2$', r'_mixing/Dense_1/\1'),
)

# Ours <-> Linen: modules or single arrays. Fused projections follow below.
_VIT = {
  'cls': 'cls',
  'pos_embed': _POSITIONS,
  'patch_embed/proj': 'embedding',
  'norm': 'Transformer/encoder_norm',
  'pre_logits': 'pre_logits',
  'head': 'head',
  'pool/probe': 'MAPHead_0/probe',
  'pool/norm': 'MAPHead_0/LayerNorm_0',
  'pool/attn/out': f'MAPHead_0/{_ATTENTION}/out',
  'pool/mlp/fc1': 'MAPHead_0/MlpBlock_0/Dense_0',
  'pool/mlp/fc2': 'MAPHead_0/MlpBlock_0/Dense_1',
  'resnet/conv_root': 'conv_root',
  'resnet/gn_root': 'gn_root',
}
_VIT_BLOCK = {
  'norm1': 'LayerNorm_0',
  'attn/out': f'{_ATTENTION}/out',
  'norm2': 'LayerNorm_1',
  'mlp/fc1': 'MlpBlock_0/Dense_0',
  'mlp/fc2': 'MlpBlock_0/Dense_1',
}
_MIXER = {
  'patch_embed/proj': 'stem',
  'norm': 'pre_head_layer_norm',
  'head': 'head',
}
_MIXER_BLOCK = {
  'norm1': 'LayerNorm_0',
  'token_mlp/fc1': 'token_mixing/Dense_0',
  'token_mlp/fc2': 'token_mixing/Dense_1',
  'norm2': 'LayerNorm_1',
  'channel_mlp/fc1': 'channel_mixing/Dense_0',
  'channel_mlp/fc2': 'channel_mixing/Dense_1',
}
_UNIT = ('conv1', 'conv2', 'conv3', 'conv_proj', 'gn1', 'gn2', 'gn3', 'gn_proj')


def _vit_names() -> Iterator[tuple[str, str]]:
  yield from _VIT.items()
  for i in range(_MAX_DEPTH):
    for ours, theirs in _VIT_BLOCK.items():
      yield f'block_{i}/{ours}', f'Transformer/encoderblock_{i}/{theirs}'
  for s in range(4):
    for u in range(_MAX_UNITS):
      for name in _UNIT:
        theirs = f'block{s + 1}/unit{u + 1}/{name}'
        yield f'resnet/stage{s}_unit{u}/{name}', theirs


def _mixer_names() -> Iterator[tuple[str, str]]:
  yield from _MIXER.items()
  for i in range(_MAX_DEPTH):
    for ours, theirs in _MIXER_BLOCK.items():
      yield f'block_{i}/{ours}', f'MixerBlock_{i}/{theirs}'


def _fused_names() -> Iterator[tuple[str, str, tuple[str, ...]]]:
  """Ours, the parent of theirs, and which of its projections, in order."""
  for i in range(_MAX_DEPTH):
    attention = f'Transformer/encoderblock_{i}/{_ATTENTION}'
    yield f'block_{i}/attn/qkv', attention, ('query', 'key', 'value')
  yield 'pool/attn/q', f'MAPHead_0/{_ATTENTION}', ('query',)
  yield 'pool/attn/kv', f'MAPHead_0/{_ATTENTION}', ('key', 'value')


def is_google(names: Mapping[str, np.ndarray]) -> bool:
  """Whether the names are of one of these layouts."""
  return any(name.endswith(_ROOTS) for name in names)


def to_ours(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Parameters of ViT, hybrid or Mixer in any of the layouts -> ours, flat.

  Where the layout has no position for the class token, it stands at zero.

  Args:
    foreign: arrays by the names in the file.

  Returns:
    Arrays by our names, such as 'block_0/attn/qkv/kernel', (d, 3, h, t).

  Raises:
    ValueError: if the names are of no such layout, or some have no meaning; it
      lists them.
  """
  arrays = _to_linen(_select(foreign))
  mixer = 'stem/kernel' in arrays
  names = {theirs: ours for ours, theirs in _names(mixer)}
  ours = {} if mixer else _fuse(arrays)
  unknown = []
  for name, x in arrays.items():
    target = _rename(name, names)
    if target is None:
      unknown.append(name)
    elif re.search(r'/gn(\d|_root|_proj)/', f'/{target}'):
      ours[target] = x.reshape(-1)  # some are stored as (1, 1, 1, c)
    else:
      ours[target] = x
  if unknown:
    raise ValueError(
      'These parameters have no place in a ViT, hybrid or Mixer: '
      f'{", ".join(sorted(unknown))}. Is this a file of another model?'
    )
  return ours


def from_ours(ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Our parameters, flat, -> the names of the published files.

  That is the numbering from before Linen, the one that both
  google-research/vision_transformer and timm read. Undoes `to_ours`.

  Raises:
    ValueError: if the layout has no name for a parameter, such as layer scale.
  """
  mixer = any(name.startswith('block_0/token_mlp/') for name in ours)
  names = dict(_names(mixer))
  fused = {name: (parent, parts) for name, parent, parts in _fused_names()}
  foreign, unknown = {}, []
  for name, x in ours.items():
    module, _, leaf = name.rpartition('/')
    target = _rename(name, names)
    if target is not None:
      foreign[_before_linen(target)] = x
    elif module in fused:
      parent, parts = fused[module]
      pieces = [x] if len(parts) == 1 else np.moveaxis(x, -3, 0)
      for part, piece in zip(parts, pieces, strict=True):
        foreign[_before_linen(f'{parent}/{part}/{leaf}')] = piece
    else:
      unknown.append(name)
  if unknown:
    raise ValueError(
      'The layout of google-research/vision_transformer has no place for '
      f'{", ".join(sorted(unknown))}: choose another format.'
    )
  return foreign


def _names(mixer: bool) -> Iterator[tuple[str, str]]:
  return _mixer_names() if mixer else _vit_names()


def _rename(name: str, table: Mapping[str, str]) -> str | None:
  """The new name of an array that the table knows, itself or its module."""
  module, _, leaf = name.rpartition('/')
  if name in table:
    return table[name]
  return f'{table[module]}/{leaf}' if module in table else None


def _select(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The image model's parameters, without the prefix of their names."""
  for prefix in ('', *_PREFIXES):
    if any(prefix + root in foreign for root in _ROOTS):
      return {
        name.removeprefix(prefix): x
        for name, x in foreign.items()
        if name.startswith(prefix)
      }
  some = ', '.join(sorted(foreign)[:5])
  raise ValueError(
    'This is no ViT, hybrid or Mixer of Google: expected a parameter '
    f'{" or ".join(map(repr, _ROOTS))}, found {some}, ...'
  )


def _to_linen(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Brings all layouts to the names of the tables above."""
  arrays = _modernise(_number_by_class(_unstack(arrays)))
  if 'pos_embedding' in arrays:
    positions = arrays.pop('pos_embedding')
    if 'cls' in arrays:
      positions = np.pad(positions, ((0, 0), (1, 0), (0, 0)))
    arrays[_POSITIONS] = positions
  return arrays


def _unstack(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Blocks stacked on a first axis -> one by one."""
  stacked = 'Transformer/encoderblock/'
  result = {}
  for name, x in arrays.items():
    if name.startswith(stacked):
      rest = name.removeprefix(stacked)
      for i, piece in enumerate(x):
        result[f'Transformer/encoderblock_{i}/{rest}'] = piece
    else:
      result[name] = x
  return result


def _number_by_class(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Numbers the children of a node anew from 0, for each class by itself."""
  children: dict[tuple[str, str], set[int]] = {}
  paths = {name: name.split('/') for name in arrays}
  for path in paths.values():
    for depth, part in enumerate(path):
      if match := _NUMBERED.fullmatch(part):
        key = '/'.join(path[:depth]), match[1]
        children.setdefault(key, set()).add(int(match[2]))
  result = {}
  for name, path in paths.items():
    new = list(path)
    for depth, part in enumerate(path):
      if match := _NUMBERED.fullmatch(part):
        known = sorted(children['/'.join(path[:depth]), match[1]])
        new[depth] = f'{match[1]}_{known.index(int(match[2]))}'
    result['/'.join(new)] = arrays[name]
  return result


def _modernise(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Names of older files: an inlined attention pooling, the first Mixers."""
  rules = _FIRST_MIXERS if 'Mixer/encoder_norm/scale' in arrays else _OLD
  result = {}
  for name, x in arrays.items():
    for pattern, new in rules:
      name = re.sub(pattern, new, name)
    if name.startswith('MixerBlock'):
      x = x.squeeze()  # the first Mixers' kernels have more axes, of length 1
    result[name] = x
  return result


def _fuse(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Takes the projections of attention out of `arrays`; returns ours."""
  ours = {}
  for name, parent, parts in _fused_names():
    for leaf in ('kernel', 'bias'):
      pieces = [f'{parent}/{part}/{leaf}' for part in parts]
      if not any(piece in arrays for piece in pieces):
        continue
      if missing := [piece for piece in pieces if piece not in arrays]:
        raise ValueError(
          f'The checkpoint is incomplete: it lacks {", ".join(missing)}.'
        )
      found = [arrays.pop(piece) for piece in pieces]
      fused = found[0] if len(found) == 1 else np.stack(found, axis=-3)
      ours[f'{name}/{leaf}'] = fused
  return ours


def _before_linen(name: str) -> str:
  """The number that a submodule of a block had in the published files."""
  if not name.startswith('Transformer/encoderblock_'):
    return name
  parts = name.split('/')
  return '/'.join(_BEFORE_LINEN[x] if x in _BEFORE_LINEN else x for x in parts)
