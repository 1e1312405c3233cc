"""ConvNeXt against timm and transformers, with random weights."""

import pytest

from tests.parity.torch_models import (
  arrays,
  compare,
  outputs_by_module,
  random_image,
  randomise,
)
from vit_jax import models
from vit_jax.pretrained import torch_names

pytestmark = pytest.mark.parity

DEPTHS = (1, 2, 1, 1)
# Rows and columns are left out by the patches, and at each halving by one side
# or the other: maps of 26 x 17, 13 x 8, 6 x 4 and 3 x 2.
SIZE = (107, 69)


def check(torch, theirs, *, stages, maps):
  theirs = randomise(torch, theirs)
  image = random_image(SIZE)
  compare(
    models.build('convnext', width=8, depths=DEPTHS, num_classes=5),
    torch_names.to_ours(arrays(theirs)),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=stages,
    maps=maps,
  )


def test_convnext_equals_timm(timm):
  import torch

  check(
    torch,
    timm.models.ConvNeXt(num_classes=5, depths=DEPTHS, dims=(8, 16, 32, 64)),
    stages=[
      ('patch_norm', 'stem'),
      ('stage_0/block_0', 'stages.0.blocks.0'),
      ('stage_1/downsample', 'stages.1.downsample'),
      ('stage_1/block_1', 'stages.1.blocks.1'),
      ('stage_3/block_0', 'stages.3.blocks.0'),
      ('norm', 'head.norm'),
      ('head', 'head'),
    ],
    maps=[f'stages.{i}' for i in range(4)],
  )


def test_convnext_equals_transformers(timm):
  import torch
  import transformers

  config = transformers.ConvNextConfig(
    depths=list(DEPTHS),
    hidden_sizes=[8, 16, 32, 64],
    layer_norm_eps=1e-6,
    num_labels=5,
  )
  stages = 'convnext.encoder.stages'
  check(
    torch,
    transformers.ConvNextForImageClassification(config),
    stages=[
      ('patch_norm', 'convnext.embeddings'),
      ('stage_0/block_0', f'{stages}.0.layers.0'),
      ('stage_1/downsample', f'{stages}.1.downsampling_layer.1'),
      ('stage_1/block_1', f'{stages}.1.layers.1'),
      ('stage_3/block_0', f'{stages}.3.layers.0'),
      ('norm', 'convnext.layernorm'),
      ('head', 'classifier'),
    ],
    maps=[f'{stages}.{i}' for i in range(4)],
  )
