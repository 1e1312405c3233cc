r"""Fine-tunes an AugReg checkpoint (How to train your ViT?, arXiv:2106.10270).

The checkpoint is the one that the paper recommends for the model, pre-trained
on ImageNet-21k; a full file name without .npz takes any of the 50,000 others.

  python -m vit_jax.main --config=configs/augreg.py:B_16,imagenet2012
  python -m vit_jax.main --config=configs/augreg.py:R_Ti_16 \
      --config.data.train=/my/images

Without a data set it fine-tunes on the folder that `config.data.train` names,
for 500 steps, and judges by its validation split or by a tenth held out.

  python -m vit_jax.tools.sweep configs/augreg.py:B_16,cifar100
  python -m vit_jax.tools.sweep configs/augreg.py:B_16 \
      --config.data.train=/my/images

These print the commands of the paper's grid of learning rates and durations, at
224 and 384 pixels (section 3); it takes the best on validation data. KITTI,
its fifth data set, is not here: TFDS has its boxes, not the task of VTAB.

Published top-1 on ImageNet at 384 pixels (table 3): Ti_16 78.22, S_32 79.58,
S_16 83.73, B_32 83.59, B_16 85.49, L_16 85.59, R_Ti_16 75.40, R26_S_32 83.85,
R50_L_32 85.99.
"""

import itertools

import ml_collections

from configs import common
from vit_jax.lookup import unknown

# Learning rate of the best fine-tuning on ImageNet (README of
# google-research/vision_transformer).
LEARNING_RATES = {
  'Ti_16': 0.03,
  'S_32': 0.01,
  'S_16': 0.03,
  'B_32': 0.01,
  'B_16': 0.03,
  'B_8': 0.03,
  'L_16': 0.01,
  'R_Ti_16': 0.03,
  'R26_S_32': 0.01,
  'R50_L_32': 0.01,
}

# Learning rates and steps that section 3 tries, and steps of warm-up. The
# published fine-tuned files were made with 0.001 to 0.03 for all data sets.
RATES = (0.001, 0.003, 0.01)
GRID = {
  '': (RATES, (500, 2_500)),
  'cifar100': (RATES, (2_500, 10_000)),
  'imagenet2012': ((0.01, 0.03), (20_000,)),
  'oxford_iiit_pet': (RATES, (500, 2_500)),
  'resisc45': (RATES, (2_500, 10_000)),
}
WARMUPS = {500: 100, 2_500: 200, 10_000: 500, 20_000: 500}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,DATA_SET][,size=384][,lr=0.03][,steps=500]`."""
  args = common.parse(arg, 'model', data='', size=384, lr=0.0, steps=0)
  config = common.get_config()
  # A full name goes on after the model: B_16-i21k-300ep-lr_0.001-...
  model = args['model'].partition('-')[0]
  if model not in LEARNING_RATES:
    raise ValueError(
      f'AugReg has no model {model!r}; there are {sorted(LEARNING_RATES)}.'
    )
  config.model = {'name': 'vit', 'variant': common.variant(model)}
  config.model.scan = False
  config.init.params = f'augreg/{args["model"]}'
  common.finetune(config, size=args['size'], data=args['data'])
  config.optim.learning_rate = args['lr'] or LEARNING_RATES[model]
  if steps := args['steps']:
    if steps not in WARMUPS:
      raise unknown(steps, known=map(str, WARMUPS), kind='duration of AugReg')
    config.duration = f'{steps} steps'
    config.optim.schedule.warmup = f'{WARMUPS[steps]} steps'
  return config


def sweep(arg: str | None = None) -> list[str]:
  """Arguments of the runs that the paper compares for `MODEL[,DATA_SET]`."""
  args = common.parse(arg, 'model', data='')
  model, data = args['model'], args['data']
  if data not in GRID:
    known = filter(None, GRID)
    raise unknown(data, known=known, kind='data set with a grid in AugReg')
  rates, steps = GRID[data]
  start = f'{model},{data}' if data else model
  return [
    f'{start},size={size},lr={rate},steps={length}'
    for size, rate, length in itertools.product((224, 384), rates, steps)
  ]
