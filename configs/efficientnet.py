"""EfficientNet from scratch on ImageNet-1k (arXiv:1905.11946).

  python -m vit_jax.main --config=configs/efficientnet.py:B0

Published top-1, in per cent (table 2), and side of the image in pixels:

  B0  77.1  224      B4  82.9  380
  B1  79.1  240      B5  83.6  456
  B2  80.1  260      B6  84.0  528
  B3  81.6  300      B7  84.3  600

RMSProp, a rate that falls by 3 % every 2.4 epochs, AutoAugment, and dropout
that grows with the model (section 5.2). Duration, label smoothing and average
are those of tensorflow/tpu, and the size of the batch follows from the rate,
0.016 for each 256 there. Different from the authors' program: the rate falls
from the end of the warm-up on, and not during it; it multiplies the momentum,
and not what that adds up; biases do not decay; AutoAugment is torchvision's; no
part of the training images is held out to choose a checkpoint by.
"""

import ml_collections

from configs import common
from configs.common import op
from vit_jax.lookup import choose

# Side of the image, and dropout.
SIZES = {
  'B0': (224, 0.2),
  'B1': (240, 0.2),
  'B2': (260, 0.3),
  'B3': (300, 0.3),
  'B4': (380, 0.4),
  'B5': (456, 0.4),
  'B6': (528, 0.5),
  'B7': (600, 0.5),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  args = common.parse(arg, 'model')
  size, dropout = choose(
    SIZES, word=args['model'], kind='model of EfficientNet'
  )
  config = common.get_config()
  config.duration = '350 epochs'
  config.batch_size = 4096
  config.ema = 0.9999
  config.model = {
    'name': 'efficientnet',
    'variant': args['model'],
    'dropout': dropout,
    'drop_path': 0.2,
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.optim = {
    'name': 'rmsprop',
    'decay': 0.9,
    'momentum': 0.9,
    'eps': 1e-3,
    'learning_rate': 0.256,  # 0.016 for each 256 of the batch
    'weight_decay': 1e-5,
    'schedule': {
      'name': 'exponential',
      'factor': 0.97,
      'every': '2.4 epochs',
      'warmup': '5 epochs',
    },
  }
  # 32 pixels are cut off at evaluation, whatever the size.
  common.imagenet_of_timm(config, size=size, crop_ratio=size / (size + 32))
  config.augment = (op('flip'), op('autoaugment'))
  return config
