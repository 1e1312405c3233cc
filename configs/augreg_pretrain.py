r"""Pre-trains the models of AugReg (How to train your ViT?, arXiv:2106.10270).

  python -m vit_jax.main --config=configs/augreg_pretrain.py:B_16
  python -m vit_jax.main \
      --config=configs/augreg_pretrain.py:B_16,aug=medium1,wd=0.1,reg=off
  python -m vit_jax.main --config=configs/augreg_pretrain.py:L_16,data=i21k \
      --config.data.train=/my/imagenet21k
  python -m vit_jax.tools.sweep configs/augreg_pretrain.py:B_16

The last prints the commands of the 28 settings that the paper tries for each
model: 7 levels of augmentation, 2 of weight decay, regularisation on or off.

  data    i1k, ImageNet-1k; or i21k, ImageNet-21k, which TFDS does not have:
          give your folder, with its 21,843 classes. 51,200 images are held out.
  aug     none, light1, light2, medium1, medium2, strong1, strong2: see `AUGS`.
          Beware: in the names of the published files, light0 and light1 are
          what the paper, and this file, call light1 and light2.
  wd      0.1 or 0.03, relative to the learning rate as in the paper: at 1e-3,
          what big_vision calls 1e-4 and 3e-5.
  reg     on: dropout 0.1, and stochastic depth that rises to 0.1; or off.
  epochs  300, the default; also 30 for i21k.

Without aug, wd and reg, i21k takes those of the published model that the
authors recommend, and i1k the augmentation of big_vision's vit_i1k.py. That
file also has a hidden layer before the head for i1k, and so has this one; the
paper tries both. 300 epochs of i1k are 92,897 steps, of i21k about 1.04 M.

Top-1 on ImageNet-1k of the best settings, in per cent (table 3): trained on it
at 224 pixels, and fine-tuned at 384 after 300 epochs on i1k, 30 and 300 on
i21k. A B_16 as big_vision trains it is reported at about 79.

            i1k @224   i1k @384   i21k, 30   i21k, 300
  Ti_16        72.59      74.64      74.20       78.22
  S_32         72.07      75.65      75.74       79.58
  S_16         79.00      80.70      80.22       83.73
  B_32         74.42      76.60      78.65       83.59
  B_16         79.84      81.63      83.46       85.49
  L_16         75.72      77.21      84.48       85.59
  R_Ti_16      70.13      73.48      71.97       75.40
  R26_S_32     79.61      81.55      81.11       83.85
  R50_L_32     76.84      76.71      83.19       85.99
"""

import itertools

import ml_collections

from configs import common
from vit_jax.lookup import choose, unknown
from vit_jax.models import vit

# Layers and magnitude of RandAugment (None for none at all), alpha of mixup
# (section 3). Magnitude 0 is not the identity: see ops/randaugment.py.
AUGS = {
  'none': (None, 0.0),
  'light1': ((2, 0), 0.0),
  'light2': ((2, 10), 0.2),
  'medium1': ((2, 15), 0.2),
  'medium2': ((2, 15), 0.5),
  'strong1': ((2, 20), 0.5),
  'strong2': ((2, 20), 0.8),
}
DECAYS = (0.1, 0.03)
REGULARISATION = ('off', 'on')

# aug, wd and reg. For i1k from big_vision; for i21k from the README of
# google-research/vision_transformer, and for B_8 from its index of files.
RECOMMENDED = {
  'i1k': {
    'Ti_16': ('light1', 0.1, 'off'),
    'S_32': ('medium1', 0.1, 'off'),
    'S_16': ('medium2', 0.1, 'off'),
    'B_32': ('medium2', 0.1, 'off'),
    'B_16': ('medium2', 0.1, 'off'),
    'L_16': ('medium2', 0.1, 'off'),
  },
  'i21k': {
    'Ti_16': ('none', 0.03, 'off'),
    'S_32': ('none', 0.1, 'off'),
    'S_16': ('light2', 0.03, 'off'),
    'B_32': ('light2', 0.1, 'off'),
    'B_16': ('medium1', 0.1, 'off'),
    'B_8': ('medium2', 0.1, 'off'),
    'L_16': ('strong1', 0.1, 'off'),
    'R_Ti_16': ('none', 0.03, 'off'),
    'R26_S_32': ('light2', 0.1, 'off'),
    'R50_L_32': ('medium1', 0.1, 'on'),
  },
}
MODELS = tuple(RECOMMENDED['i21k'])


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """`MODEL[,data=i1k][,aug=A][,wd=0.1][,reg=off][,epochs=300][,size=224]`."""
  args = common.parse(
    arg, 'model', data='i1k', aug='', wd=0.0, reg='', epochs=300, size=224
  )
  model, data = args['model'], args['data']
  _check(args)
  aug, decay, reg = _settings(args)
  config = common.get_config()
  config.duration = f'{args["epochs"]} epochs'
  config.batch_size = 4096
  config.model = {'name': 'vit', 'variant': common.variant(model)}
  config.model.scan = False
  if reg == 'on':
    config.model.dropout = 0.1
    config.model.drop_path = 0.1
  config.optim = {
    'name': 'adam',
    'b1': 0.9,
    'b2': 0.999,
    'momentum_dtype': 'bfloat16',
    'learning_rate': 1e-3,
    'weight_decay': decay,
    'clip_norm': 1.0,
    'schedule': {'name': 'cosine', 'warmup': '10_000 steps'},
  }
  config.objective.loss = 'sigmoid'
  randaugment, config.objective.mixup = AUGS[aug]
  common.pretrain(config, size=args['size'], randaugment=randaugment)
  if data == 'i1k':
    width = vit.variant(config.model.variant)['width']
    config.model.representation_size = width
    config.model.head_bias = -6.9
    common.use_data_set(config, 'imagenet2012', loss='sigmoid')
  else:
    config.model.head_bias = -10.0
    common.use_imagenet21k(config, loss='sigmoid')
  return config


def sweep(arg: str | None = None) -> list[str]:
  """Arguments of the 28 runs of `MODEL[,data=i1k]` (section 3)."""
  args = common.parse(arg, 'model', data='i1k')
  return [
    f'{args["model"]},data={args["data"]},aug={aug},wd={decay},reg={reg}'
    for reg, aug, decay in itertools.product(REGULARISATION, AUGS, DECAYS)
  ]


def _check(args: dict) -> None:
  choose(RECOMMENDED, word=args['data'], kind='data of AugReg')
  if args['model'] not in MODELS:
    raise unknown(args['model'], known=MODELS, kind='model of AugReg')
  if args['aug']:
    choose(AUGS, word=args['aug'], kind='aug')
  if args['reg'] not in ('', *REGULARISATION):
    raise unknown(args['reg'], known=REGULARISATION, kind='reg')


def _settings(args: dict) -> tuple[str, float, str]:
  """aug, wd and reg, where they are not given those that are recommended."""
  recommended = RECOMMENDED[args['data']]
  if args['model'] in recommended:
    aug, decay, reg = recommended[args['model']]
  elif args['aug']:
    aug, decay, reg = '', 0.1, 'off'
  else:
    raise ValueError(
      f'Nobody recommends an augmentation of {args["model"]} on '
      f'{args["data"]}: give aug={"|".join(AUGS)}.'
    )
  return args['aug'] or aug, args['wd'] or decay, args['reg'] or reg
