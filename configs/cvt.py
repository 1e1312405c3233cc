"""CvT from scratch on ImageNet-1k (arXiv:2103.15808).

  python -m vit_jax.main --config=configs/cvt.py:13

Published top-1 at 224 pixels, in per cent: 13 81.6, 21 82.5 (README of
microsoft/CvT).

300 epochs with the settings of the authors' program (experiments/imagenet/cvt),
whose rate of 2.5e-4 is for each of 8 GPUs with 256 images, and half of it for
each of 16 with 128. As there, RandAugment takes the place of colour jitter.

Different from the program: the rate changes with every step and not with every
epoch, and the cosine starts where the warm-up ends; the file of CvT-21 at 224
pixels trades RandAugment and erasing for repeated images, here it is trained as
CvT-13, and as that of 384 pixels says.
"""

import ml_collections

from configs import common
from vit_jax.lookup import choose

WEIGHT_DECAY = {'13': 0.05, '21': 0.1}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  model = common.parse(arg, 'model')['model']
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 2048
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'adamw',
    'learning_rate': 2e-3,
    'weight_decay': choose(WEIGHT_DECAY, word=model, kind='model of CvT'),
    'schedule': {
      'name': 'cosine',
      'warmup': '5 epochs',
      'start': 1e-6,
      'end': 1e-5,
    },
  }
  config.model = {
    'name': 'cvt',
    'variant': model,
    'drop_path': 0.1,
    'scan': False,
  }
  common.imagenet_of_timm(config, size=224, crop_ratio=0.875)
  return config
