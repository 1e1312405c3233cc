"""How an image becomes features: one file for each architecture."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from vit_jax.lookup import choose, unknown
from vit_jax.models import (
  coatnet,
  convnext,
  cpvt,
  cvt,
  deit,
  dinat,
  efficientnet,
  mlp_mixer,
  mobile_former,
  mobilevit,
  mobilevit_v2,
  pvt,
  pvt_v2,
  resnet,
  swin,
  swin_v2,
  t2t_vit,
  tnt,
  twins_pcpvt,
  vit,
)


class Architecture(NamedTuple):
  """What `build` has to know about a model file.

  Attributes:
    module: the class; image (b, h, w, c) -> Output.
    variant: name of a published size -> fields of the class.
    variants: the names of the published sizes.
  """

  module: type[nn.Module]
  variant: Callable[[str], dict[str, Any]]
  variants: tuple[str, ...]


MODELS = {
  'coatnet': Architecture(coatnet.CoAtNet, coatnet.variant, coatnet.VARIANTS),
  'convnext': Architecture(
    convnext.ConvNeXt, convnext.variant, convnext.VARIANTS
  ),
  'cpvt': Architecture(cpvt.CPVT, cpvt.variant, cpvt.VARIANTS),
  'cvt': Architecture(cvt.CvT, cvt.variant, cvt.VARIANTS),
  'deit': Architecture(deit.DeiT, deit.variant, deit.VARIANTS),
  'dinat': Architecture(dinat.DiNAT, dinat.variant, dinat.VARIANTS),
  'efficientnet': Architecture(
    efficientnet.EfficientNet, efficientnet.variant, efficientnet.VARIANTS
  ),
  'mlp_mixer': Architecture(
    mlp_mixer.MlpMixer, mlp_mixer.variant, mlp_mixer.VARIANTS
  ),
  'mobile_former': Architecture(
    mobile_former.MobileFormer, mobile_former.variant, mobile_former.VARIANTS
  ),
  'mobilevit': Architecture(
    mobilevit.MobileViT, mobilevit.variant, mobilevit.VARIANTS
  ),
  'mobilevit_v2': Architecture(
    mobilevit_v2.MobileViTV2, mobilevit_v2.variant, mobilevit_v2.VARIANTS
  ),
  'pvt': Architecture(pvt.PVT, pvt.variant, pvt.VARIANTS),
  'pvt_v2': Architecture(pvt_v2.PVTv2, pvt_v2.variant, pvt_v2.VARIANTS),
  'resnet': Architecture(resnet.ResNet, resnet.variant, resnet.VARIANTS),
  'swin': Architecture(swin.Swin, swin.variant, swin.VARIANTS),
  'swin_v2': Architecture(swin_v2.SwinV2, swin_v2.variant, swin_v2.VARIANTS),
  't2t_vit': Architecture(t2t_vit.T2TViT, t2t_vit.variant, t2t_vit.VARIANTS),
  'tnt': Architecture(tnt.TNT, tnt.variant, tnt.VARIANTS),
  'twins_pcpvt': Architecture(
    twins_pcpvt.TwinsPCPVT, twins_pcpvt.variant, twins_pcpvt.VARIANTS
  ),
  'vit': Architecture(vit.ViT, vit.variant, vit.VARIANTS),
}


def build(name: str, variant: str | None = None, **overrides: Any) -> nn.Module:
  """The model `name`, with the fields of `variant` and then of `overrides`.

  `build('vit', 'S/16', num_classes=1000, drop_path=0.1)`

  Raises:
    ValueError: if the model, the variant or a field is unknown, or a field
      without a default is missing.
  """
  module, decode, variants = choose(MODELS, word=name, kind='model')
  values = {**(decode(variant) if variant is not None else {}), **overrides}
  fields = {
    field.name: field
    for field in dataclasses.fields(module)
    if field.name not in ('parent', 'name')
  }
  for word in values:
    if word not in fields:
      raise unknown(word, known=fields, kind=f'field of {name!r}')
  missing = [
    field.name
    for field in fields.values()
    if field.default is dataclasses.MISSING and field.name not in values
  ]
  if missing:
    raise ValueError(
      f'{name!r} needs {", ".join(missing)}: give them, or a variant, one of '
      f'{", ".join(variants)}.'
    )
  return module(**values)
