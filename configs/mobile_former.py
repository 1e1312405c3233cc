"""Mobile-Former from scratch on ImageNet-1k (arXiv:2108.05895).

  python -m vit_jax.main --config=configs/mobile_former.py:294M

Published top-1 at 224 pixels, in per cent (README of AAboys/MobileFormer): 508M
79.3, 294M 77.9, 214M 76.7, 151M 75.2, 96M 72.8, 52M 68.7, 26M 64.0; 450 epochs
on 8 GPUs.

The settings are those of the authors' commands, and where these are silent, the
defaults of timm 0.3.4, whose program they name: the warm-up, the last rate and
the label smoothing. Tokens decay as kernels do.

Different from the program: the statistics of a batch are those of all its 1024
images, not of the 128 on a GPU; images are always resized bicubically, and not
at random also bilinearly; the rate changes with every step and not with every
epoch, its cosine starts where the warm-up ends, and there are no ten more
epochs at the last rate.
"""

from typing import NamedTuple

import ml_collections

from configs import common
from vit_jax.lookup import choose


class Setting(NamedTuple):
  """What depends on the model."""

  learning_rate: float
  weight_decay: float
  dropout: float
  mixup: float = 0.2
  randaugment: bool = True
  erasing: float = 0.0


MODELS = {
  '508M': Setting(1e-3, 0.2, 0.3, erasing=0.2),
  '294M': Setting(1e-3, 0.2, 0.3, erasing=0.2),
  '214M': Setting(9e-4, 0.15, 0.2, erasing=0.2),
  '151M': Setting(9e-4, 0.1, 0.2, erasing=0.2),
  '96M': Setting(8e-4, 0.1, 0.2, mixup=0.0),
  '52M': Setting(8e-4, 0.1, 0.2, randaugment=False),
  '26M': Setting(8e-4, 0.08, 0.1),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  model = common.parse(arg, 'model')['model']
  setting = choose(MODELS, word=model, kind='model of Mobile-Former')
  config = common.get_config()
  config.duration = '450 epochs'
  config.batch_size = 1024
  config.model = {
    'name': 'mobile_former',
    'variant': model,
    'dropout': setting.dropout,
  }
  config.objective.label_smoothing = 0.1
  config.objective.mixup = setting.mixup
  config.optim = {
    'name': 'adamw',
    'learning_rate': setting.learning_rate,
    'weight_decay': setting.weight_decay,
    'weight_decay_mults': (('.*/kernel|tokens', 1.0), ('.*', 0.0)),
    'schedule': {
      'name': 'cosine',
      'warmup': '3 epochs',
      'start': 1e-4,
      'end': 1e-5,
    },
  }
  common.imagenet_of_timm(config, size=224, crop_ratio=0.875)
  config.preprocess = (
    common.op('resize_small', size=256, method='bilinear', antialias=True),
    common.op('central_crop', size=224),
  )
  config.augment = (common.op('flip'),)
  if setting.randaugment:
    config.augment += (
      common.op('randaugment_timm', magnitude=9, increasing=False),
    )
  if setting.erasing:
    config.augment += (
      common.op('random_erasing', probability=setting.erasing),
    )
  return config
