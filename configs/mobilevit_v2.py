"""MobileViTv2 from scratch on ImageNet-1k (arXiv:2206.02680).

  python -m vit_jax.main --config=configs/mobilevit_v2.py:1.0

The number multiplies the widths. Published top-1 at 256 pixels, in per cent, of
the average of the parameters: 0.5 70.18, 0.75 75.56, 1.0 78.09, 1.25 79.65,
1.5 80.38, 1.75 80.84, 2.0 81.17 (README-model-zoo.md of apple/ml-cvnets).

300 epochs with the settings of the authors' program
(config/classification/imagenet/mobilevit_v2.yaml and README-mobilevit-v2.md):
the narrower the model, the larger its rate, and the less its weights decay.

Different from the program: RandAugment is timm's at the same magnitude, which
has one operation more, the inversion; what is erased becomes noise, not black;
the rate changes with every step and not with every epoch, and the cosine starts
where the warm-up ends.
"""

from typing import NamedTuple

import ml_collections

from configs import common
from vit_jax.lookup import choose


class Setting(NamedTuple):
  """The largest learning rate, and the weight decay."""

  learning_rate: float
  weight_decay: float


MODELS = {
  '0.5': Setting(9e-3, 0.004),
  '0.75': Setting(9e-3, 0.008),
  '1.0': Setting(7.5e-3, 0.013),
  '1.25': Setting(4.9e-3, 0.020),
  '1.5': Setting(3.5e-3, 0.029),
  '1.75': Setting(2.6e-3, 0.039),
  '2.0': Setting(2e-3, 0.05),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  model = common.parse(arg, 'model')['model']
  setting = choose(MODELS, word=model, kind='model of MobileViTv2')
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 1024
  config.ema = 0.9995
  config.model = {'name': 'mobilevit_v2', 'variant': model, 'scan': False}
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.2
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'adamw',
    'learning_rate': setting.learning_rate,
    'weight_decay': setting.weight_decay,
    'clip_norm': 10.0,
    'schedule': {
      'name': 'cosine',
      'warmup': '20_000 steps',
      'start': 1e-6,
      'end': setting.learning_rate / 10,
    },
  }
  common.imagenet_of_timm(config, size=256, crop_ratio=256 / 288)
  config.augment = (
    common.op('flip'),
    common.op(
      'randaugment_timm',
      num_layers=2,
      magnitude=3,  # 9 of 30 there
      magnitude_std=0.0,
      probability=1.0,
      fill=0,
    ),
    common.op('random_erasing', probability=0.25),
  )
  config.normalize = {'mean': (0.0, 0.0, 0.0), 'std': (1.0, 1.0, 1.0)}
  return config
