import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.reduction import SpatialReduction


def draw(shape, *, ratio):
  """The module, random parameters and a random map."""
  module, rng = SpatialReduction(ratio), np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=shape), jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), x)
  value = lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32)
  return module, jax.tree.map(value, params), x


def test_each_token_stands_for_one_group_row_by_row():
  module, params, x = draw((1, 4, 6, 3), ratio=2)
  before = module.apply(params, x)
  after = module.apply(params, x.at[:, 3, 2].multiply(-1.0))
  assert before.shape == (1, 6, 3)
  changed = np.flatnonzero(np.abs(after - before).max((0, 2)) > 1e-4)
  np.testing.assert_array_equal(changed, [4])


def test_what_does_not_fill_a_group_is_left_out():
  module, params, x = draw((2, 7, 8, 3), ratio=3)
  np.testing.assert_array_equal(
    module.apply(params, x), module.apply(params, x[:, :6, :6])
  )


def test_tokens_are_normed_with_the_epsilon_of_the_reference():
  module, params, x = draw((1, 2, 2, 4), ratio=2)
  conv, scale = params['params']['proj'], params['params']['norm']
  # So faint that the variance is not far from epsilon.
  faint = jax.tree.map(lambda x: 1e-3 * x, conv)
  y = np.einsum('yxc,yxcd->d', x[0], faint['kernel']) + faint['bias']
  normed = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
  expected = normed * scale['scale'] + scale['bias']
  actual = module.apply({'params': {'proj': faint, 'norm': scale}}, x)
  np.testing.assert_allclose(actual[0, 0], expected, rtol=1e-3, atol=1e-4)


def test_a_map_below_one_group_is_refused():
  with pytest.raises(ValueError, match='4x3 is smaller .* of 4x4: enlarge'):
    draw((1, 4, 3, 2), ratio=4)
