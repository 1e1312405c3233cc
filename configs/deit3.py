r"""DeiT III: Revenge of the ViT (arXiv:2204.07118).

  python -m vit_jax.main --config=configs/deit3.py:S_16
  python -m vit_jax.main --config=configs/deit3.py:B_16
  python -m vit_jax.main \
      --config=configs/deit3.py:B_16,finetune,init=b_192.npz

The stages, all of README_revenge.md of facebookresearch/deit:

  train         ImageNet-1k, 800 epochs at 224 (S), 192 (B, L), 160 pixels (H)
  finetune      then 20 epochs at 224 pixels (B, L, H)
  finetune_384  then 20 epochs at 384 pixels (S, B, L)
  21k           ImageNet-21k, 240 epochs at 224 pixels; H 90 epochs at 126: give
                your folder by `config.data.train`
  21k_finetune  then 50 epochs of ImageNet-1k at 224 pixels

A fine-tuning starts from `init`: a published checkpoint, or a run of yours that
`python -m vit_jax.tools.export --workdir=... --to=npz` has written.

Published top-1 on ImageNet-1k, in per cent, on 8 (S, B) or 32 GPUs:

         1k @224   1k @384   21k @224
  S_16      81.4      83.4       83.1
  B_16      83.8      85.0       85.7
  L_16      84.9      85.8       87.0
  H_14      85.2                 87.2

Different from the authors' program: the rate changes with every step and not
with every epoch, the cosine starts where the warm-up ends, and the initial
parameters are those of ViT, but for the head's. The class token has a position,
which adds to it: another way to write the same function.
"""

import ml_collections

from configs import common
from configs.common import op
from vit_jax.lookup import choose

# Epochs, learning rate, side of the image, and drop path, which is the same for
# all blocks.
STAGES = {
  'train': {
    'S_16': (800, 4e-3, 224, 0.05),
    'B_16': (800, 3e-3, 192, 0.2),
    'L_16': (800, 3e-3, 192, 0.45),
    'H_14': (800, 3e-3, 160, 0.6),
  },
  'finetune': {
    'B_16': (20, 1e-5, 224, 0.2),
    'L_16': (20, 1e-5, 224, 0.45),
    'H_14': (20, 1e-5, 224, 0.55),
  },
  'finetune_384': {
    'S_16': (20, 1e-5, 384, 0.0),
    'B_16': (20, 1e-5, 384, 0.15),
    'L_16': (20, 1e-5, 384, 0.4),
  },
  '21k': {
    'S_16': (240, 1e-3, 224, 0.05),
    'B_16': (240, 1e-3, 224, 0.1),
    'L_16': (240, 1e-3, 224, 0.3),
    'H_14': (90, 1e-3, 128, 0.5),
  },
  '21k_finetune': {
    'S_16': (50, 3e-4, 224, 0.05),
    'B_16': (50, 3e-4, 224, 0.15),
    'L_16': (50, 3e-4, 224, 0.4),
    'H_14': (50, 3e-4, 224, 0.45),
  },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,stage=train][,init=CHECKPOINT]`."""
  args = common.parse(arg, 'model', stage='train', init='')
  stage, model = args['stage'], args['model']
  models = choose(STAGES, word=stage, kind='stage of DeiT III')
  kind = f'model of DeiT III in the stage {stage!r}'
  epochs, rate, size, drop_path = choose(models, word=model, kind=kind)
  if 'finetune' in stage and not args['init']:
    raise ValueError(
      f'The stage {stage!r} starts from a checkpoint: add init=CHECKPOINT.'
    )
  config = common.get_config()
  config.duration = f'{epochs} epochs'
  config.model = {
    'name': 'vit',
    'variant': common.variant(model),
    'gelu': 'erf',
    'layer_scale': 1e-4,
    'drop_path': (drop_path, drop_path),
    'head_std': 0.02,  # LAMB can hardly leave zeros
    'scan': False,
  }
  config.optim.learning_rate = rate
  config.optim.schedule = {
    'name': 'cosine',
    'warmup': '5 epochs',
    'start': 1e-6,
    'end': 1e-5,
  }
  config.init.params = args['init']
  config.init.resample = 'bicubic'
  RECIPES[stage](config, size=size)
  return config


def _train(config, *, size: int):
  config.optim.weight_decay = 0.05
  config.objective.loss = 'binary'
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  common.imagenet_of_timm(config, size=size, crop_ratio=1.0, loss='binary')
  config.data.repeats = 3
  _lamb_and_three_augment(config)


def _finetune(config, *, size: int):
  config.optim.weight_decay = 0.1
  config.batch_size = 512
  config.objective.label_smoothing = 0.1
  config.objective.mixup = 0.8
  config.objective.cutmix = 1.0
  config.optim.clip_norm = None
  common.imagenet_of_timm(config, size=size, crop_ratio=1.0)
  config.augment = (
    op('flip'),
    op('randaugment_timm', num_layers=2, magnitude=9, magnitude_std=0.5),
  )


def _finetune_from_21k(config, *, size: int):
  config.optim.weight_decay = 0.02
  config.objective.label_smoothing = 0.1
  config.objective.cutmix = 1.0
  common.imagenet_of_timm(config, size=size, crop_ratio=1.0)
  # The simple random crop: the image is not cut down to a part of it.
  config.transforms = (
    op('resize_small', size=size, method='bicubic', antialias=True),
    op('random_crop', size=size, pad=4, pad_mode='reflect'),
  )
  _lamb_and_three_augment(config)


def _train_21k(config, *, size: int):
  _finetune_from_21k(config, size=size)
  common.use_imagenet21k(config)


def _lamb_and_three_augment(config):
  config.batch_size = 2048
  config.optim.name = 'lamb'
  config.optim.eps = 1e-8  # given by the authors' program to any optimiser
  config.augment = (
    op('flip'),
    op('three_augment'),
    op('color_jitter', brightness=0.3, contrast=0.3, saturation=0.3),
  )


RECIPES = {
  'train': _train,
  'finetune': _finetune,
  'finetune_384': _finetune,
  '21k': _train_21k,
  '21k_finetune': _finetune_from_21k,
}
