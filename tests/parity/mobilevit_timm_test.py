"""MobileViT and MobileViTv2 against timm and transformers, random weights."""

import pytest

from tests.parity.torch_models import (
  arrays,
  check_names,
  compare,
  compare_training,
  outputs_by_module,
  random_image,
  randomise,
)
from vit_jax import models
from vit_jax.pretrained import torch_names

pytestmark = pytest.mark.parity

# Maps of 34 x 47, 17 x 24, 9 x 12 and 5 x 6: patches fill neither of the last.
SIZE = (67, 93)
WIDTHS, TOKENS, RESIDUALS, DEPTHS = (8, 16, 32, 16), (16, 8), (1, 2), (2, 1)
OURS = {
  'mobilevit': dict(
    widths=WIDTHS,
    residuals=RESIDUALS,
    token_widths=TOKENS,
    depths=DEPTHS,
    expansion=2,
    feature_width=24,
    num_classes=5,
  ),
  'mobilevit_v2': dict(
    widths=(32, *WIDTHS[1:]), residuals=RESIDUALS, depths=DEPTHS, num_classes=5
  ),
}
every_version = pytest.mark.parametrize('name', OURS)
# Their module for each of ours.
STAGES = {
  'stage_0': 'stages.0',
  'stage_1/residual_1': 'stages.1.1',
  'stage_2/residual_0': 'stages.2.0',
  'stage_2/mixer/to_tokens': 'stages.2.1.conv_1x1',
  'stage_2/mixer/block_1/norm1': 'stages.2.1.transformer.1.norm1',
  'stage_2/mixer/norm': 'stages.2.1.norm',
  'stage_3/mixer': 'stages.3.1',
  'head': 'head',
}


def build(torch, timm, *, name):
  """A model of timm with the fields of ours."""
  import timm.models.mobilevit as theirs
  from timm.models.byobnet import ByobNet, ByoModelCfg

  widths = OURS[name]['widths']
  blocks = [
    theirs._inverted_residual_block(d=d, c=widths[i], s=1 + (i > 0), br=2.0)
    for i, d in enumerate(RESIDUALS)
  ]
  for i, depth in enumerate(DEPTHS):
    fields = dict(d=1, c=widths[2 + i], s=2, transformer_depth=depth, br=2.0)
    if name == 'mobilevit':
      fields |= dict(transformer_dim=TOKENS[i], patch_size=2)
      blocks.append(theirs._mobilevit_block(**fields))
    else:
      blocks.append(theirs._mobilevitv2_block(**fields))
  config = ByoModelCfg(
    blocks=tuple(blocks),
    stem_chs=16,
    stem_type='3x3',
    stem_pool='',
    downsample='',
    act_layer='silu',
    num_features=24 if name == 'mobilevit' else 0,
  )
  # Otherwise it overwrites what the tests look at.
  model = ByobNet(config, num_classes=5)
  for module in model.modules():
    if isinstance(module, torch.nn.SiLU):
      module.inplace = False
  return randomise(torch, model)


@every_version
def test_mobilevits_equal_timm(timm, name):
  import torch

  theirs = build(torch, timm, name=name)
  image = random_image(SIZE)
  compare(
    models.build(name, **OURS[name]),
    torch_names.to_ours(arrays(theirs), num_heads=4),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[*STAGES.items()],
    maps=[f'stages.{i}' for i in range(4)],
  )


@every_version
def test_in_training_mobilevits_equal_timm(timm, name):
  import torch

  compare_training(
    torch,
    models.build(name, **OURS[name]),
    build(torch, timm, name=name),
    image=random_image(SIZE),
    num_heads=4,
  )


def test_mobilevit_equals_transformers_which_puts_blue_first(timm):
  import torch
  import transformers

  theirs = transformers.MobileViTForImageClassification(
    transformers.MobileViTConfig(
      hidden_sizes=(8, 16, 24),
      neck_hidden_sizes=(16, 8, 16, 8, 16, 24, 32),
      expand_ratio=2.0,
      num_labels=5,
    )
  )
  theirs = randomise(torch, theirs)
  image, layer = random_image((67, 93)), 'mobilevit.encoder.layer'
  compare(
    models.build(
      'mobilevit',
      widths=(8, 16, 8, 16, 24),
      residuals=(1, 3),
      token_widths=(8, 16, 24),
      depths=(2, 4, 3),
      expansion=2,
      feature_width=32,
      num_classes=5,
    ),
    torch_names.to_ours(arrays(theirs), num_heads=4),
    outputs_by_module(torch, theirs, image[..., ::-1]),
    image=image,
    stages=[
      ('stage_1/residual_2', f'{layer}.1.layer.2'),
      ('stage_2/residual_0', f'{layer}.2.downsampling_layer'),
      ('stage_2/mixer/block_0', f'{layer}.2.transformer.layer.0'),
      ('head', 'classifier'),
    ],
    maps=[f'{layer}.{i}' for i in range(5)],
  )


def test_mobilevit_v2_equals_transformers(timm):
  import torch
  import transformers

  theirs = transformers.MobileViTV2ForImageClassification(
    transformers.MobileViTV2Config(
      width_multiplier=0.5, n_attn_blocks=(1, 2, 1), num_labels=5
    )
  )
  theirs = randomise(torch, theirs)
  # There, patches must fill all maps.
  image, layer = random_image((64, 128)), 'mobilevitv2.encoder.layer'
  compare(
    models.build('mobilevit_v2', '0.5', depths=(1, 2, 1), num_classes=5),
    torch_names.to_ours(arrays(theirs)),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stage_1/residual_1', f'{layer}.1.layer.1'),
      ('stage_3/mixer/block_1', f'{layer}.3.transformer.layer.1'),
      ('head', 'classifier'),
    ],
    maps=[f'{layer}.{i}' for i in range(5)],
  )


@pytest.mark.parametrize(
  ('name', 'variant', 'theirs'),
  [
    ('mobilevit', 'S', 'mobilevit_s'),
    ('mobilevit_v2', '0.75', 'mobilevitv2_075'),
  ],
)
def test_the_names_of_mobilevits_are_those_of_timm(timm, name, variant, theirs):
  import torch

  with torch.device('meta'):
    state = timm.create_model(theirs).state_dict()
  check_names(name, variant, state, family=f'timm_{name}')


@every_version
def test_the_names_of_mobilevits_are_those_of_transformers(timm, name):
  import torch
  import transformers

  version, variant = ('', 'S') if name == 'mobilevit' else ('V2', '1.0')
  model = getattr(transformers, f'MobileViT{version}ForImageClassification')
  config = getattr(transformers, f'MobileViT{version}Config')
  with torch.device('meta'):
    state = model(config(num_labels=1000)).state_dict()
  check_names(name, variant, state, family=f'hf_{name}')
