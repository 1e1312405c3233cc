"""Swin and SwinV2: names at Microsoft, timm and Hugging Face; checkpoints.

Merging ends a stage at Microsoft and Hugging Face; at timm, as here, it begins
the next.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import numpy as np

from vit_jax.pretrained.counterpart import HuggingFace, Size, Timm, stage_widths
from vit_jax.pretrained.entry import IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  CONV,
  DENSE,
  HEADS_OUT,
  KERNEL,
  NORM,
  QKV,
  Form,
  Q,
  Row,
  respell,
)


def _square(table: np.ndarray, heads: None) -> np.ndarray:
  """(side * side, k) -> (side, side, k)."""
  side = math.isqrt(len(table))
  if side * side != len(table):
    raise ValueError(
      f'The checkpoint has tables of {len(table)} position biases: its windows '
      'are not square, and only square ones are known here.'
    )
  return table.reshape(side, side, -1)


TABLE = Form(
  'table',
  'relative_position_bias_table',
  _square,
  lambda x: x.reshape(-1, x.shape[-1]),
)
LOGIT_SCALE = Form(
  'logit_scale',
  'logit_scale',
  lambda x, heads: x.ravel(),
  lambda x: x.reshape(-1, 1, 1),
)
_BIAS = Q[1]

_OURS, _MS = 'stage_#/block_#', 'layers.#.blocks.#'
_MS_SHARED = (
  Row('patch_embed/proj', 'patch_embed.proj', CONV),
  Row('patch_norm', 'patch_embed.norm', NORM),
  Row('stage_1/merging/norm', 'layers.0.downsample.norm', NORM),
  Row('stage_2/merging/norm', 'layers.1.downsample.norm', NORM),
  Row('stage_3/merging/norm', 'layers.2.downsample.norm', NORM),
  Row('stage_1/merging/reduction', 'layers.0.downsample.reduction', KERNEL),
  Row('stage_2/merging/reduction', 'layers.1.downsample.reduction', KERNEL),
  Row('stage_3/merging/reduction', 'layers.2.downsample.reduction', KERNEL),
  Row(f'{_OURS}/norm1', f'{_MS}.norm1', NORM),
  Row(f'{_OURS}/attn/out', f'{_MS}.attn.proj', HEADS_OUT),
  Row(f'{_OURS}/norm2', f'{_MS}.norm2', NORM),
  Row(f'{_OURS}/mlp/fc#', f'{_MS}.mlp.fc#', DENSE),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)
_MS_SWIN = (
  *_MS_SHARED,
  Row(f'{_OURS}/attn/qkv', f'{_MS}.attn.qkv', QKV),
  Row(f'{_OURS}/position_bias', f'{_MS}.attn', (TABLE,)),
)
_MS_SWIN_V2 = (
  *_MS_SHARED,
  Row(f'{_OURS}/attn/qkv', f'{_MS}.attn.qkv', QKV[:1]),
  Row(
    f'{_OURS}/attn',
    f'{_MS}.attn',
    (
      _BIAS._replace(ours='q_bias', theirs='q_bias'),
      _BIAS._replace(ours='v_bias', theirs='v_bias'),
      LOGIT_SCALE,
    ),
  ),
  Row(f'{_OURS}/position_bias/fc1', f'{_MS}.attn.cpb_mlp.0', DENSE),
  Row(f'{_OURS}/position_bias/fc2', f'{_MS}.attn.cpb_mlp.2', KERNEL),
)

# The last stage first, so that none is renamed twice.
_TIMM = {
  'layers.2.downsample': 'layers.3.downsample',
  'layers.1.downsample': 'layers.2.downsample',
  'layers.0.downsample': 'layers.1.downsample',
  'head': 'head.fc',
}

_HF = 'swin.encoder.layers.#.blocks.#'
_HF_ATTENTION = f'{_HF}.attention.self'
_HF_QKV = (
  f'{_HF_ATTENTION}.query',
  f'{_HF_ATTENTION}.key',
  f'{_HF_ATTENTION}.value',
)
# As files on the hub have them.
_HF_SHARED = (
  Row('patch_embed/proj', 'swin.embeddings.patch_embeddings.projection', CONV),
  Row('patch_norm', 'swin.embeddings.norm', NORM),
  *(
    row._replace(theirs=f'swin.encoder.{row.theirs}')
    for row in _MS_SHARED
    if '/merging/' in row.ours
  ),
  Row(f'{_OURS}/norm1', f'{_HF}.layernorm_before', NORM),
  Row(f'{_OURS}/attn/out', f'{_HF}.attention.output.dense', HEADS_OUT),
  Row(f'{_OURS}/norm2', f'{_HF}.layernorm_after', NORM),
  Row(f'{_OURS}/mlp/fc1', f'{_HF}.intermediate.dense', DENSE),
  Row(f'{_OURS}/mlp/fc2', f'{_HF}.output.dense', DENSE),
  Row('norm', 'swin.layernorm', NORM),
  Row('head', 'classifier', DENSE),
)
_HF_SWIN = (
  *_HF_SHARED,
  Row(f'{_OURS}/attn/qkv', _HF_QKV, QKV),
  Row(f'{_OURS}/position_bias', _HF_ATTENTION, (TABLE,)),
)
_HF_SWIN_V2 = (
  *_HF_SHARED,
  Row(f'{_OURS}/attn/qkv', _HF_QKV, QKV[:1]),
  Row(
    f'{_OURS}/attn',
    _HF_ATTENTION,
    (
      _BIAS._replace(ours='q_bias', theirs='query.bias'),
      _BIAS._replace(ours='v_bias', theirs='value.bias'),
      LOGIT_SCALE,
    ),
  ),
  Row(
    f'{_OURS}/position_bias/fc1',
    f'{_HF_ATTENTION}.continuous_position_bias_mlp.0',
    DENSE,
  ),
  Row(
    f'{_OURS}/position_bias/fc2',
    f'{_HF_ATTENTION}.continuous_position_bias_mlp.2',
    KERNEL,
  ),
)

NAMES = {
  'timm_swin': respell(_MS_SWIN, _TIMM),
  'timm_swin_v2': respell(_MS_SWIN_V2, _TIMM),
  'ms_swin': _MS_SWIN,
  'ms_swin_v2': _MS_SWIN_V2,
  'hf_swin': _HF_SWIN,
  'hf_swin_v2': respell(_HF_SWIN_V2, {'swin.': 'swinv2.'}),
  # As transformers 5 calls them in memory.
  'hf_swin_memory': respell(
    _HF_SWIN,
    {
      'attention.self.query': 'attention.q_proj',
      'attention.self.key': 'attention.k_proj',
      'attention.self.value': 'attention.v_proj',
      'attention.self': 'attention.relative_position_bias',
      'attention.output.dense': 'attention.o_proj',
      'intermediate.dense': 'mlp.fc1',
      'output.dense': 'mlp.fc2',
    },
  ),
}

# Name at huggingface.co/timm -> accuracy, from MODELHUB.md of
# microsoft/Swin-Transformer.
_SWINS = {
  'swin_tiny_patch4_window7_224.ms_in1k': 81.2,
  'swin_small_patch4_window7_224.ms_in1k': 83.2,
  'swin_base_patch4_window7_224.ms_in1k': 83.5,
  'swin_base_patch4_window12_384.ms_in1k': 84.5,
  'swin_tiny_patch4_window7_224.ms_in22k_ft_in1k': 80.9,
  'swin_small_patch4_window7_224.ms_in22k_ft_in1k': 83.2,
  'swin_base_patch4_window7_224.ms_in22k_ft_in1k': 85.2,
  'swin_base_patch4_window12_384.ms_in22k_ft_in1k': 86.4,
  'swin_large_patch4_window7_224.ms_in22k_ft_in1k': 86.3,
  'swin_large_patch4_window12_384.ms_in22k_ft_in1k': 87.3,
  'swin_tiny_patch4_window7_224.ms_in22k': None,
  'swin_small_patch4_window7_224.ms_in22k': None,
  'swin_base_patch4_window7_224.ms_in22k': None,
  'swin_base_patch4_window12_384.ms_in22k': None,
  'swin_large_patch4_window7_224.ms_in22k': None,
  'swin_large_patch4_window12_384.ms_in22k': None,
  'swinv2_tiny_window8_256.ms_in1k': 81.8,
  'swinv2_tiny_window16_256.ms_in1k': 82.8,
  'swinv2_small_window8_256.ms_in1k': 83.7,
  'swinv2_small_window16_256.ms_in1k': 84.1,
  'swinv2_base_window8_256.ms_in1k': 84.2,
  'swinv2_base_window16_256.ms_in1k': 84.6,
  'swinv2_base_window12to16_192to256.ms_in22k_ft_in1k': 86.2,
  'swinv2_base_window12to24_192to384.ms_in22k_ft_in1k': 87.1,
  'swinv2_large_window12to16_192to256.ms_in22k_ft_in1k': 86.9,
  'swinv2_large_window12to24_192to384.ms_in22k_ft_in1k': 87.6,
  'swinv2_base_window12_192.ms_in22k': None,
  'swinv2_large_window12_192.ms_in22k': None,
}


def entries() -> Iterator[Entry]:
  """All of them."""
  pattern = re.compile(r'swin(v2)?_(.)\w*_window(\w+)_(?:\d+to)?(\d+)[.].*')
  for name, accuracy in _SWINS.items():
    second, letter, windows, digits = pattern.fullmatch(name).groups()
    size = int(digits)
    mean, std = IMAGENET
    yield Entry(
      name=f'swin/{name}',
      location=f'hf://timm/{name}',
      model='swin_v2' if second else 'swin',
      variant=f'{letter.upper()}/{windows}',
      overrides={},
      # Images of 384 pixels are not cropped.
      preprocessing=Preprocessing(
        size,
        resize_small=size * 256 // 224 if size < 384 else None,
        interpolation='bicubic',
        mean=mean,
        std=std,
      ),
      labels='imagenet22k' if name.endswith('22k') else 'imagenet1k',
      accuracy=accuracy,
      source='SwinV2, arXiv:2111.09883' if second else 'Swin, arXiv:2103.14030',
    )


def timm(model: nn.Module, *, size: Size) -> Timm:
  """The same model of timm.

  Raises:
    ValueError: if timm has none for images of this size.
  """
  sides, window = _map_sides(model, size=size), model.window_size
  second = _is_second(model)
  # The tables of shrunk windows are smaller there; the second has none.
  if any(n % (min(n, window) if second else window) for n in sides):
    raise _other_windows('timm', model, size=size)
  return Timm(
    'timm_swin_v2' if second else 'timm_swin',
    'swinv2_tiny_window8_256' if second else 'swin_tiny_patch4_window7_224',
    {'img_size': list(size), **_args(model)},
    stage_widths(model)[-1],
    'patch_embed.proj',
    'head.fc',
  )


def hugging_face(model: nn.Module, *, size: Size) -> HuggingFace:
  """The same model of transformers.

  Raises:
    ValueError: if transformers has none for images of this size.
  """
  second = _is_second(model)
  if min(_map_sides(model, size=size)) < model.window_size and not second:
    raise _other_windows('Hugging Face', model, size=size)
  version = 'v2' if second else ''
  config = {
    'architectures': [f'Swin{version}ForImageClassification'],
    'model_type': f'swin{version}',
    'layer_norm_eps': 1e-5,
    **_args(model),
  }
  return HuggingFace('hf_swin_v2' if second else 'hf_swin', config)


def _is_second(model: nn.Module) -> bool:
  return hasattr(model, 'pretrained_windows')


def _args(model: nn.Module) -> dict[str, Any]:
  args = {
    'patch_size': model.patch_size,
    'embed_dim': model.width,
    'depths': list(model.depths),
    'num_heads': list(model.num_heads),
    'window_size': model.window_size,
  }
  if _is_second(model):
    windows = model.pretrained_windows or [0] * len(model.depths)
    args['pretrained_window_sizes'] = list(windows)
  return args


def _map_sides(model: nn.Module, *, size: Size) -> list[int]:
  """Height and width of the maps of all stages of a Swin, in tokens."""
  strides = [model.patch_size * 2**i for i in range(len(model.depths))]
  return [-(-n // stride) for stride in strides for n in size]


def _other_windows(who: str, model: nn.Module, *, size: Size) -> ValueError:
  return ValueError(
    f'{who} treats maps that windows of {model.window_size} do not fill '
    f'otherwise, and images of {size[0]}x{size[1]} have such maps: export to '
    'onnx or stablehlo.'
  )
