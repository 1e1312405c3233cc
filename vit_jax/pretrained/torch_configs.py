"""What timm and Hugging Face must know to build a model for our parameters.

Names and values of their `config.json`, as timm 1.0 and transformers 4 and 5
read them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.pretrained.counterpart import HuggingFace, Timm

# timm's names of methods, and PIL's numbers, which Hugging Face writes.
INTERPOLATIONS = {'bilinear': 'bilinear', 'bicubic': 'bicubic', 'area': 'box'}
PIL_NUMBERS = {'bilinear': 2, 'bicubic': 3, 'area': 4}


def timm_config(
  timm: Timm,
  *,
  image_shape: Sequence[int],
  class_names: Sequence[str],
  preprocess: Sequence[Mapping[str, Any]],
  normalize: Mapping[str, Any],
) -> dict[str, Any]:
  """The content of timm's `config.json`; `model_args` build the model."""
  height, width, channels = image_shape
  method, shorter_side = _resizing(preprocess)
  return {
    'architecture': timm.architecture,
    'num_classes': len(class_names),
    'num_features': timm.num_features,
    'label_names': list(class_names),
    'model_args': {
      'in_chans': channels,
      'num_classes': len(class_names),
      **timm.args,
    },
    'pretrained_cfg': {
      'num_classes': len(class_names),
      'input_size': [channels, height, width],
      'fixed_input_size': 'img_size' in timm.args,
      'interpolation': INTERPOLATIONS[method],
      'crop_pct': min(height, width) / shorter_side if shorter_side else 1.0,
      'crop_mode': 'center' if shorter_side else 'squash',
      'mean': _per_channel(normalize['mean'], channels),
      'std': _per_channel(normalize['std'], channels),
      'first_conv': timm.first_conv,
      'classifier': timm.classifier,
    },
  }


def hf_config(
  counterpart: HuggingFace,
  *,
  image_shape: Sequence[int],
  class_names: Sequence[str],
) -> dict[str, Any]:
  """The content of `config.json` for AutoModelForImageClassification."""
  height, width, channels = image_shape
  return {
    'image_size': height if height == width else [height, width],
    'num_channels': channels,
    'layer_norm_eps': 1e-6,
    'id2label': {str(i): name for i, name in enumerate(class_names)},
    'label2id': {name: i for i, name in enumerate(class_names)},
    **counterpart.config,
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
