import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import swin_v2
from vit_jax.models.swin_v2 import (
  Block,
  ContinuousPositionBias,
  CosineAttention,
  SwinV2,
  direction,
  log_coordinates,
)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def test_a_block_starts_as_the_identity_and_drop_path_makes_it_one():
  block, x = Block(num_heads=2, window_size=2), normal(0, 2, 4, 6, 8)
  params = jax.jit(block.init)(jax.random.key(0), x)
  evaluate = jax.jit(functools.partial(block.apply, shifted=True))
  np.testing.assert_array_equal(evaluate(params, x), x)
  params = jax.tree.map(lambda x: x + 0.1, params)
  assert jnp.abs(evaluate(params, x) - x).max() > 0.01
  drop = functools.partial(block.apply, drop_path=1 - 1e-6, train=True)
  rngs = {'dropout': jax.random.key(1)}
  np.testing.assert_array_equal(jax.jit(drop)(params, x, rngs=rngs), x)


def cosine_attention():
  """Initial parameters, and a function of them, over 5 tokens."""
  module, tokens = CosineAttention(num_heads=2), normal(0, 2, 5, 8)
  bias = jnp.zeros((1, 2, 5, 5))
  init, run = (
    jax.jit(functools.partial(f, bias=bias))
    for f in (module.init, module.apply)
  )
  params = init(jax.random.key(1), tokens)['params']
  return params, lambda params: run({'params': params}, tokens)


def test_the_length_of_queries_and_keys_does_not_matter():
  params, run = cosine_attention()
  kernel = params['qkv']['kernel']
  longer = {'qkv': {'kernel': kernel.at[:, :2].multiply(7.0)}}
  np.testing.assert_allclose(
    run(params | longer), run(params), rtol=1e-4, atol=1e-6
  )
  assert params['q_bias'].shape == params['v_bias'].shape == (2, 4)
  np.testing.assert_allclose(np.exp(params['logit_scale']), 10, rtol=1e-5)


def test_the_scale_of_the_cosine_is_at_most_100():
  params, run = cosine_attention()
  at = lambda scale: run(params | {'logit_scale': jnp.full(2, np.log(scale))})
  np.testing.assert_allclose(at(300.0), at(100.0), rtol=1e-4, atol=1e-6)
  assert jnp.abs(at(100.0) - at(30.0)).max() > 1e-5


def test_a_vector_of_zeros_has_no_direction_and_a_finite_gradient():
  x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(direction(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
  grad = jax.grad(lambda x: direction(x).sum())(x)
  assert jnp.isfinite(grad).all()


def test_distances_are_measured_in_the_windows_of_the_pretraining():
  small = log_coordinates((3, 2), unit=None)
  assert small.shape == (5, 3, 2)
  np.testing.assert_allclose(small[0, 2], [-np.log2(9) / 3, np.log2(9) / 3])
  np.testing.assert_allclose(small[3, 1], [np.log2(5) / 3, 0])
  np.testing.assert_allclose(
    log_coordinates((5, 5), unit=3)[2:7, 3:6],
    log_coordinates((3, 2), unit=3),
    rtol=1e-6,
  )
  assert np.isfinite(log_coordinates((1, 4), unit=None)).all()


def test_the_bias_lies_between_0_and_16():
  module = ContinuousPositionBias(num_heads=2)
  params = jax.jit(module.init, static_argnums=1)(jax.random.key(0), (3, 4))
  np.testing.assert_allclose(module.apply(params, (3, 4)), 8, atol=0.5)
  for value, limit in ((1.0, 16), (-1.0, 0)):
    large = jax.tree.map(jnp.ones_like, params['params'])
    large['fc2']['kernel'] *= value
    bias = module.apply({'params': large}, (2, 2))
    np.testing.assert_allclose(bias[0, :, 2, 1], limit, atol=1e-3)


def test_each_stage_measures_in_its_own_windows():
  model = SwinV2(8, (1, 1), (2, 4), 3, pretrained_windows=(3, 2))
  image, rng = normal(0, 1, 24, 24, 3), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), image)
  draw = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  params = jax.tree.map(draw, params)
  maps, reference = (
    jax.jit(model.clone(pretrained_windows=windows).apply)(params, image)
    for windows in (model.pretrained_windows, None)
  )
  first, second = zip(maps.pyramid, reference.pyramid, strict=True)
  np.testing.assert_allclose(*first, rtol=1e-5)
  assert jnp.abs(second[0] - second[1]).max() > 1e-4


@pytest.mark.parametrize('name', ['T/7', 'B/16to12', 'T/12to16'])
def test_an_unpublished_variant_is_answered_by_the_known(name):
  with pytest.raises(ValueError, match=f"variant: '{name}'.*Known: T/8, T/16"):
    swin_v2.variant(name)
