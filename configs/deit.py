r"""DeiT, with or without a teacher (arXiv:2012.12877).

  python -m vit_jax.main --config=configs/deit.py:S_16
  python -m vit_jax.main --config=configs/deit.py:S_16,distill
  python -m vit_jax.main --config=configs/deit.py:S_16,distill,teacher=runs/mine

300 epochs of ImageNet-1k alone. Published top-1 at 224 pixels, in per cent:
Ti_16 72.2, S_16 79.9, B_16 81.8; Ti and S were trained on 4 GPUs, B on 16
(README_deit.md of facebookresearch/deit).

With `distill`, a second token learns what a teacher takes for the class of each
image (section 3, hard distillation): Ti_16 74.5, S_16 81.2, B_16 83.4. That
teacher is a RegNetY-16GF of 82.9 %, which is not here. By default it is a
ResNet-152 of 82.3 %, in its place a convolutional network, too, since these
teach a transformer better than another one (table 2); what a student gets out
of it is not known. `teacher` takes a run directory or any name of the
catalogue (`python -m vit_jax.tools.zoo --pretrained '*'`).

As in the authors' program, RandAugment takes the place of colour jitter,
gradients are not clipped, and what is judged are the parameters, not their
average: `--config.ema=0.99996` keeps that too, and judges it. Different from
it: the rate changes with every step and not with every epoch, the cosine starts
where the warm-up ends, and the initial parameters are those of ViT, but for the
head's.
"""

import ml_collections

from configs import common
from vit_jax.lookup import unknown

MODELS = ('Ti_16', 'S_16', 'B_16')
KINDS = ('plain', 'distill')
TEACHER = 'resnet/resnet152.tv2_in1k'


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,distill][,teacher=TEACHER][,size=224]`."""
  args = common.parse(arg, 'model', kind='plain', teacher=TEACHER, size=224)
  if args['model'] not in MODELS:
    raise unknown(args['model'], known=MODELS, kind='model of DeiT')
  if args['kind'] not in KINDS:
    raise unknown(args['kind'], known=KINDS, kind='kind of DeiT')
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 1024
  config.model = {
    'name': 'vit',
    'variant': common.variant(args['model']),
    'gelu': 'erf',
    'drop_path': 0.1,
    'head_std': 0.02,
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
  common.imagenet_of_timm(config, size=args['size'], crop_ratio=0.875)
  config.data.repeats = 3
  if args['kind'] == 'distill':
    config.model.name = 'deit'
    common.use_teacher(config, args['teacher'], kind='hard', alpha=0.5)
  return config
