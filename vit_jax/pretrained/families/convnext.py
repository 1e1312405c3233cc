"""ConvNeXt: names at Meta, timm and Hugging Face; checkpoints of Meta.

Halving stands at the start of a stage, here as at timm and Hugging Face; Meta
counts it, and the patches before the first stage, apart.

timm holds most of the checkpoints, as safetensors. Accuracies are those of the
README of facebookresearch/ConvNeXt, which differ from the paper's in one: of
the small isotropic model it says 78.7 %, and table 2 says 79.7 %.
"""

from collections.abc import Iterator

import flax.linen as nn

from vit_jax.pretrained.counterpart import HuggingFace, Size, Timm, stage_widths
from vit_jax.pretrained.entry import IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  CONV,
  DENSE,
  NORM,
  SCALE,
  Row,
  respell,
)


def _block(ours: str, theirs: str) -> tuple[Row, ...]:
  """The rows of Meta's blocks."""
  return (
    Row(f'{ours}/depthwise', f'{theirs}.dwconv', CONV),
    Row(f'{ours}/norm', f'{theirs}.norm', NORM),
    Row(f'{ours}/mlp/fc#', f'{theirs}.pwconv#', DENSE),
    Row(f'{ours}/scale', theirs, SCALE),
  )


_META = (
  Row('patch_embed', 'downsample_layers.0.0', CONV),
  Row('patch_norm', 'downsample_layers.0.1', NORM),
  Row('stage_#/norm', 'downsample_layers.#.0', NORM),
  Row('stage_#/downsample', 'downsample_layers.#.1', CONV),
  *_block('stage_#/block_#', 'stages.#.#'),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)
_META_ISOTROPIC = (
  Row('patch_embed', 'stem', CONV),
  *_block('stage_0/block_#', 'blocks.#'),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)
_TIMM = (
  Row('patch_embed', 'stem.0', CONV),
  Row('patch_norm', 'stem.1', NORM),
  Row('stage_#/norm', 'stages.#.downsample.0', NORM),
  Row('stage_#/downsample', 'stages.#.downsample.1', CONV),
  *respell(
    _block('stage_#/block_#', 'stages.#.blocks.#'),
    {'dwconv': 'conv_dw', 'pwconv': 'mlp.fc'},
  ),
  Row('norm', 'head.norm', NORM),
  Row('head', 'head.fc', DENSE),
)

_STAGE = 'convnext.encoder.stages.#'
_HF = (
  Row('patch_embed', 'convnext.embeddings.patch_embeddings', CONV),
  Row('patch_norm', 'convnext.embeddings.layernorm', NORM),
  Row('stage_#/norm', f'{_STAGE}.downsampling_layer.0', NORM),
  Row('stage_#/downsample', f'{_STAGE}.downsampling_layer.1', CONV),
  Row('stage_#/block_#/depthwise', f'{_STAGE}.layers.#.dwconv', CONV),
  Row('stage_#/block_#/norm', f'{_STAGE}.layers.#.layernorm', NORM),
  Row('stage_#/block_#/mlp/fc#', f'{_STAGE}.layers.#.pwconv#', DENSE),
  Row(
    'stage_#/block_#/scale',
    f'{_STAGE}.layers.#',
    (SCALE[0]._replace(theirs='layer_scale_parameter'),),
  ),
  Row('norm', 'convnext.layernorm', NORM),
  Row('head', 'classifier', DENSE),
)

NAMES = {
  'timm_convnext': _TIMM,
  'meta_convnext': _META,
  'meta_convnext_isotropic': _META_ISOTROPIC,
  'hf_convnext': _HF,
}

# Name at huggingface.co/timm, after 'convnext_' -> accuracy.
_AT_TIMM = {
  'tiny.fb_in1k': 82.1,
  'small.fb_in1k': 83.1,
  'base.fb_in1k': 83.8,
  'large.fb_in1k': 84.3,
  'tiny.fb_in22k': None,
  'small.fb_in22k': None,
  'base.fb_in22k': None,
  'large.fb_in22k': None,
  'xlarge.fb_in22k': None,
  'tiny.fb_in22k_ft_in1k': 82.9,
  'small.fb_in22k_ft_in1k': 84.6,
  'base.fb_in22k_ft_in1k': 85.8,
  'large.fb_in22k_ft_in1k': 86.6,
  'xlarge.fb_in22k_ft_in1k': 87.0,
  'tiny.fb_in22k_ft_in1k_384': 84.1,
  'small.fb_in22k_ft_in1k_384': 85.8,
  'base.fb_in22k_ft_in1k_384': 86.8,
  'large.fb_in22k_ft_in1k_384': 87.5,
  'xlarge.fb_in22k_ft_in1k_384': 87.8,
}
# File at dl.fbaipublicfiles.com/convnext, after 'convnext_' -> accuracy.
_AT_META = {
  'base_1k_384': 85.1,
  'large_1k_384': 85.5,
  'iso_small_1k_224_ema': 78.7,
  'iso_base_1k_224_ema': 82.0,
  'iso_large_1k_224_ema': 82.6,
}
_VARIANTS = {
  'tiny': 'T',
  'small': 'S',
  'base': 'B',
  'large': 'L',
  'xlarge': 'XL',
  'iso_small': 'iso_S',
  'iso_base': 'iso_B',
  'iso_large': 'iso_L',
}


def entries() -> Iterator[Entry]:
  """All of them."""
  for name, accuracy in _AT_TIMM.items():
    location = f'hf://timm/convnext_{name}'
    yield _entry(
      name, location=location, size=name.partition('.')[0], accuracy=accuracy
    )
  for name, accuracy in _AT_META.items():
    location = f'https://dl.fbaipublicfiles.com/convnext/convnext_{name}.pth'
    yield _entry(
      name, location=location, size=name.partition('_1k')[0], accuracy=accuracy
    )


def _entry(
  name: str, *, location: str, size: str, accuracy: float | None
) -> Entry:
  mean, std = IMAGENET
  # Images of 384 pixels are not cropped, but squashed.
  recipe = dict(size=384) if '384' in name else dict(size=224, resize_small=256)
  return Entry(
    name=f'convnext/convnext_{name}',
    location=location,
    model='convnext',
    variant=_VARIANTS[size],
    overrides={},
    preprocessing=Preprocessing(
      **recipe, interpolation='bicubic', mean=mean, std=std
    ),
    labels='imagenet22k' if name.endswith('22k') else 'imagenet1k',
    accuracy=accuracy,
    source='README of facebookresearch/ConvNeXt',
  )


def timm(model: nn.Module, *, size: Size) -> Timm:
  """The same model of timm, for images of any size.

  Raises:
    ValueError: if timm has none.
  """
  del size
  of_timm = model.patch_size == 4 and model.patch_norm
  if not of_timm or len(model.depths) != 4:
    raise ValueError(
      "timm's ConvNeXts have four stages after normed patches of 4 x 4 pixels, "
      'not this one: export to onnx or stablehlo.'
    )
  widths = stage_widths(model)
  args = {
    'patch_size': model.patch_size,
    'depths': list(model.depths),
    'dims': widths,
    'ls_init_value': model.layer_scale,
  }
  return Timm(
    'timm_convnext', 'convnext_tiny', args, widths[-1], 'stem.0', 'head.fc'
  )


def hugging_face(model: nn.Module, *, size: Size) -> HuggingFace:
  """The same model of transformers, for images of any size.

  Raises:
    ValueError: if transformers has none.
  """
  del size
  if not model.patch_norm:
    raise ValueError(
      "Hugging Face's models for image classification cannot express "
      'patch_norm=False: export to onnx or stablehlo.'
    )
  config = {
    'architectures': ['ConvNextForImageClassification'],
    'model_type': 'convnext',
    'patch_size': model.patch_size,
    'num_stages': len(model.depths),
    'depths': list(model.depths),
    'hidden_sizes': stage_widths(model),
    'hidden_act': 'gelu',
    # 0 is none.
    'layer_scale_init_value': model.layer_scale or 0.0,
  }
  return HuggingFace('hf_convnext', config)
