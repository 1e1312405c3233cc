"""CoAtNet against timm, told to have the paper's wiring; random weights.

What the paper leaves open is there as in google-research/maxvit, too.
"""

import dataclasses

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
from vit_jax.models import coatnet
from vit_jax.pretrained import torch_names

pytestmark = pytest.mark.parity

OURS = dict(
  stem_width=8,
  widths=(8, 16, 32, 64),  # the first is not made wider
  depths=(2, 2, 2, 2),
  layout='CCTT',
  strides=(2, 2, 2, 2),
  head_dim=8,
  num_classes=5,
)
HEADS = (None, None, 4, 8)
# Maps of 24 x 16, 12 x 8, 6 x 4 and 3 x 2: attention there takes no odd ones.
SIZE = (96, 64)


PAPER = {'stride_mode': '1x1', 'pool_type': 'max2'}
TIMM = {'stride_mode': 'dw', 'pool_type': 'avg2'}


def build(
  timm,
  torch,
  *,
  variant,
  size,
  num_classes,
  head_dim=32,
  wiring=PAPER,
  **fields,
):
  """A model of timm; with the paper's wiring, no layer before its head."""
  cfg = timm.models.maxxvit.model_cfgs[f'coatnet_{variant}']
  cfg = dataclasses.replace(
    cfg,
    conv_cfg=dataclasses.replace(
      cfg.conv_cfg,
      **wiring,
      padding='same',
      act_layer='gelu_tanh',
      norm_eps=1e-3,
    ),
    transformer_cfg=dataclasses.replace(
      cfg.transformer_cfg,
      pool_type=wiring['pool_type'],
      act_layer='gelu_tanh',
      norm_eps=1e-5,
      dim_head=head_dim,
    ),
    **fields,
  )
  theirs = timm.models.MaxxVit(cfg, img_size=size, num_classes=num_classes)
  if wiring is PAPER:
    theirs.head.pre_logits = torch.nn.Identity()
  for module in theirs.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.momentum = 0.01
    if hasattr(module, 'inplace'):
      module.inplace = False
  return theirs


def build_small(timm, torch, *, size, wiring=PAPER):
  """The counterpart of OURS."""
  theirs = build(
    timm,
    torch,
    variant='0',
    size=size,
    stem_width=8,
    embed_dim=OURS['widths'],
    depths=OURS['depths'],
    head_dim=OURS['head_dim'],
    head_hidden_size=64,
    num_classes=5,
    wiring=wiring,
  )
  return randomise(torch, theirs)


def to_ours(state):
  """Ours, of which the tables have the sides of the maps of SIZE."""
  sides = {2: (11, 7), 3: (5, 3)}
  tables = {}
  for name in list(state):
    if name.endswith('bias_table'):
      _, stage, _, block, *_ = name.split('.')
      path = f'stage_{stage}/block_{block}/position_bias/table'
      tables[path] = state.pop(name).reshape(*sides[int(stage)], -1)
  return torch_names.to_ours(state, num_heads=HEADS) | tables


def test_coatnet_equals_timm(timm):
  import torch

  theirs = build_small(timm, torch, size=SIZE)
  image = random_image(SIZE)
  compare(
    models.build('coatnet', **OURS),
    to_ours(arrays(theirs)),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stem1/conv', 'stem.conv1'),
      ('stem2', 'stem'),
      ('stage_0/block_0/norm', 'stages.0.blocks.0.pre_norm'),
      ('stage_0/block_0/squeeze_excite', 'stages.0.blocks.0.se'),
      ('stage_0/block_0', 'stages.0.blocks.0'),
      ('stage_0/block_1', 'stages.0.blocks.1'),
      ('stage_1/block_0', 'stages.1.blocks.0'),
      ('stage_2/block_0/norm1', 'stages.2.blocks.0.norm1.norm'),
      ('stage_2/block_0', 'stages.2.blocks.0'),
      ('stage_2/block_1', 'stages.2.blocks.1'),
      ('stage_3/block_1', 'stages.3.blocks.1'),
      ('norm', 'head.norm'),
      ('head', 'head'),
    ],
    maps=[f'stages.{i}' for i in range(4)],
  )


def test_the_wiring_of_timm_equals_timm(timm):
  import torch

  theirs = build_small(timm, torch, size=SIZE, wiring=TIMM)
  image = random_image(SIZE)
  options = dict(OURS, **coatnet.WIRING_OF_TIMM, representation_size=64)
  compare(
    models.build('coatnet', **options),
    to_ours(arrays(theirs)),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stage_0/block_0', 'stages.0.blocks.0'),
      ('stage_1/block_0', 'stages.1.blocks.0'),
      ('stage_2/block_0', 'stages.2.blocks.0'),
      ('head', 'head'),
    ],
    maps=[f'stages.{i}' for i in range(4)],
  )


def test_in_training_coatnet_equals_timm(timm):
  import torch

  compare_training(
    torch,
    models.build('coatnet', **OURS),
    build_small(timm, torch, size=(64, 64)),
    image=random_image((64, 64)),
    num_heads=HEADS,
  )


@pytest.mark.parametrize('variant', ['0', '2'])
def test_names_and_shapes_are_those_of_timm(timm, variant):
  import torch

  with torch.device('meta'):
    theirs = build(timm, torch, variant=variant, size=224, num_classes=1000)
  check_names('coatnet', variant, theirs.state_dict(), family='timm_coatnet')
