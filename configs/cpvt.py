"""CPVT from scratch on ImageNet-1k (arXiv:2102.10882).

  python -m vit_jax.main --config=configs/cpvt.py:S_16
  python -m vit_jax.main --config=configs/cpvt.py:S_16,pool=gap

Published top-1 at 224 pixels, in per cent: Ti_16 72.4, S_16 79.9, B_16 81.9.
With positions after each of the first five blocks, `Ti_16,num_pegs=5`: Ti 73.4,
S 80.5. With an average for the class token: Ti 74.9, S 81.5.

The paper takes all settings from DeiT, but for a batch of 2048, except for the
base model (section 4.1). The others are as in `deit.py`, and so is what is
different from DeiT's program.
"""

import ml_collections

from configs import common
from vit_jax.lookup import unknown

# Model -> size of the batch.
MODELS = {'Ti_16': 2048, 'S_16': 2048, 'B_16': 1024}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,pool=token,num_pegs=1]`."""
  args = common.parse(arg, 'model', pool='token', num_pegs=1)
  if args['model'] not in MODELS:
    raise unknown(args['model'], known=MODELS, kind='model of CPVT')
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = MODELS[args['model']]
  config.model = {
    'name': 'cpvt',
    'variant': common.variant(args['model']),
    'pool': args['pool'],
    'num_pegs': args['num_pegs'],
    'drop_path': 0.1,
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'adamw',
    'learning_rate': 5e-4 * config.batch_size / 512,
    'weight_decay': 0.05,
    'schedule': {
      'name': 'cosine',
      'warmup': '5 epochs',
      'start': 1e-6,
      'end': 1e-5,
    },
  }
  common.imagenet_of_timm(config, size=224, crop_ratio=0.875)
  config.data.repeats = 3
  return config
