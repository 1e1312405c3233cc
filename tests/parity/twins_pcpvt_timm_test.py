"""Twins-PCPVT against timm, with random weights."""

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

DEPTHS, WIDTHS, HEADS = (1, 2, 3, 1), (8, 16, 20, 24), (1, 2, 4, 3)
RATIOS, REDUCTIONS = (2, 3, 2, 1), (3, 2, 2, 1)
# Maps of 16 x 24, 8 x 12, 4 x 6 and 2 x 3; groups leave a row out of the first.
SIZE = (64, 96)


def test_twins_pcpvt_equals_timm(timm):
  import torch

  theirs = randomise(
    torch,
    timm.models.twins.Twins(
      img_size=SIZE,
      num_classes=5,
      embed_dims=WIDTHS,
      num_heads=HEADS,
      mlp_ratios=RATIOS,
      depths=DEPTHS,
      sr_ratios=REDUCTIONS,
    ),
  )
  image = random_image(SIZE)
  compare(
    models.build(
      'twins_pcpvt',
      widths=WIDTHS,
      depths=DEPTHS,
      num_heads=HEADS,
      mlp_ratios=RATIOS,
      reductions=REDUCTIONS,
      num_classes=5,
    ),
    torch_names.to_ours(arrays(theirs), num_heads=HEADS),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stage_0/patch_norm', 'patch_embeds.0'),
      # Ours ends with the positions.
      ('stage_0/block_0', 'pos_block.0'),
      ('stage_1/patch_norm', 'patch_embeds.1'),
      ('stage_1/block_0', 'pos_block.1'),
      ('stage_1/block_1', 'blocks.1.1'),
      ('stage_2/block_2', 'blocks.2.2'),
      ('stage_3/block_0', 'pos_block.3'),
      ('norm', 'norm'),
      ('head', 'head'),
    ],
  )


def test_the_names_of_twins_pcpvt_are_those_of_timm(timm):
  import torch

  with torch.device('meta'):
    theirs = timm.create_model('twins_pcpvt_small')
  check_names(
    'twins_pcpvt', 'S', theirs.state_dict(), family='timm_twins_pcpvt'
  )
