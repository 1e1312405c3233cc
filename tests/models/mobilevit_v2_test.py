import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import mobilevit_v2
from vit_jax.models.mobilevit_v2 import (
  Block,
  MobileViTV2,
  SeparableAttention,
  resize,
)

SMALL = dict(widths=(16, 8), residuals=(1,), depths=(1,))
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


def test_attention_multiplies_values_by_one_context():
  module = SeparableAttention()
  x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
  params = jax.jit(module.init)(jax.random.key(1), x)['params']
  y = jax.jit(module.apply)({'params': params}, x)
  qkv, out = (
    jax.tree.map(lambda a: np.asarray(a, np.float64), params[name])
    for name in ('qkv', 'out')
  )
  scores, keys, values = np.split(
    np.asarray(x) @ qkv['kernel'] + qkv['bias'], [1, 5], axis=-1
  )
  for i in range(2):
    for p in range(3):
      weights = np.exp(scores[i, p, :, 0])
      context = (weights / weights.sum()) @ keys[i, p]
      mixed = np.maximum(values[i, p], 0) * context
      expected = mixed @ out['kernel'] + out['bias']
      np.testing.assert_allclose(y[i, p], expected, rtol=1e-3, atol=1e-5)


def test_scores_are_normed_in_float32():
  module = SeparableAttention()
  x = jnp.ones((1, 1, 4096, 2), jnp.bfloat16)
  params = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  params = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.bfloat16), params)
  # Keys and values are 1, and what comes out is the context.
  params['qkv']['bias'] = jnp.array([0, 1, 1, 1, 1], jnp.bfloat16)
  params['out']['kernel'] = jnp.eye(2, dtype=jnp.bfloat16)
  y = jax.jit(module.apply)({'params': params}, x)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(jnp.float32), 1.0, rtol=0.01)


def test_a_norm_takes_all_tokens_and_channels_together():
  block = Block()
  x = 5 + 3 * jax.random.normal(jax.random.key(0), (2, 4, 6, 8))
  x = x.at[1].multiply(7.0)
  variables = jax.jit(block.init)(jax.random.key(1), x)
  run = functools.partial(
    block.apply, capture_intermediates=True, mutable=['intermediates']
  )
  _, captured = jax.jit(run)(variables, x)
  (normed,) = captured['intermediates']['norm1']['__call__']
  np.testing.assert_allclose(normed.mean((1, 2, 3)), 0, atol=1e-4)
  np.testing.assert_allclose(normed.std((1, 2, 3)), 1, rtol=1e-2)
  assert np.abs(normed.mean((1, 3))).max() > 0.01
  assert np.abs(normed.mean((1, 2))).max() > 0.01


def test_resizing_puts_corners_on_corners():
  x = jnp.array([[0.0, 1.0, 2.0], [6.0, 7.0, 8.0], [12.0, 13.0, 14.0]])
  x = x.reshape(1, 3, 3, 1)
  np.testing.assert_allclose(
    resize(x, size=(4, 4))[0, :, :, 0],
    np.linspace(0, 12, 4)[:, None] + np.linspace(0, 2, 4),
    rtol=1e-4,
    atol=1e-6,
  )
  assert resize(x, size=(3, 3)) is x
  np.testing.assert_array_equal(
    resize(x[:, :1, :1] + 1, size=(2, 2)), jnp.ones((1, 2, 2, 1))
  )


@pytest.mark.parametrize(
  ('size', 'fine', 'coarse'),
  [
    ((1, 1), (1, 1), (2, 2)),
    ((9, 33), (5, 17), (4, 10)),
    ((16, 8), (8, 4), (4, 2)),
  ],
)
def test_any_image_fits_any_parameters_and_maps_become_even(size, fine, coarse):
  model = MobileViTV2(**SMALL)
  fresh = lambda image: jax.eval_shape(model.init, jax.random.key(0), image)
  image = jnp.ones((1, *size, 3))
  assert fresh(image) == fresh(IMAGE)
  output = jax.eval_shape(model.apply, fresh(image), image)
  assert [x.shape for x in output.pyramid] == [
    (1, *fine, 16),
    (1, *coarse, 8),
  ]
  assert output.pooled.shape == (1, 8)


def test_drop_path_rises_over_all_transformers(monkeypatch):
  rates = []

  def spy(make_block, tokens, *, drop_path, **_):
    rates.append(drop_path)
    return tokens

  monkeypatch.setattr(mobilevit_v2, 'apply_blocks', spy)
  model = MobileViTV2((8,) * 3, residuals=(1,), depths=(2, 3), drop_path=0.4)
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  np.testing.assert_allclose(rates, [(0, 0.1), (0.2, 0.4)], rtol=1e-6)


def test_all_widths_follow_from_one_number():
  assert mobilevit_v2.variant('0.75')['widths'] == (48, 96, 192, 288, 384)
  params = jax.eval_shape(MobileViTV2(**SMALL).init, jax.random.key(0), IMAGE)[
    'params'
  ]
  assert params['stem']['conv']['kernel'].shape == (3, 3, 3, 8)
  assert params['stage_1']['mixer']['to_tokens']['kernel'].shape == (1, 1, 8, 4)


def test_fields_that_do_not_fit_are_refused():
  model = MobileViTV2(**SMALL | {'depths': (1, 1)})
  with pytest.raises(ValueError, match=r'widths=.* and of depths=\(1, 1\)'):
    jax.eval_shape(model.init, jax.random.key(0), IMAGE)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: '3.0'.*Known: 0.5, 0.75"):
    mobilevit_v2.variant('3.0')
