"""NAT and DiNAT from scratch on ImageNet-1k (arXiv:2204.07143, 2209.15001).

  python -m vit_jax.main --config=configs/dinat.py:T
  python -m vit_jax.main --config=configs/dinat.py:nat_T

Published top-1 at 224 pixels, in per cent, on 8 A100 (NAT.md and DiNAT.md of
SHI-Labs/Neighborhood-Attention-Transformer, and its issue 91):

              M     T     S     B
  NAT      81.8  83.2  83.7  84.3    nat_M ...
  DiNAT    81.8  82.7  83.8  84.4    M ...
  DiNAT_s        81.8  83.5  83.8    s_T ...

The settings of the authors' program; in it, too, RandAugment takes the place of
colour jitter, and the tables of biases decay: what exempts them there, nothing
reads. Different from it: images are always resized bicubically, and not at
random also bilinearly, and the 10 epochs at the lowest rate that follow the
cosine are left out.
"""

import ml_collections

from configs import common
from vit_jax.lookup import choose

# Drop path.
MODELS = {
  **{'nat_M': 0.2, 'nat_T': 0.2, 'nat_S': 0.3, 'nat_B': 0.5},
  **{'M': 0.2, 'T': 0.2, 'S': 0.3, 'B': 0.5},
  **{'s_T': 0.2, 's_S': 0.3, 's_B': 0.5},
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  args = common.parse(arg, 'model')
  drop_path = choose(MODELS, word=args['model'], kind='model of DiNAT')
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 1024
  config.model = {
    'name': 'dinat',
    'variant': args['model'],
    'drop_path': drop_path,
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'adamw',
    'learning_rate': 1e-3,
    'weight_decay': 0.05,
    'weight_decay_mults': (('.*/(kernel|table)', 1.0), ('.*', 0.0)),
    'clip_norm': 5.0,
    'schedule': {
      'name': 'cosine',
      'warmup': '20 epochs',
      'start': 1e-6,
      'end': 5e-6,
    },
  }
  common.imagenet_of_timm(config, size=224, crop_ratio=0.875)
  return config
