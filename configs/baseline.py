r"""Better plain ViT baselines for ImageNet-1k (arXiv:2205.01580).

  python -m vit_jax.main --config=configs/baseline.py
  python -m vit_jax.main --config=configs/baseline.py \
      --config.duration='300 epochs'

A ViT-S/16 that differs from AugReg's in what costs nothing: average pooling,
fixed positions, batch 1024, and little RandAugment and mixup. Top-1 on
ImageNet-1k: 76.5 % after 90 epochs, in 6 to 7 hours on TPU v3-8 (big_vision's
vit_s16_i1k.py, which this is), and 80 % after 300 (abstract).
"""

import ml_collections

from configs import common
from vit_jax.models import vit


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `[MODEL=S_16][,size=224]`."""
  args = common.parse(arg, model='S_16', size=224)
  variant = common.variant(args['model'])
  config = common.get_config()
  config.duration = '90 epochs'
  config.batch_size = 1024
  config.model = {
    'name': 'vit',
    'variant': variant,
    'pool': 'gap',
    'pos_embed': 'sincos2d',
    'representation_size': vit.variant(variant)['width'],
    'scan': False,
  }
  config.objective.mixup = 0.2
  config.optim = {
    'name': 'adamw',
    'momentum_dtype': 'bfloat16',
    'learning_rate': 1e-3,
    'weight_decay': 0.1,  # times the rate: 1e-4 in big_vision's terms
    'clip_norm': 1.0,
    'schedule': {'name': 'cosine', 'warmup': '10_000 steps'},
  }
  common.pretrain(config, size=args['size'], randaugment=(2, 10))
  common.use_data_set(config, 'imagenet2012')
  return config
