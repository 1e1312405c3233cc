"""PVT v2 against timm and transformers, with random weights."""

import numpy as np
import pytest

from tests.parity.torch_models import (
  arrays,
  check_names,
  compare,
  outputs_by_module,
  random_image,
  randomise,
)
from vit_jax import models
from vit_jax.pretrained import torch_names

pytestmark = pytest.mark.parity

DEPTHS, WIDTHS, HEADS = (1, 2, 1, 1), (8, 16, 20, 24), (1, 2, 4, 3)
RATIOS, REDUCTIONS = (2, 3, 2, 1), (4, 2, 2, 1)
# Maps of 19 x 27, 10 x 14, 5 x 7 and 3 x 4, from which groups leave rows and
# columns out, and of which 7 x 7 parts overlap.
SIZE = (75, 107)
OURS = dict(
  widths=WIDTHS,
  depths=DEPTHS,
  num_heads=HEADS,
  mlp_ratios=RATIOS,
  reductions=REDUCTIONS,
  num_classes=5,
)


@pytest.mark.parametrize('linear', [False, True])
def test_pvt_v2_equals_timm(timm, linear):
  import torch

  theirs = randomise(
    torch,
    timm.models.pvt_v2.PyramidVisionTransformerV2(
      num_classes=5,
      depths=DEPTHS,
      embed_dims=WIDTHS,
      num_heads=HEADS,
      sr_ratios=REDUCTIONS,
      mlp_ratios=RATIOS,
      linear=linear,
    ),
  )
  image = random_image(SIZE)
  compare(
    models.build('pvt_v2', **OURS, linear=linear),
    torch_names.to_ours(arrays(theirs), num_heads=HEADS),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stage_0/patch_norm', 'patch_embed'),
      ('stage_0/block_0', 'stages.0.blocks.0'),
      ('stage_1/patch_norm', 'stages.1.downsample'),
      ('stage_1/block_1', 'stages.1.blocks.1'),
      ('stage_3/block_0', 'stages.3.blocks.0'),
      ('head', 'head'),
    ],
    maps=[f'stages.{i}' for i in range(4)],
  )


@pytest.mark.parametrize('linear', [False, True])
def test_pvt_v2_equals_transformers(timm, linear):
  import torch
  import transformers

  theirs = transformers.PvtV2ForImageClassification(
    transformers.PvtV2Config(
      depths=DEPTHS,
      hidden_sizes=WIDTHS,
      num_attention_heads=HEADS,
      sr_ratios=REDUCTIONS,
      mlp_ratios=RATIOS,
      linear_attention=linear,
      num_labels=5,
    )
  )
  theirs = randomise(torch, theirs)
  image, layers = random_image(SIZE), 'pvt_v2.encoder.layers'
  compare(
    models.build('pvt_v2', **OURS, linear=linear),
    torch_names.to_ours(arrays(theirs), num_heads=HEADS),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stage_0/block_0', f'{layers}.0.blocks.0'),
      ('stage_3/block_0', f'{layers}.3.blocks.0'),
      ('head', 'classifier'),
    ],
  )


@pytest.mark.parametrize(
  ('name', 'variant'), [('pvt_v2_b2', 'B2'), ('pvt_v2_b2_li', 'B2-Li')]
)
def test_the_names_of_pvt_v2_are_those_of_timm(timm, name, variant):
  import torch

  with torch.device('meta'):
    theirs = timm.create_model(name)
  check_names('pvt_v2', variant, theirs.state_dict(), family='timm_pvt_v2')


def test_the_names_of_pvt_v2_are_those_of_transformers(timm):
  import torch
  import transformers

  with torch.device('meta'):
    theirs = transformers.PvtV2ForImageClassification(
      transformers.PvtV2Config(num_labels=1000)
    )
  check_names('pvt_v2', 'B0', theirs.state_dict(), family='hf_pvt_v2')


def test_timm_reads_the_names_of_the_authors(timm):
  import torch

  theirs = timm.models.pvt_v2.PyramidVisionTransformerV2(
    num_classes=5, depths=DEPTHS, embed_dims=WIDTHS, num_heads=HEADS
  )
  state = arrays(randomise(torch, theirs))
  ours = torch_names.to_ours(state, num_heads=HEADS)
  authors = torch_names.from_ours(ours, family='whai362_pvt_v2')
  read = timm.models.pvt_v2.checkpoint_filter_fn(authors, theirs)
  assert read.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(read[name], value, err_msg=name)
