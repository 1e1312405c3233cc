r"""ConvNeXt (A ConvNet for the 2020s, arXiv:2201.03545).

  python -m vit_jax.main --config=configs/convnext.py:T
  python -m vit_jax.main --config=configs/convnext.py:B,22k_finetune
  python -m vit_jax.main \
      --config=configs/convnext.py:B,22k_finetune,init=runs/b_22k/model.npz

The stages (tables 5 and 6):

  train             ImageNet-1k, 300 epochs (T, S, B, L; iso_S, iso_B, iso_L)
  finetune_384      then 30 epochs at 384 pixels (B, L)
  22k               ImageNet-22k, 90 epochs: give your folder by
                    `config.data.train` (T, S, B, L, XL)
  22k_finetune      then 30 epochs of ImageNet-1k
  22k_finetune_384  or the same at 384 pixels

A fine-tuning starts from `init`, by default the published model of the stage
before.

Published top-1 on ImageNet-1k, in per cent (tables 1 and 2), on 32 GPUs (T, S,
B; 64 for L):

          1k @224   1k @384   22k @224   22k @384
  T          82.1                 82.9       84.1
  S          83.1                 84.6       85.8
  B          83.8      85.1       85.8       86.8
  L          84.3      85.5       86.6       87.5
  XL                              87.0       87.8
  iso_S      79.7
  iso_B      82.0
  iso_L      82.6

As in the authors' program, RandAugment takes the place of colour jitter.
Different from the paper: a fine-tuning of B from ImageNet-1k, too, starts from
the average of the parameters, which is what is published.
"""

import ml_collections

from configs import common
from configs.common import op
from vit_jax.lookup import choose
from vit_jax.models import convnext

# Drop path.
STAGES = {
  'train': {
    **{'T': 0.1, 'S': 0.4, 'B': 0.5, 'L': 0.5},
    **{'iso_S': 0.1, 'iso_B': 0.2, 'iso_L': 0.5},
  },
  'finetune_384': {'B': 0.8, 'L': 0.95},
  '22k': {'T': 0.0, 'S': 0.0, 'B': 0.1, 'L': 0.1, 'XL': 0.2},
  '22k_finetune': {'T': 0.0, 'S': 0.1, 'B': 0.2, 'L': 0.3, 'XL': 0.4},
  '22k_finetune_384': {'T': 0.0, 'S': 0.1, 'B': 0.2, 'L': 0.3, 'XL': 0.4},
}
WORDS = {'T': 'tiny', 'S': 'small', 'B': 'base', 'L': 'large', 'XL': 'xlarge'}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,stage=train][,init=CHECKPOINT]`."""
  args = common.parse(arg, 'model', stage='train', init='')
  stage, model = args['stage'], args['model']
  rates = choose(STAGES, word=stage, kind='stage of ConvNeXt')
  kind = f'model of ConvNeXt in the stage {stage!r}'
  drop_path = choose(rates, word=model, kind=kind)
  config = common.get_config()
  config.model = {
    'name': 'convnext',
    'variant': model,
    'drop_path': drop_path,
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.optim = {
    'name': 'adamw',
    'schedule': {'name': 'cosine', 'end': 1e-6},
  }
  size = 384 if stage.endswith('384') else 224
  common.imagenet_of_timm(config, size=size, crop_ratio=0.875)
  if 'finetune' in stage:
    _finetune(config, stage=stage, model=model)
    config.init.params = args['init'] or config.init.params
  else:
    _train(config, stage=stage, model=model)
    config.init.params = args['init']
  return config


def _train(config, *, stage: str, model: str):
  config.batch_size = 4096
  config.optim.learning_rate = 4e-3
  config.optim.weight_decay = 0.05
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  if stage == '22k':
    config.duration = '90 epochs'
    config.optim.schedule.warmup = '5 epochs'
    common.use_imagenet21k(config)
  else:
    config.duration = '300 epochs'
    isotropic = model.startswith('iso_')
    config.optim.schedule.warmup = '50 epochs' if isotropic else '20 epochs'
    config.ema = 0.9999


def _finetune(config, *, stage: str, model: str):
  config.duration = '30 epochs'
  config.batch_size = 512
  config.optim.learning_rate = 5e-5
  config.optim.weight_decay = 1e-8
  config.optim.schedule.warmup = '0 steps'
  from_22k = stage.startswith('22k')
  config.optim.learning_rate_mults = layer_decay(
    convnext.variant(model)['depths'], decay=0.8 if from_22k else 0.7
  )
  if from_22k:
    config.model.head_std = 0.02 * 0.001
  if model == 'XL':
    config.ema = 0.9999
  upstream = 'fb_in22k' if from_22k else 'fb_in1k'
  config.init.params = f'convnext/convnext_{WORDS[model]}.{upstream}'
  if stage.endswith('384'):
    # Squashed, not cropped.
    config.preprocess = (
      op('resize', size=384, method='bicubic', antialias=True),
    )


def layer_decay(depths: tuple[int, ...], *, decay: float) -> tuple:
  """Multipliers of the rate, a layer being three blocks (appendix A.2).

  What halves the map belongs to the blocks after it.
  """
  layers = ['patch_(embed|norm)']
  for stage, depth in enumerate(depths):
    for first in range(0, depth, 3):
      parts = [f'block_{i}' for i in range(first, first + 3)]
      if stage > 0 and first == 0:
        parts += ['norm', 'downsample']
      layers.append(f'stage_{stage}/({"|".join(parts)})')
  return (
    *((f'{x}/.*', decay ** (len(layers) - i)) for i, x in enumerate(layers)),
    ('.*', 1.0),
  )
