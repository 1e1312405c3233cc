r"""CIFAR-10 from scratch: what augmentation and mixup are worth to a small ViT.

  python -m vit_jax.main --config=configs/cifar10.py:mixup
  python -m vit_jax.main --config=configs/cifar10.py:strong,scale=full,seed=1
  python -m vit_jax.tools.sweep configs/cifar10.py:small \
      --config.data.train='/my/cifar10-train.npz[:10%]' \
      --config.evals.test.data=/my/cifar10-test.npz | sh

The recipes, each with all that comes before it:

  plain    the images as they are
  augment  shifted by up to four pixels, and mirrored
  mixup    mixup with an alpha of 0.2
  strong   one operation of TrivialAugment (arXiv:2103.10158); mixup with an
           alpha of 0.8, or CutMix with 1.0 (arXiv:2012.12877); for long runs

The scales:

  small    a tenth of the images, 120 epochs, 0.2 M parameters and patches of 8
           pixels: ten minutes on two CPU cores
  full     all images, 300 epochs, 7.1 M parameters and patches of 4 pixels: for
           a GPU. A plain ViT of 6.3 M parameters is reported at 91.0 % after
           200 epochs with AutoAugment (github.com/omihub777/ViT-CIFAR), a
           compact one of 3.8 M at 96.5 % after 300 (arXiv:2104.05704).

The optimisers, `optimizer=`: adamw, lamb, lion, muon, or schedule_free, which
is AdamW with an average in place of a schedule. Their rates and decays are
those that their papers advise beside AdamW's, see `OPTIMIZERS`.

The sweep runs each recipe with three seeds. Measured at the small scale, top-1
in per cent: plain 36.0, augment 48.6, mixup 49.8 (docs/notebook.md).
"""

import ml_collections

from configs import common
from configs.common import op
from vit_jax.lookup import choose

RECIPES = ('plain', 'augment', 'mixup', 'strong')
SCALES = {
  'small': {
    'part': 10,
    'duration': '120 epochs',
    'model': {'patch_size': 8, 'width': 64, 'depth': 4, 'num_heads': 4},
    'dtype': 'float32',  # bfloat16 is slow on a CPU
  },
  'full': {
    'part': 100,
    'duration': '300 epochs',
    'model': {'patch_size': 4, 'width': 256, 'depth': 9, 'num_heads': 4},
    'dtype': 'bfloat16',
  },
}
COSINE = {'name': 'cosine', 'warmup': '10%'}
OPTIMIZERS = {
  'adamw': {
    'name': 'adamw',
    'learning_rate': 1e-3,
    'weight_decay': 0.05,
    'schedule': COSINE,
  },
  # The square root of the batch size times 4e-3 at 2,048, as in DeiT III.
  'lamb': {
    'name': 'lamb',
    'learning_rate': 1e-3,
    'weight_decay': 0.05,
    'schedule': COSINE,
  },
  # A tenth of the rate and ten times the decay (arXiv:2302.06675, section 5).
  'lion': {
    'name': 'lion',
    'learning_rate': 1e-4,
    'weight_decay': 0.5,
    'schedule': COSINE,
  },
  # AdamW's, to whose size its updates are scaled (optim/muon.py).
  'muon': {
    'name': 'muon',
    'learning_rate': 1e-3,
    'weight_decay': 0.05,
    'schedule': COSINE,
  },
  # A constant rate, higher than with a schedule (arXiv:2405.15682).
  'schedule_free': {
    'name': 'adamw',
    'learning_rate': 2.5e-3,
    'weight_decay': 0.05,
    'schedule_free': 0.9,
    'schedule': {'name': 'constant', 'warmup': '5%'},
  },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `RECIPE[,scale=small][,optimizer=adamw][,seed=0]`."""
  args = common.parse(arg, 'recipe', scale='small', optimizer='adamw', seed=0)
  stage = {name: index for index, name in enumerate(RECIPES)}
  stage = choose(stage, word=args['recipe'], kind='recipe')
  scale = choose(SCALES, word=args['scale'], kind='scale')
  config = common.get_config()
  config.seed = args['seed']
  config.duration = scale['duration']
  config.dtype = scale['dtype']
  config.batch_size = 128
  config.model = {
    'name': 'vit',
    **scale['model'],
    'mlp_dim': 4 * scale['model']['width'],
    'pool': 'gap',
    'scan': False,
  }
  if args['optimizer'] == 'lamb':
    config.model.head_std = 0.02  # it can hardly leave zeros
  config.optim = {
    'clip_norm': 1.0,
    **choose(OPTIMIZERS, word=args['optimizer'], kind='optimizer'),
  }
  config.transforms = config.preprocess = (op('resize', size=32),)
  config.augment = ()
  if stage >= 1:
    config.transforms = (
      op('resize', size=32),
      op('random_crop', size=32, pad=4),
    )
    config.augment = (op('flip'),)
  if stage >= 2:
    config.objective.mixup = 0.2
  if stage >= 3:
    config.augment = (op('flip'), op('trivial_augment'))
    config.objective.mixup = 0.8
    config.objective.cutmix = 1.0
  config.data.train = f'tfds:cifar10:train[:{scale["part"]}%]'
  config.evals.test = common.evaluation('tfds:cifar10:test')
  return config


def sweep(arg: str | None = None) -> list[str]:
  """Each recipe with three seeds, at the scale that is given."""
  scale = common.parse(arg, scale='small')['scale']
  return [
    f'{recipe},scale={scale},seed={seed}'
    for recipe in RECIPES
    for seed in range(3)
  ]
