"""What timm and Hugging Face must know to build a model for our parameters.

Names and values of their `config.json`, as timm 1.0 and transformers 4 and 5
read them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

ACTIVATIONS = {
  'timm': {'tanh': 'gelu_tanh', 'erf': 'gelu'},
  'hf': {'tanh': 'gelu_pytorch_tanh', 'erf': 'gelu'},
}
POOLS = {'token': 'token', 'gap': 'avg', 'map': 'map'}  # ours -> timm
# Any of timm's plain ViTs will do: all their sizes are arguments. Not so the
# units of the ResNet in front of a hybrid.
TIMM_VIT = 'vit_base_patch16_224'
TIMM_HYBRIDS = {
  (): 'vit_tiny_r_s16_p8_224',
  (2, 2, 2, 2): 'vit_small_r26_s32_224',
  (3, 4, 9): 'vit_base_r50_s16_224',
  (3, 4, 6, 3): 'vit_large_r50_s32_224',
}
# timm's names of methods, and PIL's numbers, which Hugging Face writes.
INTERPOLATIONS = {'bilinear': 'bilinear', 'bicubic': 'bicubic', 'area': 'box'}
PIL_NUMBERS = {'bilinear': 2, 'bicubic': 3, 'area': 4}


def timm_family(name: str, model: nn.Module) -> str:
  """The table of `torch_names` for a model.

  Raises:
    ValueError: if timm has no such model.
  """
  if name == 'mlp_mixer':
    return 'timm_mixer'
  if name != 'vit':
    raise ValueError(f'timm export knows vit and mlp_mixer, not {name!r}.')
  if model.representation_size is not None:
    raise ValueError(
      'timm has no layer before the head: train with '
      '`config.model.representation_size = None`, or export to npz or onnx.'
    )
  if model.resnet is None:
    return 'timm_vit'
  if tuple(model.resnet) not in TIMM_HYBRIDS:
    raise ValueError(
      f'timm has no hybrid with resnet={tuple(model.resnet)}, only '
      f'{list(TIMM_HYBRIDS)}: export to npz or onnx.'
    )
  return 'timm_hybrid' if model.resnet else 'timm_stem'


def timm_config(
  name: str,
  model: nn.Module,
  *,
  image_shape: Sequence[int],
  class_names: Sequence[str],
  preprocess: Sequence[Mapping[str, Any]],
  normalize: Mapping[str, Any],
) -> dict[str, Any]:
  """The content of timm's `config.json`; `model_args` build the model.

  timm has no entry point for Mixers of any size, nor for their GELU; give the
  arguments to the class MlpMixer, with `act_layer=timm.layers.GELUTanh`.
  """
  height, width, channels = image_shape
  shared = {
    'img_size': [height, width],
    'in_chans': channels,
    'num_classes': len(class_names),
    'patch_size': model.patch_size,
    'embed_dim': model.width,
  }
  if name == 'mlp_mixer':
    architecture, first_conv = name, 'stem.proj'
    args = {
      'num_blocks': model.depth,
      'mlp_ratio': [
        _ratio(model.token_dim, model.width),
        _ratio(model.channel_dim, model.width),
      ],
    }
  else:
    hybrid = model.resnet is not None
    architecture = TIMM_HYBRIDS[tuple(model.resnet)] if hybrid else TIMM_VIT
    first_conv = 'patch_embed.backbone.stem.conv'
    if not model.resnet:
      first_conv = 'patch_embed.backbone.conv' if hybrid else 'patch_embed.proj'
    args = {
      'depth': model.depth,
      'num_heads': model.num_heads,
      'mlp_ratio': _ratio(model.mlp_dim, model.width),
      'class_token': model.pool == 'token',
      'global_pool': POOLS[model.pool],
      'fc_norm': False,
      'init_values': model.layer_scale,
      'act_layer': ACTIVATIONS['timm'][model.gelu],
    }
  method, shorter_side = _resizing(preprocess)
  return {
    'architecture': architecture,
    'num_classes': len(class_names),
    'num_features': model.width,
    'label_names': list(class_names),
    'model_args': {**shared, **args},
    'pretrained_cfg': {
      'num_classes': len(class_names),
      'input_size': [channels, height, width],
      'fixed_input_size': True,
      'interpolation': INTERPOLATIONS[method],
      'crop_pct': min(height, width) / shorter_side if shorter_side else 1.0,
      'crop_mode': 'center' if shorter_side else 'squash',
      'mean': _per_channel(normalize['mean'], channels),
      'std': _per_channel(normalize['std'], channels),
      'first_conv': first_conv,
      'classifier': 'head',
    },
  }


def check_hf(name: str, model: nn.Module) -> None:
  """Raises a ValueError if Hugging Face's ViT cannot be this model."""
  unable = []
  if name != 'vit':
    unable = [f'the architecture {name!r}']
  else:
    if model.pool != 'token':
      unable.append(f'pool={model.pool!r} (only a class token)')
    if model.layer_scale is not None:
      unable.append('layer_scale')
    if model.resnet is not None:
      unable.append('a ResNet before the patches')
    if model.representation_size is not None:
      unable.append('representation_size')
  if unable:
    raise ValueError(
      f"Hugging Face's ViTForImageClassification cannot express "
      f'{", ".join(unable)}: export to timm, npz, onnx or stablehlo.'
    )


def hf_config(
  model: nn.Module,
  *,
  image_shape: Sequence[int],
  class_names: Sequence[str],
) -> dict[str, Any]:
  """The content of `config.json` for ViTForImageClassification."""
  height, width, channels = image_shape
  return {
    'architectures': ['ViTForImageClassification'],
    'model_type': 'vit',
    'image_size': height if height == width else [height, width],
    'patch_size': model.patch_size,
    'num_channels': channels,
    'hidden_size': model.width,
    'num_hidden_layers': model.depth,
    'num_attention_heads': model.num_heads,
    'intermediate_size': model.mlp_dim,
    'hidden_act': ACTIVATIONS['hf'][model.gelu],
    'layer_norm_eps': 1e-6,
    'qkv_bias': True,
    'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0,
    'id2label': {str(i): name for i, name in enumerate(class_names)},
    'label2id': {name: i for i, name in enumerate(class_names)},
  }


def hf_preprocessor(
  *,
  image_shape: Sequence[int],
  preprocess: Sequence[Mapping[str, Any]],
  normalize: Mapping[str, Any],
) -> dict[str, Any]:
  """The content of `preprocessor_config.json`.

  ViT's own processor cannot crop; CLIP's can, and does the same otherwise.
  """
  height, width, channels = image_shape
  method, shorter_side = _resizing(preprocess)
  size = {'height': height, 'width': width}
  crop = {
    'image_processor_type': 'CLIPImageProcessor',
    'size': {'shortest_edge': shorter_side},
    'do_center_crop': True,
    'crop_size': size,
  }
  squash = {'image_processor_type': 'ViTImageProcessor', 'size': size}
  return {
    **(crop if shorter_side else squash),
    'do_resize': True,
    'resample': PIL_NUMBERS[method],
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': True,
    'image_mean': _per_channel(normalize['mean'], channels),
    'image_std': _per_channel(normalize['std'], channels),
  }


def _ratio(hidden: int, width: int) -> float:
  """The ratio hidden / width, such that int(ratio * width) is hidden again."""
  ratio = hidden / width
  return ratio if int(ratio * width) == hidden else (hidden + 0.5) / width


def _resizing(
  preprocess: Sequence[Mapping[str, Any]],
) -> tuple[str, int | None]:
  """The method, and to which shorter side; None to the size of the images."""
  for op in preprocess:
    if op['name'] in ('resize', 'resize_small'):
      method = {'method': 'bilinear', **op}['method']
      return method, op['size'] if op['name'] == 'resize_small' else None
  return 'bilinear', None


def _per_channel(value: float | Sequence[float], channels: int) -> list[float]:
  values = list(value) if isinstance(value, Sequence) else [value]
  return values * channels if len(values) == 1 else values
