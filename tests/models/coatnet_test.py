import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.models import coatnet
from vit_jax.models.coatnet import (
  CoAtNet,
  MBConv,
  RelativePositionBias,
  Transformer,
)
from vit_jax.pretrained import flatten
from vit_jax.pretrained.fit import fit
from vit_jax.tools.work.zoo import cost

SMALL = dict(
  stem_width=8, widths=(8,), depths=(1,), layout='T', strides=(2,), head_dim=4
)
X = jax.random.normal(jax.random.key(0), (2, 5, 6, 8))
BLOCKS = {
  'C': lambda width, stride=1, pool='max': MBConv(
    width, 'expand', pool, stride
  ),
  'T': lambda width, stride=1, pool='max': Transformer(width, 4, pool, stride),
}


def without_branches(kind, *args):
  """A block that adds nothing, and its variables."""
  block = BLOCKS[kind](*args)
  variables = jax.jit(block.init)(jax.random.key(1), X)
  ends = {'C': ('project',), 'T': ('attn', 'mlp')}[kind]
  for name in ends:
    part = variables['params'][name]
    variables['params'][name] = jax.tree.map(jnp.zeros_like, part)
  return block, variables


def largest_of_2_x_2(x):
  """Of a map of 5 x 6, to which a row of nothing is added."""
  padding = ((0, 0), (0, 1), (0, 0), (0, 0))
  padded = np.pad(x, padding, constant_values=-np.inf)
  return padded.reshape(2, 3, 2, 3, 2, 8).max((2, 4))


def test_two_stages_of_the_largest_share_the_maps_of_stride_16():
  """Table 12."""
  image = jax.ShapeDtypeStruct((1, 256, 192, 3), jnp.float32)
  model = models.build('coatnet', '7', scan=True)
  output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
  assert [x.shape[1:] for x in output.pyramid] == [
    (64, 48, 256),
    (32, 24, 512),
    (16, 12, 1024),
    (16, 12, 2048),
    (8, 6, 3072),
  ]


@pytest.mark.parametrize('kind', BLOCKS)
def test_a_block_adds_to_its_input(kind):
  block, variables = without_branches(kind, 8)
  assert 'shortcut' not in variables['params']
  np.testing.assert_array_equal(jax.jit(block.apply)(variables, X), X)


@pytest.mark.parametrize('kind', BLOCKS)
def test_where_the_map_is_halved_it_adds_to_the_largest_of_2_x_2(kind):
  block, variables = without_branches(kind, 8, 2)
  np.testing.assert_array_equal(
    jax.jit(block.apply)(variables, X), largest_of_2_x_2(X)
  )


@pytest.mark.parametrize('kind', BLOCKS)
def test_it_may_add_to_the_average_of_those_of_2_x_2_that_are_there(kind):
  block, variables = without_branches(kind, 8, 2, 'avg')
  padding = ((0, 0), (0, 1), (0, 0), (0, 0))
  padded = np.pad(X, padding, constant_values=np.nan)
  np.testing.assert_allclose(
    jax.jit(block.apply)(variables, X),
    np.nanmean(padded.reshape(2, 3, 2, 3, 2, 8), (2, 4)),
    rtol=1e-5,
  )


def test_the_depthwise_convolution_may_have_the_stride():
  early, late = (MBConv(8, where, 'max', 2) for where in coatnet.STRIDES_IN)
  variables = jax.jit(early.init)(jax.random.key(1), X)
  run = functools.partial(late.apply, variables)
  assert run(X).shape == (2, 3, 3, 8)
  # All positions are looked at, and not every other one.
  look = lambda x: (
    run(x)[0, 1, 1].sum()
    - coatnet.reduce(x, stride=2, pool='max')[0, 1, 1].sum()
  )
  # Of height 5, whose padding is even: rows 1 to 3.
  seen = np.abs(jax.jit(jax.grad(look))(X)[0]).max(-1) > 1e-6
  assert seen[1:4].any(axis=1).all()


def test_the_wiring_of_timm_costs_what_it_costs_there():
  """coatnet_0_224 of timm 1.0.31: 25.04 M parameters, 4.55 GMAC."""
  fields = coatnet.WIRING_OF_TIMM | dict(representation_size=768, scan=True)
  model = models.build('coatnet', '0', num_classes=1000, **fields)
  params, operations = cost(model)
  assert (round(params / 1e6, 2), round(operations / 2e9, 2)) == (25.04, 4.55)


@pytest.mark.parametrize('kind', BLOCKS)
def test_where_the_map_is_made_wider_the_shortcut_is_projected(kind):
  block, variables = without_branches(kind, 16, 2)
  kernel = variables['params']['shortcut']['kernel']
  np.testing.assert_allclose(
    jax.jit(block.apply)(variables, X),
    largest_of_2_x_2(X) @ kernel,
    rtol=1e-5,
    atol=1e-5,
  )


def test_the_table_is_read_by_rows_and_columns_apart():
  module = RelativePositionBias(1)
  variables = module.init(jax.random.key(0), (2, 3))
  table = variables['params']['table']
  assert table.shape == (3, 5, 1)
  bias = module.apply(variables, (2, 3))[0, 0]
  # From row 1, column 0 to row 0, column 2: by 1 and by -2.
  assert bias[3, 2] == table[1 + 1, -2 + 2, 0]
  assert bias[2, 3] == table[-1 + 1, 2 + 2, 0]


def test_attention_sees_the_whole_map():
  block = BLOCKS['T'](8)
  variables = jax.jit(block.init)(jax.random.key(1), X)
  run = lambda x: block.apply(variables, x)[0, 0, 0].sum()
  seen = np.abs(jax.jit(jax.grad(run))(X)[0]).max(-1) > 0
  assert seen.all()


def test_the_features_are_the_normed_average():
  model = CoAtNet(**SMALL)
  image = jax.random.normal(jax.random.key(2), (2, 12, 16, 3))
  variables = jax.jit(model.init)(jax.random.key(1), image)
  output = jax.jit(model.apply)(variables, image)
  x = np.asarray(output.pyramid[-1].mean((1, 2)))
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(output.pooled, x, rtol=1e-3, atol=1e-4)


def test_tables_are_resampled_for_images_of_another_size():
  model = CoAtNet(**SMALL)

  def variables(height, width):
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
    return flatten(jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes))

  old, new = variables(16, 16), variables(24, 40)
  table = 'stage_0/block_0/position_bias/table'
  assert old[table].shape == (7, 7, 2)
  fitted = fit(old, new, grid=(6, 10))
  assert fitted[table].shape == (11, 19, 2)
  np.testing.assert_allclose(fitted[table], 1.0, rtol=1e-6)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(depths=(1, 1)), r"depths=\(1, 1\), layout='T'.*for each stage"),
    (dict(layout='X'), "layout='X'.*'C' or 'T'"),
    (dict(pool='max2'), "pool: 'max2'. Did you mean 'max'"),
    (dict(stride_in='dw'), "stride_in: 'dw'.*expand, depthwise"),
    (dict(head_dim=3), 'head_dim=3 does not divide the width 8'),
  ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    model = CoAtNet(**SMALL | fields)
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: '8'.*Known: 0, 1"):
    coatnet.variant('8')
