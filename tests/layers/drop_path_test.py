import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.drop_path import (
  DropPath,
  drop_path,
  linear_rates,
  stage_rates,
)


@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(rate=st.floats(0, 0.9), seed=st.integers(0, 2**31 - 1))
def test_drop_path_keeps_the_mean(rate, seed):
  x = jnp.ones((4096, 1))
  mean = drop_path(x, rate=rate, rng=jax.random.key(seed)).mean()
  deviation = np.sqrt(rate / (1 - rate) / len(x))
  assert abs(mean - 1) <= 6 * deviation + 1e-5


def test_an_example_is_dropped_as_a_whole():
  x = jnp.ones((256, 2, 3))
  dropped = drop_path(x, rate=0.25, rng=jax.random.key(0)).reshape(256, -1)
  np.testing.assert_array_equal(dropped.min(1), dropped.max(1))
  np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)


def test_the_rate_may_be_traced_and_the_dtype_stays():
  x, rng = jnp.ones((64, 2), jnp.bfloat16), jax.random.key(0)
  traced = jax.jit(lambda rate: drop_path(x, rate=rate, rng=rng))(0.5)
  assert traced.dtype == jnp.bfloat16
  np.testing.assert_array_equal(traced, drop_path(x, rate=0.5, rng=rng))


def test_the_gradient_is_finite_where_an_example_is_dropped():
  x, rng = jnp.ones((64, 2)), jax.random.key(0)
  grad = jax.grad(lambda x: drop_path(x, rate=0.5, rng=rng).sum())(x)
  np.testing.assert_array_equal(grad, drop_path(x, rate=0.5, rng=rng))


def test_the_module_is_the_identity_in_evaluation():
  x = jnp.ones((64, 2))
  np.testing.assert_array_equal(DropPath().apply({}, x, rate=0.5), x)
  np.testing.assert_array_equal(
    DropPath().apply({}, x, rate=None, train=True), x
  )
  rngs = {'dropout': jax.random.key(0)}
  dropped = DropPath().apply({}, x, rate=0.5, train=True, rngs=rngs)
  assert set(np.unique(dropped)) == {0.0, 2.0}


def test_rates_rise_linearly_from_zero():
  np.testing.assert_allclose(linear_rates(0.3, depth=4), [0, 0.1, 0.2, 0.3])
  assert linear_rates(0.0, depth=4) is None


def test_rates_may_be_the_same_for_all_blocks():
  assert linear_rates((0.2, 0.2), depth=3) == [0.2] * 3
  assert linear_rates([0.0, 0.3], depth=4) == linear_rates(0.3, depth=4)
  assert linear_rates((0.0, 0.0), depth=4) is None


@pytest.mark.parametrize('rate', [1.0, -0.1, (0.1, 1.0), (1.0, 0.1)])
def test_a_rate_that_is_no_probability_is_refused(rate):
  with pytest.raises(ValueError, match=r'drop_path=.* must lie in \[0, 1\)'):
    linear_rates(rate, depth=4)


def test_the_rates_of_stages_rise_over_all_blocks():
  rates = stage_rates(0.4, depths=(2, 1, 2))
  np.testing.assert_allclose(rates, [(0, 0.1), (0.2, 0.2), (0.3, 0.4)])
  assert stage_rates(0.0, depths=(1, 3)) == [(0, 0), (0, 0)]
