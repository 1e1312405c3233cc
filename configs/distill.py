"""A good teacher is patient and consistent (arXiv:2106.05237).

  python -m vit_jax.main --config=configs/distill.py:50
  python -m vit_jax.main --config=configs/distill.py:50,epochs=9600
  python -m vit_jax.main --config=configs/distill.py:18,teacher=runs/resnet_50

A ResNet learns on ImageNet-1k what another says of each image, and no labels:
both see the same crop, mirrored or not, averaged with another image by any
weight. What counts is patience. Published top-1 of a BiT-R50 at 224 pixels that
learns from a BiT-R152x2 of 83.0 %: 82.8 % after 9,600 epochs.

The recipe is that of the authors (configs/proj/distill/bit_i1k.py of
google-research/big_vision). Different from them: teacher and student are those
ResNets that are here, of batch norm and not of group norm and standardised
weights, for which the learning rate was chosen; and the teacher, of 82.3 %, was
trained on ImageNet-1k alone. What a student gets out of it is not known.
"""

import ml_collections

from configs import common
from vit_jax.lookup import unknown
from vit_jax.models import resnet

TEACHER = 'resnet/resnet152.tv2_in1k'


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,teacher=TEACHER][,epochs=1200][,size=224]`."""
  args = common.parse(arg, 'model', teacher=TEACHER, epochs=1200, size=224)
  if args['model'] not in resnet.VARIANTS:
    raise unknown(args['model'], known=resnet.VARIANTS, kind='model of ResNet')
  config = common.get_config()
  config.duration = f'{args["epochs"]} epochs'
  config.batch_size = 4096
  config.model = {'name': 'resnet', 'variant': args['model'], 'scan': False}
  config.objective.mixup = 1.0
  config.optim = {
    'name': 'adam',
    'momentum_dtype': 'bfloat16',
    'learning_rate': 0.03,
    'weight_decay': 0.01,  # 3e-4 where it does not multiply the rate
    'clip_norm': 1.0,
    'schedule': {'name': 'cosine', 'warmup': '5_000 steps'},
  }
  common.pretrain(config, size=args['size'])
  common.use_data_set(config, 'imagenet2012')
  common.use_teacher(config, args['teacher'], kind='soft', alpha=1.0)
  return config
