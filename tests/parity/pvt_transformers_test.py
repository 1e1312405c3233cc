"""PVT against transformers, with random weights."""

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

DEPTHS, WIDTHS, HEADS = (1, 2, 1, 2), (8, 16, 20, 24), (1, 2, 4, 3)
RATIOS, REDUCTIONS = (2, 3, 2, 1), (4, 3, 2, 1)
# Rows and columns are left out by patches and groups.
SIZE = (71, 109)
GRIDS = ((17, 27), (8, 13), (4, 6), (2, 3))


def build(torch, transformers):
  """Their model, with positions for maps that are not square."""
  theirs = transformers.PvtForImageClassification(
    transformers.PvtConfig(
      image_size=64,
      depths=DEPTHS,
      hidden_sizes=WIDTHS,
      num_attention_heads=HEADS,
      mlp_ratios=RATIOS,
      sequence_reduction_ratios=REDUCTIONS,
      num_labels=5,
    )
  )
  for (h, w), embedding in zip(
    GRIDS, theirs.pvt.encoder.patch_embeddings, strict=True
  ):
    number = h * w + (embedding.cls_token is not None)
    shape = (1, number, embedding.projection.out_channels)
    embedding.position_embeddings = torch.nn.Parameter(torch.zeros(shape))
  # There, all norms have the epsilon that only those of the blocks have in
  # whai362/PVT, and at the end.
  for name, module in theirs.named_modules():
    if name.endswith('.layer_norm') and name != 'pvt.encoder.layer_norm':
      module.eps = 1e-5
  return theirs


def test_pvt_equals_transformers(timm):
  import torch
  import transformers

  theirs = randomise(torch, build(torch, transformers))
  state = arrays(theirs)
  encoder = 'pvt.encoder'
  maps = {
    f'stage_{i}/pos_embed': state.pop(
      f'{encoder}.patch_embeddings.{i}.position_embeddings'
    ).reshape(1, *GRIDS[i], WIDTHS[i])
    for i in range(3)
  }
  # So faint that the epsilon of the first norm matters.
  image = 1e-2 * random_image(SIZE)
  compare(
    models.build(
      'pvt',
      widths=WIDTHS,
      depths=DEPTHS,
      num_heads=HEADS,
      mlp_ratios=RATIOS,
      reductions=REDUCTIONS,
      num_classes=5,
    ),
    torch_names.to_ours(state, num_heads=HEADS) | maps,
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      # The norm of the first block sees the positions, too.
      ('stage_0/block_0/norm1', f'{encoder}.block.0.0.layer_norm_1'),
      ('stage_0/block_0', f'{encoder}.block.0.0'),
      ('stage_1/patch_norm', f'{encoder}.patch_embeddings.1.layer_norm'),
      ('stage_1/block_1', f'{encoder}.block.1.1'),
      ('stage_3/block_0/norm1', f'{encoder}.block.3.0.layer_norm_1'),
      ('stage_3/block_1', f'{encoder}.block.3.1'),
      ('head', 'classifier'),
    ],
  )


def test_the_names_of_pvt_are_those_of_transformers(timm):
  import torch
  import transformers

  with torch.device('meta'):
    theirs = transformers.PvtForImageClassification(transformers.PvtConfig())
  check_names('pvt', 'T', theirs.state_dict(), family='hf_pvt')
