r"""A ViT from scratch on your own images, with no line of code.

  python -m vit_jax.main --config=configs/from_scratch.py:S_16 \
      --config.data.train=/my/images
  python -m vit_jax.main --config=configs/from_scratch.py:Ti_4,size=32 \
      --config.data.train=/my/small_images --config.data.held_out=0.02

/my/images holds a folder for each class; or train/ and val/ (or test/) with a
folder for each class; or it is a CSV file with the columns path,label. Without
a val or test split a tenth is held out.

The recipe is that of configs/baseline.py, with a warm-up in proportion to the
run; there, S_16 reaches 76.5 % on ImageNet-1k in 90 epochs.
"""

import ml_collections

from configs import baseline, common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,size=224]`."""
  common.parse(arg, 'model', size=224)
  config = baseline.get_config(arg)
  config.data.train = ''
  config.evals = {'val': common.evaluation('')}
  config.optim.schedule.warmup = '10%'
  config.checkpoint.best = 'val/accuracy'
  return config
