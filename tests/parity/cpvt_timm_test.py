"""CPVT against timm's ViT with the generator of its Twins; random weights.

Its authors published neither code nor checkpoints.
"""

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

SIZE, GRID = (40, 24), (5, 3)


def build(timm, torch, *, pool, num_pegs):
  """A ViT without positions, with generators after its first blocks."""
  theirs = timm.models.vision_transformer.VisionTransformer(
    img_size=SIZE,
    patch_size=8,
    embed_dim=16,
    depth=3,
    num_heads=4,
    mlp_ratio=2,
    num_classes=5,
    global_pool='token' if pool == 'token' else 'avg',
    class_token=pool == 'token',
    pos_embed='none',
    fc_norm=False,
  )
  theirs.pos_block = torch.nn.ModuleList(
    timm.models.twins.PosConv(16, 16) for _ in range(num_pegs)
  )
  tokens = theirs.num_prefix_tokens
  for block, peg in zip(theirs.blocks, theirs.pos_block, strict=False):

    def add_positions(module, inputs, output, *, peg=peg):
      patches = peg(output[:, tokens:], GRID)
      return torch.cat([output[:, :tokens], patches], dim=1)

    block.register_forward_hook(add_positions)
  return theirs


@pytest.mark.parametrize('pool', ['token', 'gap'])
@pytest.mark.parametrize('num_pegs', [1, 2])
def test_cpvt_equals_timm(timm, pool, num_pegs):
  import torch

  theirs = build(timm, torch, pool=pool, num_pegs=num_pegs)
  theirs = randomise(torch, theirs)
  state = arrays(theirs)
  pegs = {}
  for i in range(num_pegs):
    peg, convolution = f'block_{i}/peg/depthwise', f'pos_block.{i}.proj.0'
    weight = state.pop(f'{convolution}.weight')
    pegs[f'{peg}/kernel'] = weight.transpose(2, 3, 1, 0)
    pegs[f'{peg}/bias'] = state.pop(f'{convolution}.bias')
  image = random_image(SIZE)
  compare(
    models.build(
      'cpvt',
      patch_size=8,
      width=16,
      depth=3,
      mlp_dim=32,
      num_heads=4,
      num_classes=5,
      pool=pool,
      num_pegs=num_pegs,
    ),
    torch_names.to_ours(state, num_heads=4) | pegs,
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('patch_embed', 'patch_embed'),
      ('block_0/norm1', 'blocks.0.norm1'),
      ('block_0', 'blocks.0'),
      ('block_1', 'blocks.1'),
      ('block_2', 'blocks.2'),
      ('norm', 'norm'),
      ('head', 'head'),
    ],
  )
