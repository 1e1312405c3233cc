"""PVT and PVT v2 from scratch on ImageNet-1k (arXiv:2102.12122, 2106.13797).

  python -m vit_jax.main --config=configs/pvt.py:S
  python -m vit_jax.main --config=configs/pvt.py:B2

T, S, M and L are PVT, the others PVT v2. Published top-1 at 224 pixels, in per
cent, from 8 GPUs: T 75.1, S 79.8, M 81.2, L 81.7; B0 70.5, B1 78.7, B2 82.0,
B2_Li 82.1, B3 83.1, B4 83.6, B5 83.8 (README.md of whai362/PVT, classification;
B3 83.2 in table 2 of the paper).

300 epochs with the settings of the authors' program, which are those of DeiT;
the large models have more drop path, and their gradients are clipped. As there,
RandAugment takes the place of colour jitter, and the positions of PVT are
decayed; its class token is not.

Different from the program: the rate changes with every step and not with every
epoch, and the cosine starts where the warm-up ends.
"""

import ml_collections

from configs import common
from vit_jax.lookup import unknown

FIRST = ('T', 'S', 'M', 'L')
SECOND = ('B0', 'B1', 'B2', 'B2_Li', 'B3', 'B4', 'B5')
# Of either: a drop path of 0.3 and gradients of norm 1, else 0.1 and any.
LARGE = ('M', 'L', 'B3', 'B4', 'B5')


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  model = common.parse(arg, 'model')['model']
  if model not in (*FIRST, *SECOND):
    raise unknown(model, known=(*FIRST, *SECOND), kind='model of PVT')
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 1024
  config.model = {
    'name': 'pvt' if model in FIRST else 'pvt_v2',
    'variant': model.replace('_', '-'),
    'drop_path': 0.3 if model in LARGE else 0.1,
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'adamw',
    'learning_rate': 1e-3,  # 5e-4 for each 512 of the batch
    'weight_decay': 0.05,
    'schedule': {
      'name': 'cosine',
      'warmup': '5 epochs',
      'start': 1e-6,
      'end': 1e-5,
    },
  }
  if model in LARGE:
    config.optim.clip_norm = 1.0
  if model in FIRST:
    config.optim.weight_decay_mults = (
      ('.*/(kernel|pos_embed)', 1.0),
      ('.*', 0.0),
    )
  common.imagenet_of_timm(config, size=224, crop_ratio=0.875)
  config.data.repeats = 3
  return config
