r"""The compute frontier of Scaling Vision Transformers (arXiv:2106.04560).

  python -m vit_jax.tools.sweep configs/scaling_laws.py:digits \
      --workdir=runs/digits | sh
  python -m vit_jax.tools.scaling_laws 'runs/digits/*' --output=frontier.png

Models of many sizes are trained on parts of the data for several durations.
Whoever spends a given compute best lies on the frontier, along which the error
falls as a power law that saturates (section 2).

  digits  small models on handwritten digits, with no download: 24 runs of
          seconds to minutes. On the frontier the error falls from 73 % after
          4e9 FLOP to 0.8 % after 7e11.
  paper   the sizes, durations and parts of the paper: 1, 10, 33 and 100 % stand
          for the 30 M, 300 M, 1 B and 3 B images of JFT-3B, which is private.
          ImageNet-1k stands in for it, so that the long runs overfit: put your
          own data into TRAIN and TEST. G_14 takes 2,048 TPU v3 cores.
"""

import itertools

import ml_collections

from configs import common, quickstart, scaling
from vit_jax.lookup import choose, unknown

TRAIN, TEST = 'tfds:imagenet2012:train', 'tfds:imagenet2012:validation'

# Sizes, parts of the data in per cent, and steps. A size of `digits` is width x
# depth; the others are those of table 2.
GRIDS = {
  'digits': (
    ('16x1', '32x2', '64x4'),
    (25, 100),
    (100, 300, 900, 2_700),
  ),
  'paper': (
    (
      *('s_28', 's_16', 'S_32', 'Ti_16', 'B_32', 'S_16', 'B_28', 'B_16'),
      *('L_16', 'g_14', 'G_14'),
    ),
    (1, 10, 33, 100),
    (
      *(20_000, 30_000, 60_000, 120_000, 400_000),
      *(1_200_000, 2_000_000, 4_000_000),
    ),
  ),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `SETTING,MODEL[,part=100][,steps=S]`."""
  args = common.parse(arg, 'setting', 'model', part=100, steps=0)
  models, _, lengths = choose(GRIDS, word=args['setting'], kind='setting')
  if args['model'] not in models:
    raise unknown(args['model'], known=models, kind='size')
  make = _digits if args['setting'] == 'digits' else _paper
  return make(args['model'], args['part'], args['steps'] or lengths[-1])


def sweep(arg: str | None = None) -> list[str]:
  """Arguments of the runs of `SETTING`, the cheap ones first."""
  setting = common.parse(arg, 'setting')['setting']
  models, parts, lengths = choose(GRIDS, word=setting, kind='setting')
  return [
    f'{setting},{model},part={part},steps={steps}'
    for steps, model, part in itertools.product(lengths, models, parts)
  ]


def _digits(model: str, part: int, steps: int) -> ml_collections.ConfigDict:
  config = quickstart.get_config()
  width, depth = map(int, model.split('x'))
  config.model.width = width
  config.model.depth = depth
  config.model.mlp_dim = 4 * width
  config.model.num_heads = width // 16
  config.duration = f'{steps} steps'
  config.data.train = f'digits:train[:{part}%]'
  # An average over more steps than a short run has would lag behind.
  config.ema = 0.0
  config.eval_every = config.checkpoint.every = '100%'
  return config


def _paper(model: str, part: int, steps: int) -> ml_collections.ConfigDict:
  config = scaling.get_config(f'{model},steps={steps}')
  config.data.train = f'{TRAIN}[:{part}%]'
  config.evals = {'test': common.evaluation(TEST, loss='sigmoid')}
  return config
