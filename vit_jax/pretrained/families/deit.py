"""DeiT and DeiT III: names at timm and Hugging Face; checkpoints.

Without a distillation token they are ViTs by their names, too.
"""

from collections.abc import Iterator

import flax.linen as nn

from vit_jax.pretrained.counterpart import HuggingFace, Size, Timm
from vit_jax.pretrained.entry import (
  IMAGENET,
  Entry,
  Preprocessing,
  google_entry,
)
from vit_jax.pretrained.families import vit
from vit_jax.pretrained.torch_rows import ARRAY, DENSE, Row, respell

NAMES = {
  'timm_deit': (
    *vit.TIMM_VIT,
    Row('dist', 'dist_token', ARRAY),
    Row('head_dist', 'head_dist', DENSE),
  ),
  'hf_deit': (
    *respell(vit.HF_VIT, {'vit.': 'deit.', 'classifier': 'cls_classifier'}),
    Row('dist', 'deit.embeddings.distillation_token', ARRAY),
    Row('head_dist', 'distillation_classifier', DENSE),
  ),
}

_DEIT3 = 'DeiT III, arXiv:2204.07118'
# Name at huggingface.co/timm -> variant, accuracy.
_DEITS = {
  'deit_tiny_patch16_224.fb_in1k': ('Ti/16', 72.2),
  'deit_small_patch16_224.fb_in1k': ('S/16', 79.9),
  'deit_base_patch16_224.fb_in1k': ('B/16', 81.8),
  'deit_base_patch16_384.fb_in1k': ('B/16', 82.9),
  'deit_tiny_distilled_patch16_224.fb_in1k': ('Ti/16', 74.5),
  'deit_small_distilled_patch16_224.fb_in1k': ('S/16', 81.2),
  'deit_base_distilled_patch16_224.fb_in1k': ('B/16', 83.4),
  'deit_base_distilled_patch16_384.fb_in1k': ('B/16', 85.2),
  'deit3_small_patch16_224.fb_in1k': ('S/16', 81.4),
  'deit3_small_patch16_384.fb_in1k': ('S/16', 83.4),
  'deit3_medium_patch16_224.fb_in1k': ('M/16', 83.0),
  'deit3_base_patch16_224.fb_in1k': ('B/16', 83.8),
  'deit3_base_patch16_384.fb_in1k': ('B/16', 85.0),
  'deit3_large_patch16_224.fb_in1k': ('L/16', 84.9),
  'deit3_large_patch16_384.fb_in1k': ('L/16', 85.8),
  'deit3_huge_patch14_224.fb_in1k': ('H/14', 85.2),
  'deit3_small_patch16_224.fb_in22k_ft_in1k': ('S/16', 83.1),
  'deit3_small_patch16_384.fb_in22k_ft_in1k': ('S/16', 84.8),
  'deit3_medium_patch16_224.fb_in22k_ft_in1k': ('M/16', 84.5),
  'deit3_base_patch16_224.fb_in22k_ft_in1k': ('B/16', 85.7),
  'deit3_base_patch16_384.fb_in22k_ft_in1k': ('B/16', 86.7),
  'deit3_large_patch16_224.fb_in22k_ft_in1k': ('L/16', 87.0),
  'deit3_large_patch16_384.fb_in22k_ft_in1k': ('L/16', 87.7),
  'deit3_huge_patch14_224.fb_in22k_ft_in1k': ('H/14', 87.2),
}
# Size, side in pixels, data -> accuracy. Layer scale is part of the kernels.
_DEIT3_CONVERTED = {
  ('small', 224, '1k'): 81.4,
  ('small', 384, '1k'): 83.4,
  ('small', 224, '21k'): 83.1,
  ('small', 384, '21k'): 84.8,
  ('base', 224, '1k'): 83.8,
  ('base', 384, '1k'): 85.0,
  ('base', 224, '21k'): 85.7,
  ('base', 384, '21k'): 86.7,
  ('large', 224, '1k'): 84.9,
  ('large', 384, '1k'): 85.8,
  ('large', 224, '21k'): 87.0,
  ('large', 384, '21k'): 87.7,
}


def entries() -> Iterator[Entry]:
  """All of them; those at big_vision were converted."""
  for name, (variant, accuracy) in _DEITS.items():
    size = 384 if '_384.' in name else 224
    third = name.startswith('deit3')
    mean, std = IMAGENET
    yield Entry(
      name=f'deit/{name}',
      location=f'hf://timm/{name}',
      model='deit' if 'distilled' in name else 'vit',
      variant=variant,
      overrides={'gelu': 'erf'} | ({'layer_scale': 1e-6} if third else {}),
      # DeiT cuts 224 of 256 pixels out; DeiT III takes the whole shorter side.
      preprocessing=Preprocessing(
        size,
        resize_small=size if third else size * 256 // 224,
        interpolation='bicubic',
        mean=mean,
        std=std,
      ),
      labels='imagenet1k',
      accuracy=accuracy,
      source=_DEIT3 if third else 'DeiT, arXiv:2012.12877',
      # DeiT III has a binary loss for each class, unless it comes from 22k.
      loss='sigmoid' if third and '22k' not in name else 'softmax',
    )
  for (size, side, data), accuracy in _DEIT3_CONVERTED.items():
    file = f'bv_deit_3_{size}_{side}_{data}'
    yield google_entry(
      f'big_vision/{file}',
      file=f'zoo/deit3/{file}',
      bucket='big_vision',
      variant=f'{size[0].upper()}/16',
      overrides={},
      # The first layer was converted, to take images in [-1, 1].
      preprocessing=Preprocessing(
        side, resize_small=side, interpolation='bicubic'
      ),
      labels='imagenet1k',
      accuracy=accuracy,
      source=f'{_DEIT3}, before the conversion',
      loss='softmax' if data == '21k' else 'sigmoid',
    )


def timm(model: nn.Module, *, size: Size) -> Timm:
  """The same model of timm."""
  return vit.timm(model, size=size)._replace(
    family='timm_deit',
    architecture='deit_base_distilled_patch16_224',
    classifier=['head', 'head_dist'],
  )


def hugging_face(model: nn.Module, *, size: Size) -> HuggingFace:
  """The same model of transformers.

  Raises:
    ValueError: if transformers has none.
  """
  config = {
    **vit.hugging_face(model, size=size).config,
    'architectures': ['DeiTForImageClassificationWithTeacher'],
    'model_type': 'deit',
  }
  return HuggingFace('hf_deit', config)
