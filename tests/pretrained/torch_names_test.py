"""Names of timm and Hugging Face; the comparisons with them are in parity/."""

import flax.traverse_util
import jax
import numpy as np
import pytest

from vit_jax import models
from vit_jax.pretrained import torch_names

VIT = dict(
  name='vit',
  patch_size=8,
  width=32,
  depth=2,
  mlp_dim=48,
  num_heads=4,
  num_classes=5,
)
MIXER = dict(
  name='mlp_mixer',
  patch_size=8,
  width=32,
  depth=2,
  token_dim=16,
  channel_dim=48,
  num_classes=5,
)
CASES = {
  'timm_vit': VIT | {'representation_size': 32},
  'timm_vit layer scale': VIT | {'layer_scale': 0.1, 'pool': 'gap'},
  'timm_vit map': VIT | {'pool': 'map'},
  'timm_hybrid': VIT | {'resnet': (1, 1), 'patch_size': 1},
  'timm_stem': VIT | {'resnet': ()},
  'timm_mixer': MIXER,
  'hf_vit': VIT,
  'hf_vit_bare': VIT | {'representation_size': 32},
  'hf_vit_memory': VIT,
}


def random_params(options, *, size=(32, 64)):
  """Our parameters by path, all different."""
  model = models.build(**options)
  image = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  rng = np.random.default_rng(0)
  return {
    path: rng.normal(size=x.shape).astype(np.float32)
    for path, x in flax.traverse_util.flatten_dict(shapes, sep='/').items()
  }


@pytest.mark.parametrize('case', CASES)
def test_what_leaves_comes_back_bit_by_bit(case):
  ours = random_params(CASES[case])
  family = case.split()[0]
  theirs = torch_names.from_ours(ours, family=family)
  assert torch_names.detect(theirs) == family
  back = torch_names.to_ours(theirs, num_heads=4)
  assert back.keys() == ours.keys()
  for path, value in ours.items():
    np.testing.assert_array_equal(back[path], value, err_msg=path)
  again = torch_names.from_ours(back, family=family)
  assert again.keys() == theirs.keys()
  for name, value in theirs.items():
    np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_hugging_face_files_and_memory_hold_the_same_arrays():
  ours = random_params(VIT)
  file = torch_names.from_ours(ours, family='hf_vit')
  memory = torch_names.from_ours(ours, family='hf_vit_memory')
  name = 'attention.attention.key.weight'
  np.testing.assert_array_equal(
    file[f'vit.encoder.layer.1.{name}'],
    memory['vit.layers.1.attention.k_proj.weight'],
  )
  assert 'vit.layers.0.mlp.fc2.bias' in memory
  assert 'vit.layers.0.attention.o_proj.weight' in memory


def test_a_fused_projection_has_queries_then_keys_then_values():
  ours = random_params(VIT)
  timm = torch_names.from_ours(ours, family='timm_vit')
  hugging_face = torch_names.from_ours(ours, family='hf_vit')
  split = np.split(timm['blocks.0.attn.qkv.weight'], 3)
  for name, part in zip(('query', 'key', 'value'), split, strict=True):
    np.testing.assert_array_equal(
      hugging_face[f'vit.encoder.layer.0.attention.attention.{name}.weight'],
      part,
    )
  # Row 8 * h + t of the keys is component t of head h.
  np.testing.assert_array_equal(
    split[1][8 * 2 + 3], ours['block_0/attn/qkv/kernel'][:, 1, 2, 3]
  )


def test_unknown_names_are_listed_on_either_side():
  ours = random_params(VIT)
  theirs = torch_names.from_ours(ours, family='timm_vit')
  theirs |= {'dist_token': np.zeros(1), 'head_dist.bias': np.zeros(5)}
  with pytest.raises(ValueError, match='dist_token, head_dist.bias'):
    torch_names.to_ours(theirs, num_heads=4)
  scaled = random_params(CASES['timm_vit layer scale'])
  with pytest.raises(ValueError, match='block_1/scale2/scale') as error:
    torch_names.from_ours(scaled, family='hf_vit')
  assert 'block_0/scale1/scale' in str(error.value)


def test_a_lost_part_of_a_fused_array_is_named():
  theirs = torch_names.from_ours(random_params(VIT), family='hf_vit')
  lost = 'vit.encoder.layer.1.attention.attention.value.bias'
  del theirs[lost]
  with pytest.raises(ValueError, match=f'lacks {lost}'):
    torch_names.to_ours(theirs, num_heads=4)


@pytest.mark.parametrize('num_heads', [None, 5])
def test_heads_that_do_not_divide_the_width_are_an_error(num_heads):
  theirs = torch_names.from_ours(random_params(VIT), family='timm_vit')
  with pytest.raises(ValueError, match=f'num_heads={num_heads}'):
    torch_names.to_ours(theirs, num_heads=num_heads)
