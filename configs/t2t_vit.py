"""T2T-ViT (arXiv:2101.11986).

  python -m vit_jax.main --config=configs/t2t_vit.py:14
  python -m vit_jax.main --config=configs/t2t_vit.py:14,size=384

310 epochs of ImageNet-1k alone. Published top-1 at 224 pixels, in per cent
(README of yitu-opensource/T2T-ViT): 7 71.7, 10 75.2, 12 76.5; 14 81.5, 19 81.9,
24 82.3; t_14 81.7, t_19 82.4, t_24 82.6; and 14 at 384 pixels 83.3; on 8 GPUs.

The settings are those of the authors' program and commands. As there, what is
judged is the average of the parameters, and RandAugment takes the place of
colour jitter. Different from it: images are always resized bicubically, and not
at random also bilinearly; the rate changes with every step and not with every
epoch, and its cosine goes from the end of the warm-up to the end of the run,
where theirs ends after 300 epochs.
"""

from typing import NamedTuple

import ml_collections

from configs import common
from vit_jax.lookup import choose


class Setting(NamedTuple):
  """The learning rate, for a batch of 512, and the weight decay."""

  learning_rate: float
  weight_decay: float


MODELS = {
  '7': Setting(1e-3, 0.03),
  '10': Setting(1e-3, 0.03),
  '12': Setting(1e-3, 0.03),
  '14': Setting(5e-4, 0.05),
  '19': Setting(5e-4, 0.065),
  '24': Setting(5e-4, 0.065),
  't_14': Setting(5e-4, 0.05),
  't_19': Setting(5e-4, 0.065),
  't_24': Setting(5e-4, 0.065),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,size=224]`."""
  args = common.parse(arg, 'model', size=224)
  setting = choose(MODELS, word=args['model'], kind='model of T2T-ViT')
  config = common.get_config()
  config.duration = '310 epochs'
  config.batch_size = 512
  config.ema = 0.99996
  config.model = {
    'name': 't2t_vit',
    'variant': args['model'],
    'drop_path': 0.1,
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'adamw',
    'learning_rate': setting.learning_rate,
    'weight_decay': setting.weight_decay,
    'schedule': {
      'name': 'cosine',
      'warmup': '10 epochs',
      'start': 1e-6,
      'end': 1e-5,
    },
  }
  common.imagenet_of_timm(config, size=args['size'], crop_ratio=0.9)
  return config
