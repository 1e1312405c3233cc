"""MobileViT from scratch on ImageNet-1k (arXiv:2110.02178).

  python -m vit_jax.main --config=configs/mobilevit.py:S

Published top-1 at 256 pixels, in per cent, of the average of the parameters:
XXS 69.0, XS 74.8, S 78.4 (the paper); the published checkpoints have 69.0, 74.7
and 78.3 (README-model-zoo.md of apple/ml-cvnets).

300 epochs with the settings of the authors' program
(config/classification/imagenet/mobilevit.yaml): crops and flips alone, images
from 0 to 1, and a weight decay of all parameters.

Different from the program: every batch has images of 256 pixels, not of a side
drawn between 160 and 320, with the batch size that this allows; XXS is trained
with half of the others' dropout, as its checkpoint is set at Hugging Face; the
rate changes with every step and not with every epoch, and the cosine starts
where the warm-up ends.
"""

import ml_collections

from configs import common
from vit_jax.lookup import choose

DROPOUT = {'XXS': 0.05, 'XS': 0.1, 'S': 0.1}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL`."""
  model = common.parse(arg, 'model')['model']
  config = common.get_config()
  config.duration = '300 epochs'
  config.batch_size = 1024
  config.ema = 0.9995
  config.model = {
    'name': 'mobilevit',
    'variant': model,
    'dropout': choose(DROPOUT, word=model, kind='model of MobileViT'),
    'scan': False,
  }
  config.objective.label_smoothing = 0.1
  config.optim = {
    'name': 'adamw',
    'learning_rate': 2e-3,
    'weight_decay': 0.01,
    'weight_decay_mults': (('.*', 1.0),),
    'schedule': {
      'name': 'cosine',
      'warmup': '20_000 steps',
      'start': 2e-4,
      'end': 2e-4,
    },
  }
  resample = {'method': 'bilinear', 'antialias': True}
  config.data.train = 'tfds:imagenet2012:train'
  config.evals.val = common.evaluation('tfds:imagenet2012:validation')
  config.transforms = (common.op('random_resized_crop', size=256, **resample),)
  config.preprocess = (
    common.op('resize_small', size=288, **resample),
    common.op('central_crop', size=256),
  )
  config.normalize = {'mean': (0.0, 0.0, 0.0), 'std': (1.0, 1.0, 1.0)}
  return config
