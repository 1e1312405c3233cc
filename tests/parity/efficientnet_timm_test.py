"""EfficientNet against timm, with random weights."""

import functools

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

# Of even and odd sides, where the two ways to add zeros differ.
SIZE = (66, 93)
ARGS = dict(num_classes=5, channel_multiplier=0.25, depth_multiplier=1.1)
OURS = dict(
  widths=(8, 8, 16, 24, 32, 48, 80),
  depths=(2, 3, 3, 4, 4, 5, 2),
  stem_width=8,
  head_width=320,
  num_classes=5,
)
MODELS = {
  'tf_efficientnet_b0': dict(same_padding=True, epsilon=1e-3),
  'efficientnet_b0': dict(same_padding=False, epsilon=1e-5),
}
every_model = pytest.mark.parametrize('name', MODELS)


def build(timm, torch, *, name):
  """A narrow model of timm."""
  fields = MODELS[name]
  theirs = timm.models.efficientnet._gen_efficientnet(
    name,
    **ARGS,
    bn_eps=fields['epsilon'],
    bn_momentum=0.01,
    pad_type='same' if fields['same_padding'] else '',
    act_layer=functools.partial(torch.nn.SiLU, inplace=False),
  )
  for module in theirs.modules():
    if hasattr(module, 'inplace'):
      module.inplace = False
  return randomise(torch, theirs)


@every_model
def test_efficientnet_equals_timm(timm, name):
  import torch

  theirs = build(timm, torch, name=name)
  image = random_image(SIZE)
  compare(
    models.build('efficientnet', **OURS, **MODELS[name]),
    torch_names.to_ours(arrays(theirs)),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stem/conv', 'conv_stem'),
      ('stage_0/block_0/squeeze_excite', 'blocks.0.0.se'),
      ('stage_0/block_0', 'blocks.0.0'),
      ('stage_0/block_1', 'blocks.0.1'),
      ('stage_1/block_0', 'blocks.1.0'),
      ('stage_2/block_1', 'blocks.2.1'),
      ('stage_6/block_1', 'blocks.6.1'),
      ('widen/conv', 'conv_head'),
      ('head', 'classifier'),
    ],
    maps=[f'blocks.{i}' for i in (0, 1, 2, 4, 6)],
  )


@every_model
def test_in_training_efficientnet_equals_timm(timm, name):
  import torch

  compare_training(
    torch,
    models.build('efficientnet', **OURS, **MODELS[name]),
    build(timm, torch, name=name),
    image=random_image(SIZE),
  )


@pytest.mark.parametrize('variant', ['B0', 'B4'])
def test_names_and_shapes_are_those_of_timm(timm, variant):
  import torch

  with torch.device('meta'):
    theirs = timm.create_model(f'tf_efficientnet_{variant.lower()}')
  check_names(
    'efficientnet', variant, theirs.state_dict(), family='timm_efficientnet'
  )
