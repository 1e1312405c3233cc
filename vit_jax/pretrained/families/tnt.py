"""TNT: names at Huawei and timm; the checkpoints of Huawei, which timm holds.

At timm sentences are patches and words are pixels; there, the positions of the
words are a map.
"""

import math
from collections.abc import Iterator

import flax.linen as nn
import numpy as np

from vit_jax.pretrained.counterpart import Size, Timm
from vit_jax.pretrained.entry import Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  ARRAY,
  CONV,
  DENSE,
  HEADS_OUT,
  KERNEL,
  NORM,
  QKV,
  Form,
  Row,
  respell,
)


def _transformer(ours: str, theirs: str) -> tuple[Row, ...]:
  """The rows of the words or the sentences of a block."""
  # Query and key share a layer, the value has one of its own.
  qkv = (f'{theirs}_attn.qk', f'{theirs}_attn.v')
  return (
    Row(f'{ours}/norm1', f'{theirs}_norm1', NORM),
    Row(f'{ours}/attn/qkv', qkv, QKV[:1], shares=(2, 1)),
    Row(f'{ours}/attn/out', f'{theirs}_attn.proj', HEADS_OUT),
    Row(f'{ours}/norm2', f'{theirs}_norm2', NORM),
    Row(f'{ours}/mlp/fc#', f'{theirs}_mlp.fc#', DENSE),
  )


_SHARED = (
  Row('word_embed', 'patch_embed.proj', CONV),
  Row('said/norm#', 'proj_norm#', NORM),
  Row('said/proj', 'proj', DENSE),
  Row('cls', 'cls_token', ARRAY),
  Row('pos_embed', 'outer_pos', ARRAY),
  *_transformer('block_#/inner', 'blocks.#.inner'),
  Row('block_#/said/norm#', 'blocks.#.proj_norm#', NORM),
  Row('block_#/said/proj', 'blocks.#.proj', KERNEL),
  *_transformer('block_#/outer', 'blocks.#.outer'),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)
_HUAWEI = (
  *_SHARED,
  Row('word_pos', 'inner_pos', ARRAY),
  Row('', 'outer_tokens', ARRAY),
)


def _as_map(x: np.ndarray) -> np.ndarray:
  """(1, m, c) -> (1, c, side, side)."""
  side = math.isqrt(x.shape[1])
  return x.swapaxes(1, 2).reshape(1, -1, side, side)


_MAP = Form(
  '', '', lambda x, heads: x.reshape(*x.shape[:2], -1).swapaxes(1, 2), _as_map
)
_TIMM = (
  *respell(
    _SHARED,
    {
      'patch_embed': 'pixel_embed',
      'outer_pos': 'patch_pos',
      'proj_norm#': 'norm#_proj',
      'inner_norm1': 'norm_in',
      'inner_norm2': 'norm_mlp_in',
      'outer_norm1': 'norm_out',
      'outer_norm2': 'norm_mlp',
      'inner_attn': 'attn_in',
      'outer_attn': 'attn_out',
      'inner_mlp': 'mlp_in',
      'outer_mlp': 'mlp',
    },
  ),
  Row('word_pos', 'pixel_pos', (_MAP,)),
)

NAMES = {'timm_tnt': _TIMM, 'huawei_tnt': _HUAWEI}

# Name at huggingface.co/timm -> variant, accuracy.
_TNTS = {
  'tnt_s_patch16_224.in1k': ('S', 81.5),
  'tnt_b_patch16_224.in1k': ('B', 82.9),
}


def entries() -> Iterator[Entry]:
  """All of them."""
  for name, (variant, accuracy) in _TNTS.items():
    yield Entry(
      name=f'tnt/{name}',
      location=f'hf://timm/{name}',
      model='tnt',
      variant=variant,
      overrides={},
      # 224 pixels are nine tenths of what is resized.
      preprocessing=Preprocessing(
        224, resize_small=248, interpolation='bicubic'
      ),
      labels='imagenet1k',
      accuracy=accuracy,
      source='README of huawei-noah/Efficient-AI-Backbones',
    )


def timm(model: nn.Module, *, size: Size) -> Timm:
  """The same model of timm."""
  args = {
    'img_size': list(size),
    'patch_size': model.patch_size,
    'embed_dim': model.width,
    'inner_dim': model.word_width,
    'depth': model.depth,
    'num_heads_inner': model.word_heads,
    'num_heads_outer': model.num_heads,
  }
  return Timm(
    'timm_tnt', 'tnt_s_patch16_224', args, model.width, 'pixel_embed.proj'
  )
