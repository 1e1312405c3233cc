"""TNT against timm, with random weights; timm equals the authors' code."""

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

SIZE = (48, 32)
HEADS = {'inner': 2, 'outer': 4}


def build(timm):
  return timm.models.tnt.TNT(
    img_size=SIZE,
    embed_dim=16,
    inner_dim=8,
    depth=2,
    num_heads_inner=2,
    num_heads_outer=4,
    num_classes=5,
  )


def test_tnt_equals_timm(timm):
  import torch

  theirs = randomise(torch, build(timm))
  image = random_image(SIZE)
  output = compare(
    models.build(
      'tnt',
      patch_size=16,
      word_width=8,
      word_heads=2,
      width=16,
      num_heads=4,
      depth=2,
      num_classes=5,
    ),
    torch_names.to_ours(arrays(theirs), num_heads=HEADS),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('said', 'norm2_proj'),
      # Of words and sentences, timm's block returns the words first.
      ('block_0/inner', 'blocks.0'),
      ('block_0/said', 'blocks.0.norm2_proj'),
      ('block_0/outer/attn', 'blocks.0.attn_out'),
      ('block_0/outer/mlp', 'blocks.0.mlp'),
      ('block_1/inner', 'blocks.1'),
      ('block_1/outer/mlp', 'blocks.1.mlp'),
      ('norm', 'norm'),
      ('head', 'head'),
    ],
  )
  with torch.no_grad():
    (patches,) = theirs.forward_intermediates(
      torch.from_numpy(image.transpose(0, 3, 1, 2).copy()),
      indices=1,
      norm=True,
      intermediates_only=True,
    )
  expected = patches.numpy().transpose(0, 2, 3, 1)
  np.testing.assert_allclose(output.pyramid[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('variant', ['S', 'B'])
def test_the_names_are_those_of_timm(timm, variant):
  import torch

  with torch.device('meta'):
    theirs = timm.create_model(f'tnt_{variant.lower()}_patch16_224')
  check_names('tnt', variant, theirs.state_dict(), family='timm_tnt')


def test_the_names_of_huawei_are_those_that_timm_translates(timm):
  import torch

  theirs = randomise(torch, build(timm))
  state = arrays(theirs)
  ours = torch_names.to_ours(state, num_heads=HEADS)
  huawei = torch_names.from_ours(ours, family='huawei_tnt')
  huawei['outer_tokens'] = np.zeros((1, 6, 16), np.float32)
  tensors = {name: torch.from_numpy(x.copy()) for name, x in huawei.items()}
  translated = timm.models.tnt.checkpoint_filter_fn(tensors, theirs)
  assert translated.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(translated[name], value, err_msg=name)
  back = torch_names.to_ours(huawei, num_heads=HEADS)
  assert back.keys() == ours.keys()
  for path, value in ours.items():
    np.testing.assert_array_equal(back[path], value, err_msg=path)
