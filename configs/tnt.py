"""TNT, Transformer in Transformer (arXiv:2103.00112).

  python -m vit_jax.main --config=configs/tnt.py:S

300 epochs of ImageNet-1k alone, as DeiT (table 3). Published top-1 at 224
pixels, in per cent (table 4): Ti 73.9, S 81.5, B 82.9; the authors' command is
for 8 GPUs (tnt_pytorch/readme.md of huawei-noah/Efficient-AI-Backbones).

As in the authors' program, what is judged is the average of the parameters, and
RandAugment takes the place of colour jitter. Different from it: images are
always resized bicubically, and not at random also bilinearly; the rate changes
with every step and not with every epoch, and the cosine starts where the
warm-up ends.
"""

import ml_collections

from configs import common
from vit_jax.lookup import unknown

MODELS = ('Ti', 'S', 'B')


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  args = common.parse(arg, 'model')
  if args['model'] not in MODELS:
    raise unknown(args['model'], known=MODELS, kind='model of TNT')
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 1024
  config.ema = 0.99996
  config.model = {
    'name': 'tnt',
    'variant': args['model'],
    'drop_path': 0.1,
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'adamw',
    'learning_rate': 1e-3,
    'weight_decay': 0.05,
    'schedule': {
      'name': 'cosine',
      'warmup': '5 epochs',
      'start': 1e-6,
      'end': 1e-5,
    },
  }
  common.imagenet_of_timm(config, size=224, crop_ratio=0.9)
  config.normalize = {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}
  config.data.repeats = 3
  return config
