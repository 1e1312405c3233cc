r"""Fine-tunes any published checkpoint of the catalogue, on your images.

  python -m vit_jax.tools.zoo --pretrained '*'
  python -m vit_jax.main \
      --config=configs/finetune.py:deit/deit3_small_patch16_224.fb_in1k \
      --config.data.train=/my/images

The architecture, the normalisation and the resizing are the checkpoint's; the
rest is the fine-tuning of ViT and AugReg (arXiv:2106.10270, section 3.4) for
500 steps. What differs most from one set of images to the next is the learning
rate: there, 0.001, 0.003 and 0.01 were tried. A tenth of the images is held
out, unless they have a validation or test split.
"""

import ml_collections

from configs import common
from vit_jax.pretrained import catalogue


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `NAME[,size=S]`; without S, the size of the checkpoint."""
  args = common.parse(arg, 'name', size=0)
  entry = catalogue.find(args['name'])
  recipe = entry.preprocessing
  size = args['size'] or recipe.size
  config = common.get_config()
  overrides = dict(entry.overrides)
  # The layer before the old head goes with that.
  overrides.pop('representation_size', None)
  config.model = {'name': entry.model, 'variant': entry.variant, **overrides}
  config.model.scan = False
  config.init.params = args['name']
  common.finetune(config, size=size)
  config.optim.learning_rate = 0.01
  method = recipe.interpolation
  config.transforms = (common.op('inception_crop', size=size, method=method),)
  config.preprocess = tuple(recipe.at(size).ops())
  config.normalize = {'mean': recipe.mean, 'std': recipe.std}
  return config
