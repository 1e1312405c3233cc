"""Swin and SwinV2 against timm and transformers, with random weights."""

import numpy as np
import pytest

from tests.parity import torch_models
from tests.parity.torch_models import (
  arrays,
  check_names,
  compare,
  outputs_by_module,
  random_image,
)
from vit_jax import models
from vit_jax.pretrained import fit, torch_names

pytestmark = pytest.mark.parity

HEADS = (1, 2, 4)
SMALL = dict(width=8, depths=(2, 3, 2), num_heads=HEADS, num_classes=5)
# Fields and size of the image. Maps have 1/4, 1/8 and 1/16 of the size; where
# one is not larger than the window, along an axis or both, the window shrinks
# and is not shifted. None needs padding: timm pads after the shift, so that its
# mask misses what was rolled.
CASES = {
  'swin': (dict(window_size=3), (96, 48)),
  'swin shrunk': (dict(window_size=8), (96, 64)),
  'swin shrunk along one axis': (dict(window_size=4), (128, 32)),
  'swin_v2': (dict(window_size=3), (96, 48)),
  'swin_v2 shrunk': (dict(window_size=8), (96, 64)),
  'swin_v2 shrunk along one axis': (dict(window_size=4), (128, 32)),
  'swin_v2 pretrained': (
    dict(window_size=3, pretrained_windows=(2, 4, 5)),
    (96, 48),
  ),
}


def randomise(torch, model):
  """As for other models, with temperatures on either side of their limit."""
  model = torch_models.randomise(torch, model)
  for name, value in model.named_parameters():
    if name.endswith('logit_scale'):
      value.data += 2.0
    # Over the limit, ln 100, where nothing is masked: there timm takes 100 from
    # the logits of masked pairs, which is then too little to hide them.
    if name.endswith('layers.0.blocks.0.attn.logit_scale'):
      value.data += 3.0
  return model


def full_tables(theirs, state, *, side):
  """Puts timm's tables of shrunk windows in the middle of full ones."""
  for name, module in theirs.named_modules():
    key = f'{name}.relative_position_bias_table'
    if key in state:
      h, w = module.window_size
      table = state[key].reshape(2 * h - 1, 2 * w - 1, -1)
      border = [(side - h, side - h), (side - w, side - w), (0, 0)]
      table = np.pad(table, border)
      state[key] = table.reshape(-1, table.shape[-1])
  return state


@pytest.mark.parametrize('case', CASES)
def test_swin_equals_timm(timm, case):
  import torch

  fields, size = CASES[case]
  name, side = case.split()[0], fields['window_size']
  options = dict(
    img_size=size,
    embed_dim=8,
    depths=(2, 3, 2),
    num_heads=HEADS,
    num_classes=5,
    window_size=side,
  )
  if name == 'swin':
    theirs = timm.models.SwinTransformer(**options)
  else:
    windows = fields.get('pretrained_windows', (0, 0, 0))
    theirs = timm.models.SwinTransformerV2(
      **options, pretrained_window_sizes=windows
    )
  theirs = randomise(torch, theirs)
  state = full_tables(theirs, arrays(theirs), side=side)
  image = random_image(size)
  expected = outputs_by_module(torch, theirs, image)
  blocks = [
    (f'stage_{s}/block_{b}', f'layers.{s}.blocks.{b}')
    for s, b in ((0, 0), (0, 1), (1, 2), (2, 1))
  ]
  output = compare(
    models.build(name, **SMALL, **fields),
    torch_names.to_ours(state, num_heads=HEADS),
    expected,
    image=image,
    stages=[
      ('patch_norm', 'patch_embed'),
      *blocks[:2],
      ('stage_1/merging', 'layers.1.downsample'),
      *blocks[2:],
      ('norm', 'norm'),
      ('head', 'head'),
    ],
  )
  # The maps are what timm gives as features.
  for i, feature_map in enumerate(output.pyramid):
    target = expected[f'layers.{i}'].numpy()
    np.testing.assert_allclose(feature_map, target, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('name', ['swin', 'swin_v2'])
def test_padded_swin_equals_transformers(timm, name):
  """Of 70 x 52 pixels: maps 18 x 13, 9 x 7 and 5 x 4, in windows of 3 x 3."""
  import torch
  import transformers

  size = (70, 52)
  config = dict(
    image_size=size,
    embed_dim=8,
    depths=(2, 3, 2),
    num_heads=HEADS,
    window_size=3,
    num_labels=5,
  )
  if name == 'swin':
    theirs = transformers.SwinForImageClassification(
      transformers.SwinConfig(**config)
    )
  else:
    theirs = transformers.Swinv2ForImageClassification(
      transformers.Swinv2Config(**config)
    )
  theirs = randomise(torch, theirs)
  image = random_image(size)
  expected = outputs_by_module(torch, theirs, image)
  layers = f'{name.replace("_", "")}.encoder.layers'
  compare(
    models.build(name, **SMALL, window_size=3),
    torch_names.to_ours(arrays(theirs), num_heads=HEADS),
    expected,
    image=image,
    stages=[
      ('patch_norm', layers.replace('encoder.layers', 'embeddings.norm')),
      ('stage_0/block_0', f'{layers}.0.blocks.0'),
      ('stage_0/block_1', f'{layers}.0.blocks.1'),
      ('stage_1/merging', f'{layers}.0.downsample'),
      ('stage_1/block_2', f'{layers}.1.blocks.2'),
      ('stage_2/block_1', f'{layers}.2.blocks.1'),
      ('head', 'classifier'),
    ],
  )


def test_the_names_of_swin_t_are_those_of_timm(timm):
  import torch

  with torch.device('meta'):
    theirs = timm.create_model('swin_tiny_patch4_window7_224')
  check_names('swin', 'T/7', theirs.state_dict(), family='timm_swin')


def test_the_names_of_swin_t_are_those_of_transformers(timm):
  import torch
  import transformers

  with torch.device('meta'):
    theirs = transformers.SwinForImageClassification(
      transformers.SwinConfig(num_labels=1000)
    )
  check_names('swin', 'T/7', theirs.state_dict(), family='hf_swin_memory')


@pytest.mark.parametrize('name', ['swin', 'swin_v2'])
def test_files_of_transformers_have_the_names_of_the_hub(timm, name, tmp_path):
  import safetensors.numpy
  import transformers

  kind = name.replace('_v', 'v').capitalize()
  config = getattr(transformers, f'{kind}Config')(
    embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=2
  )
  model = getattr(transformers, f'{kind}ForImageClassification')(config)
  model.save_pretrained(tmp_path)
  state = safetensors.numpy.load_file(tmp_path / 'model.safetensors')
  assert torch_names.detect(state) == f'hf_{name}'


@pytest.mark.parametrize(('old', 'new'), [(7, 12), (12, 7), (3, 24), (2, 3)])
def test_biases_are_resampled_as_in_torch(timm, old, new):
  import torch

  rng = np.random.default_rng(0)
  table = rng.normal(size=(2 * old - 1, 2 * old - 1, 3)).astype(np.float32)
  theirs = timm.layers.resize_rel_pos_bias_table_simple(
    torch.from_numpy(table.reshape(-1, 3)),
    new_window_size=(new, new),
    new_bias_shape=((2 * new - 1) ** 2, 3),
  )
  ours = fit.resize_bias_table(table, size=(2 * new - 1,) * 2)
  np.testing.assert_allclose(ours.reshape(-1, 3), theirs.numpy(), atol=1e-5)
