"""Twins-PCPVT from scratch on ImageNet-1k (arXiv:2104.13840).

  python -m vit_jax.main --config=configs/twins.py:S,drop_path=0.2

Published top-1 at 224 pixels, in per cent: S 81.2, B 82.7, L 83.1 (README.md of
Meituan-AutoML/Twins).

300 epochs with the settings of the authors' program, those of DeiT without
repeated augmentation and with clipped gradients. Their command, for a base
model on 8 GPUs, has a drop path of 0.3; the other sizes want less or more.
RandAugment takes the place of colour jitter, and the convolutions of the
positions are not decayed.

Different from the program: the rate changes with every step and not with every
epoch, and the cosine starts where the warm-up ends.
"""

import ml_collections

from configs import common
from vit_jax.lookup import unknown

MODELS = ('S', 'B', 'L')


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,drop_path=0.3]`."""
  args = common.parse(arg, 'model', drop_path=0.3)
  if args['model'] not in MODELS:
    raise unknown(args['model'], known=MODELS, kind='model of Twins-PCPVT')
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 1024
  config.model = {
    'name': 'twins_pcpvt',
    'variant': args['model'],
    'drop_path': args['drop_path'],
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'adamw',
    'learning_rate': 1e-3,  # 5e-4 for each 512 of the batch
    'weight_decay': 0.05,
    'weight_decay_mults': (
      ('.*/peg/.*', 0.0),
      ('.*/kernel', 1.0),
      ('.*', 0.0),
    ),
    'clip_norm': 5.0,
    'schedule': {
      'name': 'cosine',
      'warmup': '5 epochs',
      'start': 1e-6,
      'end': 1e-5,
    },
  }
  common.imagenet_of_timm(config, size=224, crop_ratio=0.875)
  return config
