"""A ViT from scratch on your own images, with no line of code.

  python -m vit_jax.main --config=configs/from_scratch.py:S_16 \
      --config.data.train=/my/images
  python -m vit_jax.main --config=configs/from_scratch.py:Ti_4,size=32 \
      --config.data.train=/my/small_images --config.data.held_out=0.02

/my/images holds a folder for each class; or train/ and val/ (or test/) with a
folder for each class; or it is a CSV file with the columns path,label. Without
a val or test split a tenth is held out.

The recipe is the plain ViT baseline of arXiv:2205.01580 (average pooling, fixed
2D sine-cosine positions, AdamW at 1e-3 and decay 0.1, mixup 0.2, batch 1024)
without its RandAugment. There, S_16 reaches 76.5 % on ImageNet-1k in 90 epochs.
"""

import ml_collections

from configs import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,size=224]`."""
  args = common.parse(arg, 'model', size=224)
  config = common.get_config()
  config.duration = '90 epochs'
  config.batch_size = 1024
  config.model = {
    'name': 'vit',
    'variant': common.variant(args['model']),
    'pool': 'gap',
    'pos_embed': 'sincos2d',
    'scan': False,
  }
  config.objective.mixup = 0.2
  config.optim.learning_rate = 1e-3
  config.optim.weight_decay = 0.1
  config.optim.schedule = {'name': 'cosine', 'warmup': '10%'}
  common.pretrain(config, size=args['size'])
  config.evals.val = common.evaluation('')
  config.checkpoint.best = 'val/accuracy'
  return config
