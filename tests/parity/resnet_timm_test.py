"""ResNet against timm and transformers, with random weights."""

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

# Maps of 17 x 12, 9 x 6, 5 x 3 and 3 x 2: all are rounded up somewhere.
SIZE = (67, 45)
DEPTHS = (1, 2, 1, 1)
CHANNELS = (8, 16, 24, 32)
every_block = pytest.mark.parametrize('bottleneck', [False, True])


def build(timm, torch, *, bottleneck):
  """A model of timm."""
  blocks = timm.models.resnet
  return randomise(
    torch,
    timm.models.ResNet(
      blocks.Bottleneck if bottleneck else blocks.BasicBlock,
      DEPTHS,
      channels=CHANNELS,
      num_classes=5,
    ),
  )


def build_ours(*, bottleneck):
  """The same."""
  widths = tuple(c * (4 if bottleneck else 1) for c in CHANNELS)
  return models.build(
    'resnet', widths=widths, depths=DEPTHS, bottleneck=bottleneck, num_classes=5
  )


@every_block
def test_resnet_equals_timm(timm, bottleneck):
  import torch

  theirs = build(timm, torch, bottleneck=bottleneck)
  image = random_image(SIZE)
  compare(
    build_ours(bottleneck=bottleneck),
    torch_names.to_ours(arrays(theirs)),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stem/conv', 'conv1'),
      ('stage_0/block_0', 'layer1.0'),
      ('stage_1/block_0/shortcut', 'layer2.0.downsample'),
      ('stage_1/block_0', 'layer2.0'),
      ('stage_1/block_1', 'layer2.1'),
      ('stage_3/block_0', 'layer4.0'),
      ('head', 'fc'),
    ],
    maps=[f'layer{i}' for i in range(1, 5)],
  )


@every_block
def test_in_training_resnet_equals_timm(timm, bottleneck):
  import torch

  compare_training(
    torch,
    build_ours(bottleneck=bottleneck),
    build(timm, torch, bottleneck=bottleneck),
    image=random_image(SIZE),
  )


@every_block
def test_resnet_equals_transformers(timm, bottleneck):
  import torch
  import transformers

  ours = build_ours(bottleneck=bottleneck)
  config = transformers.ResNetConfig(
    embedding_size=64,
    hidden_sizes=list(ours.widths),
    depths=list(DEPTHS),
    layer_type='bottleneck' if bottleneck else 'basic',
    num_labels=5,
  )
  theirs = transformers.ResNetForImageClassification(config)
  theirs = randomise(torch, theirs)
  image = random_image(SIZE)
  compare(
    ours,
    torch_names.to_ours(arrays(theirs)),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[('head', 'classifier.1')],
    maps=[f'resnet.encoder.stages.{i}' for i in range(4)],
  )


@pytest.mark.parametrize('variant', ['18', '50'])
def test_names_and_shapes_are_those_of_timm(timm, variant):
  import torch

  with torch.device('meta'):
    state = timm.create_model(f'resnet{variant}').state_dict()
  check_names('resnet', variant, state, family='timm_resnet')
