import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import pvt
from vit_jax.models.pvt import PVT, Block

SMALL = dict(
  widths=(8, 16),
  depths=(1, 1),
  num_heads=(2, 2),
  mlp_ratios=(2, 2),
  reductions=(2, 1),
)
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


def draw(image=IMAGE, **fields):
  """A small model and random parameters."""
  model, rng = PVT(**SMALL | fields), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  value = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(value, params)


def apply(model, params, image=IMAGE):
  return jax.jit(model.apply)({'params': params}, image)


def without_blocks(stage):
  """The parameters of a stage whose blocks add nothing."""
  return stage | {'block_0': jax.tree.map(jnp.zeros_like, stage['block_0'])}


def test_the_parameters_start_as_in_the_reference():
  model = PVT(
    widths=(32,),
    depths=(1,),
    num_heads=(2,),
    mlp_ratios=(2,),
    reductions=(1,),
    num_classes=50,
  )
  params = jax.jit(model.init)(jax.random.key(0), IMAGE)['params']
  block = params['stage_0']['block_0']
  assert set(block) == {'norm1', 'attn', 'norm2', 'mlp'}
  for array in (
    params['stage_0']['pos_embed'],
    block['attn']['q']['kernel'],
    block['attn']['kv']['kernel'],
    block['attn']['out']['kernel'],
    block['mlp']['fc1']['kernel'],
    params['head']['kernel'],
  ):
    np.testing.assert_allclose(array.std(), 0.02, rtol=0.1)
  assert not block['mlp']['fc1']['bias'].any()


def test_only_the_last_stage_has_a_class_token_and_a_position_for_it():
  _, params = draw()
  assert params['stage_0']['pos_embed'].shape == (1, 4, 6, 8)
  assert params['stage_1']['pos_embed'].shape == (1, 1 + 2 * 3, 16)
  assert params['stage_1']['cls'].shape == (1, 1, 16)
  assert 'cls' not in params['stage_0']


def test_the_last_stage_reduces_nothing():
  _, params = draw()
  assert 'reduction' in params['stage_0']['block_0']
  assert 'reduction' not in params['stage_1']['block_0']


def test_a_position_is_that_of_its_token():
  model, params = draw()
  params = params | {'stage_1': without_blocks(params['stage_1'])}
  before = apply(model, params)
  # Row 1, column 2 of 2 x 3 tokens, after the class token.
  moved = params['stage_1']['pos_embed'].at[:, 1 + 3 + 2].add(1.0)
  stage = params['stage_1'] | {'pos_embed': moved}
  after = apply(model, params | {'stage_1': stage})
  difference = np.abs(after.pyramid[1] - before.pyramid[1]).max((0, 3))
  assert np.argwhere(difference > 1e-6).tolist() == [[1, 2]]
  np.testing.assert_array_equal(after.pooled, before.pooled)


def test_the_features_are_the_normed_class_token():
  model, params = draw()
  stage = without_blocks(params['stage_1'])
  # So faint that the epsilon matters.
  stage |= {name: 1e-3 * stage[name] for name in ('cls', 'pos_embed')}
  token = np.asarray(stage['cls'][0, 0] + stage['pos_embed'][0, 0])
  normed = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
  expected = normed * params['norm']['scale'] + params['norm']['bias']
  pooled = apply(model, params | {'stage_1': stage}).pooled
  np.testing.assert_allclose(pooled[0], expected, rtol=1e-3, atol=1e-6)
  np.testing.assert_array_equal(pooled[0], pooled[1])


def test_what_does_not_fill_a_patch_is_left_out():
  image = jax.random.normal(jax.random.key(4), (1, 21, 30, 3))
  model, params = draw(image, num_classes=3)
  whole = apply(model, params, image)
  assert [x.shape for x in whole.pyramid] == [(1, 5, 7, 8), (1, 2, 3, 16)]
  cut = apply(model, params, image[:, :20, :28])
  jax.tree.map(np.testing.assert_array_equal, whole, cut)


def test_drop_path_rises_over_all_stages(monkeypatch):
  rates = []

  def spy(make_block, x, *, drop_path, **_):
    rates.append(drop_path)
    return x

  monkeypatch.setattr(pvt, 'apply_blocks', spy)
  model = PVT(**SMALL | dict(depths=(2, 3), drop_path=0.4))
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  np.testing.assert_allclose(rates, [(0, 0.1), (0.2, 0.4)], rtol=1e-6)


def test_drop_path_drops_both_branches_of_a_block():
  block = Block(num_heads=2, mlp_ratio=2, reduction=2)
  x = jax.random.normal(jax.random.key(2), (4, 4, 6, 8))
  params = jax.eval_shape(block.init, jax.random.key(0), x)
  params = jax.tree.map(lambda x: jnp.ones(x.shape), params)
  drop = functools.partial(block.apply, drop_path=1 - 1e-6, train=True)
  rngs = {'dropout': jax.random.key(1)}
  np.testing.assert_array_equal(drop(params, x, rngs=rngs), x)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'depths': (1,)}, r'depths=\(1,\), .* must all have a number for each'),
    ({'reductions': (2, 2)}, r'reductions=\(2, 2\) must end with 1'),
    ({'num_heads': (3, 2)}, 'num_heads=3 does not divide width=8'),
    ({'reductions': (8, 1)}, '4x6 is smaller than its reduction of 8x8'),
    ({'patch_size': 12}, '1x2 is smaller than its reduction of 2x2'),
  ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    draw(**fields)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'XL'.*Known: T, S, M, L"):
    pvt.variant('XL')
