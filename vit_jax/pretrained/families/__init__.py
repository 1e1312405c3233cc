"""What others call an architecture, and what they publish of it.

A file for each: `NAMES`, tables of names by family of checkpoints; `entries`,
the published ones; `timm` and `hugging_face`, the counterpart of a model, where
there is one. Accuracies are top-1 on the validation set of
ImageNet-1k, in per cent, as `source` states them; None where none was found.
"""

import functools

from vit_jax.pretrained import augreg
from vit_jax.pretrained.entry import Entry
from vit_jax.pretrained.families import (
  coatnet,
  convnext,
  cvt,
  deit,
  dinat,
  efficientnet,
  mlp_mixer,
  mobile_former,
  mobilevit,
  pvt,
  resnet,
  swin,
  t2t_vit,
  tnt,
  vit,
)

# Reading takes the first in which all names of a file have a meaning.
NAMES = {
  **vit.NAMES,
  **deit.NAMES,
  **mlp_mixer.NAMES,
  **coatnet.NAMES,
  **convnext.NAMES,
  **cvt.NAMES,
  **dinat.NAMES,
  **efficientnet.NAMES,
  **mobile_former.NAMES,
  **mobilevit.NAMES,
  **pvt.NAMES,
  **resnet.NAMES,
  **swin.NAMES,
  **t2t_vit.NAMES,
  **tnt.NAMES,
}
_ENTRIES = (
  vit.entries,
  augreg.entries,
  mlp_mixer.entries,
  deit.entries,
  swin.entries,
  convnext.entries,
  cvt.entries,
  dinat.entries,
  efficientnet.entries,
  mobile_former.entries,
  mobilevit.entries,
  pvt.entries,
  resnet.entries,
  t2t_vit.entries,
  tnt.entries,
)


@functools.cache
def entries() -> dict[str, Entry]:
  """All published checkpoints by name."""
  return {entry.name: entry for each in _ENTRIES for entry in each()}


# Architecture -> the counterpart of a model for images of a size.
TIMM = {
  'convnext': convnext.timm,
  'deit': deit.timm,
  'mlp_mixer': mlp_mixer.timm,
  'pvt_v2': pvt.timm_v2,
  'resnet': resnet.timm,
  'swin': swin.timm,
  'swin_v2': swin.timm,
  'tnt': tnt.timm,
  'twins_pcpvt': pvt.timm_twins,
  'vit': vit.timm,
}
HUGGING_FACE = {
  'convnext': convnext.hugging_face,
  'cvt': cvt.hugging_face,
  'deit': deit.hugging_face,
  'resnet': resnet.hugging_face,
  'swin': swin.hugging_face,
  'swin_v2': swin.hugging_face,
  'vit': vit.hugging_face,
}
