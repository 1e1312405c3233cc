"""ResNet as it is trained today, on ImageNet-1k (arXiv:2110.00476).

  python -m vit_jax.main --config=configs/resnet.py:50
  python -m vit_jax.main --config=configs/resnet.py:50,A3

The procedures of its table 2: A2, 300 epochs at 224 pixels, and A3, 100 epochs
at 160; both are judged at 224. Top-1, in per cent, of the weights that the
authors published (results/results-imagenet.csv of
huggingface/pytorch-image-models):

          A2     A3
  18    70.6   68.2
  34    75.5   73.0
  50    79.8   78.1
  101   81.3   79.8
  152   81.8   80.5

As in the authors' program, LAMB clips the gradients. Different from it: a class
of a mixed image counts however small its part is, and not from a fifth on; the
rate changes with every step and not with every epoch, and the cosine starts
where the warm-up ends.
"""

import ml_collections

from configs import common
from configs.common import op
from vit_jax.lookup import choose, unknown
from vit_jax.models import resnet

# Epochs, learning rate, side of the image, repetitions, drop path, magnitude of
# RandAugment.
RECIPES = {
  'A2': (300, 5e-3, 224, 3, 0.05, 7),
  'A3': (100, 8e-3, 160, 1, 0.0, 6),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,recipe=A2]`."""
  args = common.parse(arg, 'model', recipe='A2')
  if args['model'] not in resnet.VARIANTS:
    raise unknown(args['model'], known=resnet.VARIANTS, kind='model of ResNet')
  recipe = choose(RECIPES, word=args['recipe'], kind='recipe of ResNet')
  epochs, rate, size, repeats, drop_path, magnitude = recipe
  config = common.get_config()
  config.duration = f'{epochs} epochs'
  config.batch_size = 2048
  config.model = {
    'name': 'resnet',
    'variant': args['model'],
    'drop_path': drop_path,
    'scan': False,
  }
  config.objective.loss = 'binary'
  config.objective.mixup = 0.1
  config.objective.cutmix = 1.0
  config.optim = {
    'name': 'lamb',
    'learning_rate': rate,
    'weight_decay': 0.02,
    'clip_norm': 1.0,
    'schedule': {
      'name': 'cosine',
      'warmup': '5 epochs',
      'start': 1e-4,
      'end': 1e-6,
    },
  }
  common.imagenet_of_timm(config, size=224, crop_ratio=0.95, loss='binary')
  config.transforms = tuple(dict(t, size=size) for t in config.transforms)
  config.augment = (
    op('flip'),
    op(
      'randaugment_timm',
      num_layers=2,
      magnitude=magnitude,
      magnitude_std=0.5,
    ),
  )
  config.data.repeats = repeats
  return config
