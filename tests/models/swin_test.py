import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import swin
from vit_jax.models.swin import Block, RelativePositionBias, Swin, gather_2x2

SMALL = dict(width=8, depths=(2, 1), num_heads=(2, 2), window_size=2)
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


def draw(image=IMAGE, **fields):
  """A small model and random parameters."""
  model, rng = Swin(**SMALL | fields), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  value = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(value, params)


def apply(model, params, image=IMAGE):
  return jax.jit(model.apply)({'params': params}, image)


def reach(model, params, *, row, column, image=IMAGE):
  """Tokens of the finest map that see a change of one of the patches."""
  patch = np.s_[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
  # Not the same for all pixels: a norm would take that away again.
  changed = image.at[patch].multiply(-1.0)
  before, after = (apply(model, params, x) for x in (image, changed))
  difference = jnp.abs(after.pyramid[0] - before.pyramid[0]).max((0, 3))
  return {tuple(x) for x in np.argwhere(difference > 1e-6).tolist()}


def test_the_parameters_start_as_in_the_reference():
  block = Block(num_heads=8, window_size=4)
  x = jnp.zeros((1, 4, 4, 32))
  params = jax.jit(block.init)(jax.random.key(0), x)['params']
  assert set(params) == {'norm1', 'attn', 'position_bias', 'norm2', 'mlp'}
  for array in (
    params['attn']['qkv']['kernel'],
    params['attn']['out']['kernel'],
    params['mlp']['fc1']['kernel'],
    params['position_bias']['table'],
  ):
    np.testing.assert_allclose(array.std(), 0.02, rtol=0.1)
  assert not params['mlp']['fc1']['bias'].any()


def test_merging_stands_before_all_stages_but_the_first():
  _, params = draw()
  assert set(params['stage_0']) == {'block_0', 'block_1'}
  assert set(params['stage_1']) == {'merging', 'block_0'}
  assert params['stage_1']['merging']['reduction'].keys() == {'kernel'}


def test_norms_have_the_epsilon_of_the_reference():
  model, params = draw(depths=(), num_heads=())
  params = jax.tree.map(jnp.ones_like, params)
  kernel = jnp.broadcast_to(jnp.arange(8.0), (4, 4, 3, 8))
  params['patch_embed']['proj']['kernel'] = kernel
  # So that the variance that the last norm sees is not far from epsilon.
  params['patch_norm'] = {'scale': jnp.full(8, 3e-3), 'bias': jnp.zeros(8)}
  normed = (np.arange(8) - 3.5) / np.arange(8).std()
  expected = 3e-3 * normed / np.sqrt(9e-6 + 1e-5) + 1
  (pooled,) = apply(model, params, jnp.ones((1, 4, 4, 3))).pooled
  np.testing.assert_allclose(pooled, expected, rtol=1e-3)


def test_unshifted_windows_keep_to_themselves():
  model, params = draw(depths=(1,), num_heads=(2,))
  expected = {(2, 2), (2, 3), (3, 2), (3, 3)}
  assert reach(model, params, row=2, column=3) == expected


def test_shifted_windows_connect_neighbours_but_not_the_far_ends():
  model, params = draw(depths=(2,), num_heads=(2,))
  corner = {(0, 0), (0, 1), (1, 0), (1, 1)}
  beyond = {(0, 2), (2, 0), (1, 2), (2, 1), (2, 2)}
  assert reach(model, params, row=0, column=0) == corner | beyond


def test_any_image_fits_any_parameters():
  model, params = draw(num_classes=3)
  for size in [(4, 4), (7, 33), (21, 10), (30, 30)]:
    image = jnp.ones((1, *size, 3))
    fresh = jax.eval_shape(model.init, jax.random.key(0), image)['params']
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, params)
    run = functools.partial(model.apply, {'params': params})
    output = jax.eval_shape(run, image)
    fine = -(-size[0] // 4), -(-size[1] // 4)
    coarse = -(-size[0] // 8), -(-size[1] // 8)
    shapes = [x.shape for x in output.pyramid]
    assert shapes == [(1, *fine, 8), (1, *coarse, 16)]


def test_a_shrunk_window_reads_the_middle_of_its_table():
  module = RelativePositionBias(num_heads=2, window_size=4)
  table = jax.random.normal(jax.random.key(0), (7, 7, 2))
  params = {'params': {'table': table}}
  full = module.apply(params, (4, 4)).reshape(2, 4, 4, 4, 4)
  shrunk = module.apply(params, (2, 3)).reshape(2, 2, 3, 2, 3)
  np.testing.assert_array_equal(shrunk, full[:, :2, :3, :2, :3])


def test_merged_tokens_go_down_the_left_column_first():
  x = jnp.arange(8.0).reshape(1, 2, 2, 2)
  np.testing.assert_array_equal(
    gather_2x2(x)[0, 0, 0], [0, 1, 4, 5, 2, 3, 6, 7]
  )


def test_the_features_are_the_average_of_the_normed_tokens():
  model, params = draw()
  output = apply(model, params)
  x = np.asarray(output.pyramid[-1])
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  scale, bias = params['norm']['scale'], params['norm']['bias']
  expected = x.mean((1, 2)) * np.asarray(scale) + np.asarray(bias)
  np.testing.assert_allclose(output.pooled, expected, rtol=1e-3, atol=1e-4)


def test_drop_path_rises_over_all_stages(monkeypatch):
  rates = []

  def spy(make_block, x, *, drop_path, **_):
    rates.append(drop_path)
    return x

  monkeypatch.setattr(swin, 'apply_blocks', spy)
  model = Swin(**SMALL | dict(depths=(2, 3), drop_path=0.4))
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  np.testing.assert_allclose(rates, [(0, 0.1), (0.2, 0.4)], rtol=1e-6)


def test_drop_path_drops_both_branches_of_a_block():
  model, params = draw()
  block, rngs = (
    Block(num_heads=2, window_size=2),
    {'dropout': jax.random.key(1)},
  )
  drop = functools.partial(block.apply, drop_path=1 - 1e-6, train=True)
  x = jnp.ones((4, 4, 4, 8))
  params = {'params': params['stage_0']['block_0']}
  np.testing.assert_array_equal(jax.jit(drop)(params, x, rngs=rngs), x)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'num_heads': (2,)}, r'depths=\(2, 1\) and num_heads=\(2,\) must have a'),
    ({'num_heads': (2, 3)}, 'num_heads=3 does not divide width=16'),
    ({'drop_path': 1.5}, r'drop_path=1.5 must lie in \[0, 1\)'),
  ],
)
def test_a_field_without_a_meaning_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    draw(**fields)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'T/8'. Did you mean 'T/7'"):
    swin.variant('T/8')
