"""CoAtNet from scratch on ImageNet-1k (arXiv:2106.04803).

  python -m vit_jax.main --config=configs/coatnet.py:0

300 epochs at 224 pixels with the hyper-parameters of table 10. Published top-1,
in per cent (table 13): 0 81.6, 1 83.3, 2 84.1, 3 84.5.

What the paper leaves open is as in Google's other recipes: Inception crops, a
flip, the RandAugment of AugReg, values from -1 to 1.
"""

import ml_collections

from configs import common
from vit_jax.lookup import choose

# Drop path.
MODELS = {'0': 0.2, '1': 0.3, '2': 0.5, '3': 0.7}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  args = common.parse(arg, 'model')
  model = args['model']
  drop_path = choose(MODELS, word=model, kind='model of CoAtNet')
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 4096
  config.model = {
    'name': 'coatnet',
    'variant': model,
    'drop_path': drop_path,
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.optim = {
    'name': 'adamw',
    'learning_rate': 1e-3,
    'weight_decay': 0.05,
    'clip_norm': 1.0,
    'schedule': {'name': 'cosine', 'warmup': '10_000 steps', 'end': 1e-5},
  }
  common.pretrain(config, size=224, randaugment=(2, 15))
  config.data.train = 'tfds:imagenet2012:train'
  config.evals.val = common.evaluation('tfds:imagenet2012:validation')
  return config
