"""PVT, PVT v2 and Twins-PCPVT: names elsewhere, checkpoints of the authors.

Those of PVT are where its authors keep them, the others at timm. Accuracies are
those of the READMEs of whai362/PVT and Meituan-AutoML/Twins.
"""

import math
from collections.abc import Iterator

import flax.linen as nn
import numpy as np

from vit_jax.pretrained.counterpart import Size, Timm
from vit_jax.pretrained.entry import IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  ARRAY,
  CONV,
  DENSE,
  HEADS_OUT,
  KV,
  NORM,
  Form,
  Q,
  Row,
  respell,
)

STAGES = range(4)


def _as_map(x: np.ndarray, heads: None) -> np.ndarray:
  """(1, n, d) -> (1, side, side, d)."""
  side = math.isqrt(x.shape[1])
  if side * side != x.shape[1]:
    raise ValueError(
      f'The checkpoint has {x.shape[1]} positions in a stage: its images are '
      'not square, and only square ones are known here.'
    )
  return x.reshape(1, side, side, -1)


_MAP = (Form('', '', _as_map, lambda x: x.reshape(1, -1, x.shape[-1])),)
_END = (Row('norm', 'norm', NORM), Row('head', 'head', DENSE))


def _block(ours: str, theirs: str) -> tuple[Row, ...]:
  """The rows of a block."""
  return (
    Row(f'{ours}/norm1', f'{theirs}.norm1', NORM),
    Row(f'{ours}/reduction/proj', f'{theirs}.attn.sr', CONV),
    Row(f'{ours}/reduction/norm', f'{theirs}.attn.norm', NORM),
    Row(f'{ours}/attn/q', f'{theirs}.attn.q', Q),
    Row(f'{ours}/attn/kv', f'{theirs}.attn.kv', KV),
    Row(f'{ours}/attn/out', f'{theirs}.attn.proj', HEADS_OUT),
    Row(f'{ours}/norm2', f'{theirs}.norm2', NORM),
    Row(f'{ours}/mlp/fc#', f'{theirs}.mlp.fc#', DENSE),
    Row(f'{ours}/mlp/depthwise', f'{theirs}.mlp.dwconv', CONV),
  )


def _hf_block(ours: str, theirs: str) -> tuple[Row, ...]:
  """The rows of a block of PVT at Hugging Face."""
  attention = f'{theirs}.attention.self'
  return (
    Row(f'{ours}/norm1', f'{theirs}.layer_norm_1', NORM),
    Row(f'{ours}/reduction/proj', f'{attention}.sequence_reduction', CONV),
    Row(f'{ours}/reduction/norm', f'{attention}.layer_norm', NORM),
    Row(f'{ours}/attn/q', f'{attention}.query', Q),
    Row(f'{ours}/attn/kv', (f'{attention}.key', f'{attention}.value'), KV),
    Row(f'{ours}/attn/out', f'{theirs}.attention.output.dense', HEADS_OUT),
    Row(f'{ours}/norm2', f'{theirs}.layer_norm_2', NORM),
    Row(f'{ours}/mlp/fc#', f'{theirs}.mlp.dense#', DENSE),
    Row(f'{ours}/mlp/depthwise', f'{theirs}.mlp.dwconv.dwconv', CONV),
  )


# The authors count stages from 1.
_PVT = (
  Row('stage_3/cls', 'cls_token', ARRAY),
  Row('stage_3/pos_embed', 'pos_embed4', ARRAY),
  *(Row(f'stage_{i}/pos_embed', f'pos_embed{i + 1}', _MAP) for i in range(3)),
  *(
    row
    for i in STAGES
    for row in (
      Row(f'stage_{i}/patch_embed/proj', f'patch_embed{i + 1}.proj', CONV),
      Row(f'stage_{i}/patch_norm', f'patch_embed{i + 1}.norm', NORM),
      *_block(f'stage_{i}/block_#', f'block{i + 1}.#'),
    )
  ),
  *_END,
)
_PVT_V2 = (
  *(
    row
    for i in STAGES
    for row in (
      Row(f'stage_{i}/patch_embed', f'patch_embed{i + 1}.proj', CONV),
      Row(f'stage_{i}/patch_norm', f'patch_embed{i + 1}.norm', NORM),
      *respell(
        _block(f'stage_{i}/block_#', f'block{i + 1}.#'),
        {'dwconv': 'dwconv.dwconv'},
      ),
      Row(f'stage_{i}/norm', f'norm{i + 1}', NORM),
    )
  ),
  *_END[1:],
)
_TIMM_PVT_V2 = (
  Row('stage_0/patch_embed', 'patch_embed.proj', CONV),
  Row('stage_0/patch_norm', 'patch_embed.norm', NORM),
  Row('stage_#/patch_embed', 'stages.#.downsample.proj', CONV),
  Row('stage_#/patch_norm', 'stages.#.downsample.norm', NORM),
  *_block('stage_#/block_#', 'stages.#.blocks.#'),
  Row('stage_#/norm', 'stages.#.norm', NORM),
  *_END[1:],
)
# At timm as at Meituan.
_TWINS = (
  Row('stage_#/patch_embed/proj', 'patch_embeds.#.proj', CONV),
  Row('stage_#/patch_norm', 'patch_embeds.#.norm', NORM),
  *_block('stage_#/block_#', 'blocks.#.#'),
  Row('stage_#/block_0/peg/depthwise', 'pos_block.#.proj.0', CONV),
  *_END,
)

_HF = 'pvt.encoder.patch_embeddings'
_HF_V2 = 'pvt_v2.encoder.layers.#'
_HF_PVT = (
  Row('stage_3/cls', f'{_HF}.3.cls_token', ARRAY),
  Row('stage_3/pos_embed', f'{_HF}.3.position_embeddings', ARRAY),
  Row('stage_#/pos_embed', f'{_HF}.#.position_embeddings', _MAP),
  Row('stage_#/patch_embed/proj', f'{_HF}.#.projection', CONV),
  Row('stage_#/patch_norm', f'{_HF}.#.layer_norm', NORM),
  *_hf_block('stage_#/block_#', 'pvt.encoder.block.#.#'),
  Row('norm', 'pvt.encoder.layer_norm', NORM),
  Row('head', 'classifier', DENSE),
)
_HF_PVT_V2 = (
  Row('stage_#/patch_embed', f'{_HF_V2}.patch_embedding.proj', CONV),
  Row('stage_#/patch_norm', f'{_HF_V2}.patch_embedding.layer_norm', NORM),
  *respell(
    _hf_block('stage_#/block_#', f'{_HF_V2}.blocks.#'),
    {
      'attention.self.sequence_reduction': 'attention.spatial_reduction',
      'attention.self': 'attention',
      'attention.output.dense': 'attention.proj',
    },
  ),
  Row('stage_#/norm', f'{_HF_V2}.layer_norm', NORM),
  Row('head', 'classifier', DENSE),
)

NAMES = {
  'whai362_pvt': _PVT,
  'whai362_pvt_v2': _PVT_V2,
  'timm_pvt_v2': _TIMM_PVT_V2,
  'timm_twins_pcpvt': _TWINS,
  'hf_pvt': _HF_PVT,
  'hf_pvt_v2': _HF_PVT_V2,
}

_RELEASE = 'https://github.com/whai362/PVT/releases/download/v2'
# Name -> address, architecture, variant, accuracy.
_CHECKPOINTS = {
  'pvt/pvt_tiny': (f'{_RELEASE}/pvt_tiny.pth', 'pvt', 'T', 75.1),
  'pvt/pvt_small': (f'{_RELEASE}/pvt_small.pth', 'pvt', 'S', 79.8),
  'pvt/pvt_medium': (f'{_RELEASE}/pvt_medium.pth', 'pvt', 'M', 81.2),
  'pvt/pvt_large': (f'{_RELEASE}/pvt_large.pth', 'pvt', 'L', 81.7),
  **{
    f'pvt/{name}': (f'hf://timm/{name}', 'pvt_v2', variant, accuracy)
    for name, variant, accuracy in (
      ('pvt_v2_b0.in1k', 'B0', 70.5),
      ('pvt_v2_b1.in1k', 'B1', 78.7),
      ('pvt_v2_b2.in1k', 'B2', 82.0),
      ('pvt_v2_b2_li.in1k', 'B2-Li', 82.1),
      ('pvt_v2_b3.in1k', 'B3', 83.1),
      ('pvt_v2_b4.in1k', 'B4', 83.6),
      ('pvt_v2_b5.in1k', 'B5', 83.8),
    )
  },
  **{
    f'twins/{name}': (f'hf://timm/{name}', 'twins_pcpvt', variant, accuracy)
    for name, variant, accuracy in (
      ('twins_pcpvt_small.in1k', 'S', 81.2),
      ('twins_pcpvt_base.in1k', 'B', 82.7),
      ('twins_pcpvt_large.in1k', 'L', 83.1),
    )
  },
}


def entries() -> Iterator[Entry]:
  """All of them."""
  mean, std = IMAGENET
  for name, (location, model, variant, accuracy) in _CHECKPOINTS.items():
    yield Entry(
      name=name,
      location=location,
      model=model,
      variant=variant,
      overrides={},
      # As the authors judged them; timm takes nine tenths of 248 pixels.
      preprocessing=Preprocessing(
        224, resize_small=256, interpolation='bicubic', mean=mean, std=std
      ),
      labels='imagenet1k',
      accuracy=accuracy,
      source=(
        'README of Meituan-AutoML/Twins'
        if model == 'twins_pcpvt'
        else 'README of whai362/PVT'
      ),
    )


def timm_v2(model: nn.Module, *, size: Size) -> Timm:
  """PVT v2 of timm, for images of any size.

  Raises:
    ValueError: if timm has none.
  """
  del size
  if model.patch_size != 4:
    raise ValueError(
      f"timm's PVT v2 has patch_size=4, not {model.patch_size}: export to onnx "
      'or stablehlo.'
    )
  args = _args(model) | {'linear': model.linear}
  return Timm(
    'timm_pvt_v2', 'pvt_v2_b2', args, model.widths[-1], 'patch_embed.proj'
  )


def timm_twins(model: nn.Module, *, size: Size) -> Timm:
  """Twins-PCPVT of timm.

  Raises:
    ValueError: if timm has none for images of this size.
  """
  stride = model.patch_size * 2 ** (len(model.depths) - 1)
  if any(side % stride for side in size):
    raise ValueError(
      f"timm's Twins take images whose sides are multiples of {stride}, not "
      f'{size[0]}x{size[1]}: export to onnx or stablehlo.'
    )
  args = _args(model) | {'img_size': size, 'patch_size': model.patch_size}
  return Timm(
    'timm_twins_pcpvt',
    'twins_pcpvt_small',
    args,
    model.widths[-1],
    'patch_embeds.0.proj',
  )


def _args(model: nn.Module) -> dict[str, list[int]]:
  return {
    'depths': list(model.depths),
    'embed_dims': list(model.widths),
    'num_heads': list(model.num_heads),
    'mlp_ratios': list(model.mlp_ratios),
    'sr_ratios': list(model.reductions),
  }
