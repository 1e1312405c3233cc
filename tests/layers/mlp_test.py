import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vit_jax.layers.mlp import GELU, Mlp
from vit_jax.ops.place import Place, placed


def test_the_mlp_is_dense_gelu_dense():
  x = jax.random.normal(jax.random.key(0), (2, 3, 8))
  module = Mlp(16, gelu='erf')
  params = module.init(jax.random.key(1), x)['params']
  first, second = (
    jax.tree.map(lambda x: np.asarray(x, np.float64), params[name])
    for name in ('fc1', 'fc2')
  )
  hidden = np.asarray(x) @ first['kernel'] + first['bias']
  hidden *= 0.5 * (1 + special.erf(hidden / np.sqrt(2)))
  expected = hidden @ second['kernel'] + second['bias']
  np.testing.assert_allclose(
    module.apply({'params': params}, x), expected, rtol=1e-4, atol=1e-6
  )


def test_tanh_and_erf_differ_by_less_than_a_thousandth():
  x = jnp.linspace(-3, 3, 32).reshape(1, 1, 32)
  params = Mlp(32).init(jax.random.key(0), x)
  tanh, erf = (Mlp(32, gelu=kind).apply(params, x) for kind in ('tanh', 'erf'))
  assert 0 < jnp.abs(tanh - erf).max() < 5e-3


def test_kernels_are_xavier_and_biases_almost_zero():
  params = Mlp(64).init(jax.random.key(0), jnp.ones((1, 32)))['params']
  bound = np.sqrt(6 / (32 + 64))
  for name in ('fc1', 'fc2'):
    assert 0.98 * bound < jnp.abs(params[name]['kernel']).max() <= bound
    assert 0 < jnp.abs(params[name]['bias']).max() < 1e-5


def test_dropout_strikes_both_layers_and_in_training_only():
  x = jnp.ones((64, 32))
  module = Mlp(32, dropout=0.5)
  params = module.init(jax.random.key(0), x)
  rngs = {'dropout': jax.random.key(1)}
  noisy = module.apply(params, x, train=True, rngs=rngs)
  np.testing.assert_allclose((noisy == 0).mean(), 0.5, atol=0.06)
  # What the second dropout spares still varies: the first was at work too.
  kept = np.ma.masked_equal(np.asarray(noisy), 0)
  assert kept.std(axis=0).min() > 0.01
  quiet = module.apply(params, x)
  np.testing.assert_array_equal(quiet, jnp.broadcast_to(quiet[:1], quiet.shape))


def test_an_unknown_gelu_is_refused():
  with pytest.raises(ValueError, match="gelu: 'tan'.*'tanh'"):
    Mlp(8, gelu='tan').init(jax.random.key(0), jnp.ones((1, 8)))


def test_the_quick_gelu_is_a_sigmoid():
  x = jnp.linspace(-6, 6, 25)[None]
  quick, exact = GELU['quick'](x), GELU['erf'](x)
  np.testing.assert_allclose(
    quick, x * special.expit(1.702 * np.asarray(x)), rtol=1e-4, atol=1e-6
  )
  assert 0.01 < jnp.abs(quick - exact).max() < 0.021


@pytest.mark.parametrize('kind', sorted(GELU))
def test_a_gelu_is_as_exact_in_16_bits_as_these_allow(kind):
  x = jnp.linspace(-6, 6, 997)[None]
  half = x.astype(jnp.bfloat16)
  wide = GELU[kind](half.astype(jnp.float32))
  # Only the exact one takes care of the far end, where it is small.
  rtol, atol = (0.01, 1e-6) if kind == 'erf' else (0.02, 0.004)
  np.testing.assert_allclose(
    GELU[kind](half).astype(jnp.float32), wide, rtol=rtol, atol=atol
  )


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu'])
def test_the_mlp_is_the_same_wherever_it_runs(platform):
  x = jax.random.normal(jax.random.key(0), (2, 3, 8))
  module = Mlp(16)
  params = module.init(jax.random.key(1), x)
  loss = lambda params: jnp.sum(module.apply(params, x) ** 2)
  expected = jax.grad(loss)(params)
  device = types.SimpleNamespace(platform=platform)
  with placed(Place(device, None, lambda f: f)):
    # JAX remembers what it traced, by the function.
    here = lambda params: loss(params)
    program = str(jax.make_jaxpr(here)(params))
    assert ('f32[6,16]' in program) == (platform != 'tpu')
    assert ('prevent_cse' in program) == (platform == 'gpu')
    gradient = jax.grad(here)(params)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
    gradient,
    expected,
  )
