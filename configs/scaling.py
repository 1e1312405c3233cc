r"""Scaling Vision Transformers (arXiv:2106.04560), appendices B to D.

  python -m vit_jax.main --config=configs/scaling.py:G_14
  python -m vit_jax.main --config=configs/scaling.py:B_16,steps=120000

Sizes of table 2: s_28 s_16 S_32 Ti_16 B_32 S_16 B_28 B_16 L_16 g_14 G_14;
`python -m vit_jax.tools.zoo --table=scaling` prints the table.

The paper trains on JFT-3B, which is private: give your own data by
`config.data.train`; ImageNet-1k stands in. On JFT-3B, G_14 reaches 90.45 % on
ImageNet after fine-tuning (abstract), on 2,048 TPU v3 cores.

Whether a slice of a TPU pod holds g_14 and G_14, and with which mesh, is told
by vit_jax/tools/plan.py, see docs/plan.md: on 512 chips of v4, for instance,
`--config.batch_size=4096 --config.mesh.data=8 --config.mesh.fsdp=64`.

The rate falls with the root of time, so that one run serves for all durations:
each of them needs its own cooldown only, from a checkpoint of the long run
(section 3.5). Run it with `--config.checkpoint.keep=100`, then, in a workdir of
its own, for instance

  python -m vit_jax.main --config=configs/scaling.py:B_16,steps=60000 \
      --config.init.run=runs/scaling_B_16@50000 --workdir=runs/scaling_60k
"""

import ml_collections

from configs import common

GIANTS = ('g_14', 'G_14')


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,steps=1000000][,size=224]`."""
  args = common.parse(arg, 'model', steps=1_000_000, size=224)
  giant = args['model'] in GIANTS
  cooldown = '10_000 steps' if args['steps'] <= 60_000 else '50_000 steps'
  config = common.get_config()
  config.duration = f'{args["steps"]} steps'
  config.batch_size = 16_384 if giant else 4096
  config.model = {
    'name': 'vit',
    'variant': common.variant(args['model']),
    'pool': 'map',
    'head_bias': -10.0,
    'scan': giant,
  }
  config.objective.loss = 'sigmoid'
  config.optim = {
    'name': 'adafactor',
    'learning_rate': 8e-4,
    'clip_norm': 1.0,
    # Relative to the rate; 3.0 for the head (section 3.1 and figure 3).
    'weight_decay': 0.03,
    'weight_decay_mults': (
      ('head/kernel', 100.0),
      ('.*/kernel', 1.0),
      ('.*', 0.0),
    ),
    'schedule': {
      'name': 'rsqrt',
      'warmup': '10_000 steps',
      'timescale': '10_000 steps',
      'cooldown': cooldown,
    },
  }
  if giant:
    config.mesh.data, config.mesh.fsdp = 1, -1
  common.pretrain(config, size=args['size'])
  common.use_data_set(config, 'imagenet2012', loss='sigmoid')
  config.eval_every = '10_000 steps'
  config.checkpoint.every = '10_000 steps'
  return config
