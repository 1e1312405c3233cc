import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.torch_models import check_names, compare
from vit_jax import models
from vit_jax.models import dinat
from vit_jax.models.dinat import Block, DiNAT
from vit_jax.ops import flops
from vit_jax.pretrained import torch_names

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 'dinat.npz'
HEADS = (2, 4)
SMALL = dict(
  width=8,
  depths=(2, 3),
  num_heads=HEADS,
  mlp_ratio=2,
  dilations=(3, 2),
  kernel_size=3,
)
# Kind of golden -> fields, and the stages to compare.
KINDS = {
  'dinat': (
    dict(layer_scale=1.0),
    [
      ('patch_norm', 'patch_embed'),
      ('stage_0/block_0/attn', 'levels.0.blocks.0.attn'),
      ('stage_0/block_0', 'levels.0.blocks.0'),
      ('stage_0/block_1/attn', 'levels.0.blocks.1.attn'),
      ('stage_0', 'levels.0.blocks.1'),
      ('stage_1/merging', 'levels.0.downsample'),
      ('stage_1/block_1', 'levels.1.blocks.1'),
      ('stage_1', 'levels.1'),
      ('norm', 'norm'),
      ('head', 'head'),
    ],
  ),
  'dinat_s': (
    dict(overlap=False),
    [
      ('patch_norm', 'patch_embed'),
      ('stage_0', 'layers.0.blocks.1'),
      ('stage_1/merging', 'layers.0.downsample'),
      ('stage_1', 'layers.1'),
      ('norm', 'norm'),
      ('head', 'head'),
    ],
  ),
}
every_kind = pytest.mark.parametrize('kind', KINDS)


def golden(prefix):
  """The arrays of the file whose names begin so, by the rest of the name."""
  with np.load(GOLDEN) as file:
    return {
      name.removeprefix(prefix): file[name]
      for name in file.files
      if name.startswith(prefix)
    }


@every_kind
def test_the_model_equals_that_of_the_authors(kind):
  fields, stages = KINDS[kind]
  compare(
    models.build('dinat', **SMALL, **fields, num_classes=5),
    torch_names.to_ours(golden(f'{kind}/state/'), num_heads=HEADS),
    golden(f'{kind}/output/'),
    image=golden('image')[''],
    stages=stages,
  )


def test_the_names_are_those_of_the_authors():
  state = {}
  for line in str(golden('M/names')['']).splitlines():
    name, _, numbers = line.partition(' ')
    shape = tuple(int(n) for n in numbers.strip('(,)').split(','))
    state[name] = jax.ShapeDtypeStruct(shape, np.float32)
  check_names('dinat', 'M', state, family='shi_dinat')


@every_kind
def test_what_is_read_can_be_written_again(kind):
  state = golden(f'{kind}/state/')
  ours = torch_names.to_ours(state, num_heads=HEADS)
  written = torch_names.from_ours(ours, family=f'shi_{kind}')
  assert written.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(written[name], value, err_msg=name)


@pytest.mark.parametrize('name', dinat.VARIANTS)
def test_dilations_are_as_large_as_the_maps_allow(name):
  fields = dinat.variant(name)
  size = 384 if '384' in name else 224
  if name.startswith('nat_'):
    assert fields['dilations'] == (1, 1, 1, 1)
    return
  window = fields.get('kernel_size', 7)
  largest = tuple(size // stride // window for stride in (4, 8, 16, 32))
  assert fields['dilations'] == largest


def test_tiles_cost_little_more_than_neighbourhoods():
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  model = DiNAT(**dinat.variant('M'), num_classes=1000)
  params = jax.eval_shape(model.init, jax.random.key(0), image)
  cost = flops.count(model.apply, params, image) / 2e9
  by_the_definition = 2.6948  # see published_test.py
  assert by_the_definition < cost < 1.1 * by_the_definition


def make_block(dilation=3):
  return Block(
    num_heads=2, dilation=dilation, kernel_size=3, mlp_ratio=2, layer_scale=0.1
  )


@functools.cache
def block_params():
  x = jnp.zeros((1, 9, 9, 32))
  return jax.jit(make_block().init)(jax.random.key(0), x)


@pytest.mark.parametrize(
  ('dilated', 'seen_from'), [(False, {3, 4, 5}), (True, {1, 4, 7})]
)
def test_a_dilated_block_looks_further(dilated, seen_from):
  apply = jax.jit(functools.partial(make_block().apply, dilated=dilated))
  x = jax.random.normal(jax.random.key(1), (1, 9, 9, 32))
  # Not the same for all channels: a norm would take that away again.
  changed = x.at[:, 4, 4].multiply(-1.0)
  difference = apply(block_params(), changed) - apply(block_params(), x)
  rows, columns = np.nonzero(np.abs(difference).max((0, 3)) > 1e-6)
  assert set(zip(rows, columns, strict=True)) == {
    (y, x) for y in seen_from for x in seen_from
  }


def test_the_parameters_start_as_in_the_reference():
  params = block_params()['params']
  assert set(params) == {'norm1', 'attn', 'scale1', 'norm2', 'mlp', 'scale2'}
  for array in (
    params['attn']['qkv']['kernel'],
    params['attn']['out']['kernel'],
    params['mlp']['fc1']['kernel'],
    params['attn']['position_bias']['table'],
  ):
    np.testing.assert_allclose(array.std(), 0.02, rtol=0.2)
  assert not params['attn']['qkv']['bias'].any()
  np.testing.assert_array_equal(params['scale2']['scale'], jnp.full(32, 0.1))


def test_drop_path_drops_both_branches_of_a_block():
  x = jnp.ones((4, 9, 9, 32))
  drop = functools.partial(make_block(1).apply, drop_path=1 - 1e-6, train=True)
  rngs = {'dropout': jax.random.key(1)}
  np.testing.assert_array_equal(jax.jit(drop)(block_params(), x, rngs=rngs), x)


def test_any_image_fits_any_parameters():
  model = DiNAT(**SMALL, num_classes=3)
  shapes = functools.partial(jax.tree.map, jnp.shape)
  expected = jax.eval_shape(
    model.init, jax.random.key(0), jnp.ones((1, 64, 64, 3))
  )
  for height, width in [(1, 1), (7, 33), (41, 30)]:
    image = jnp.ones((1, height, width, 3))
    output, params = jax.eval_shape(
      model.init_with_output, jax.random.key(0), image
    )
    assert shapes(params) == shapes(expected)
    fine = -(-height // 4), -(-width // 4)
    coarse = -(-height // 8), -(-width // 8)
    assert [x.shape for x in output.pyramid] == [
      (1, *fine, 8),
      (1, *coarse, 16),
    ]


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'dilations': (2,)}, r'dilations=\(2,\) must have a number for each'),
    ({'dilations': (0, 1)}, 'dilation=0 must be at least 1'),
    ({'kernel_size': 4}, 'kernel_size=4 must be an odd number'),
    ({'num_heads': (2, 3)}, 'num_heads=3 does not divide width=16'),
  ],
)
def test_a_field_without_a_meaning_is_refused(fields, message):
  model = DiNAT(**SMALL | fields)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'nat_L'. Did you mean 'nat_"):
    dinat.variant('nat_L')
