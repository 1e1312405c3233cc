r"""Fine-tunes the ImageNet-21k checkpoints of the ViT paper (arXiv:2010.11929).

  python -m vit_jax.main --config=configs/vit.py:b16,cifar10
  python -m vit_jax.main --config=configs/vit.py:r50_b16,imagenet2012
  python -m vit_jax.main --config=configs/vit.py:b32 \
      --config.data.train=/my/images

Without a data set it fine-tunes on the folder that `config.data.train` names,
for 500 steps, and judges by its validation split or by a tenth held out.

Published accuracy, replicated by google-research/vision_transformer on eight
V100 with dropout 0.1 (its README):

            CIFAR-10  CIFAR-100  ImageNet
  r50_b16   98.94     92.30      85.08
  b16       98.76     91.92      84.12
  b32       98.75     92.31      81.31
  l16       99.14     93.22      85.05
  l32       99.09     93.34      81.13
"""

import ml_collections

from configs import common

# The variant, the published file, and the dropout of its configuration in
# google-research/vision_transformer.
MODELS = {
  'b8': ('B/8', 'ViT-B_8', 0.0),
  'b16': ('B/16', 'ViT-B_16', 0.0),
  'b32': ('B/32', 'ViT-B_32', 0.0),
  'l16': ('L/16', 'ViT-L_16', 0.1),
  'l32': ('L/32', 'ViT-L_32', 0.0),
  'h14': ('H/14', 'ViT-H_14', 0.1),
  'r50_b16': ('R50+B/16', 'R50+ViT-B_16', 0.1),
  'r26_b32': ('R26+B/32', 'R26+ViT-B_32', 0.0),
  'r50_l32': ('R50+L/32', 'R50+ViT-L_32', 0.1),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The experiment `MODEL[,DATA_SET][,size=384]`."""
  args = common.parse(arg, 'model', data='', size=384)
  if args['model'] not in MODELS:
    raise ValueError(
      f'Unknown model {args["model"]!r}; there are {sorted(MODELS)}.'
    )
  variant, file, dropout = MODELS[args['model']]
  config = common.get_config()
  config.model = {'name': 'vit', 'variant': variant, 'scan': False}
  config.model.dropout = dropout
  config.init.params = f'gs://vit_models/imagenet21k/{file}.npz'
  common.finetune(config, size=args['size'], data=args['data'])
  if (args['model'], args['data']) == ('b16', 'cifar10'):
    config.optim.learning_rate = 0.01
  return config
