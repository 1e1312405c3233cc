import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.conv import ConvBN, StdConv


def test_the_weights_are_standardised_over_each_filter():
  # A one-hot image reads the effective filter back.
  image = jnp.zeros((2, 3, 3, 2))
  image = image.at[0, 1, 1, 0].set(1.0).at[1, 1, 1, 1].set(1.0)
  module = StdConv(4, 3)
  params = module.init(jax.random.key(0), image)
  weights = np.asarray(module.apply(params, image)).reshape(-1, 4)  # (18, 4)
  np.testing.assert_allclose(weights.mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(weights.std(0), 1, rtol=1e-3)


def test_scaling_the_weights_changes_nothing():
  image = jax.random.normal(jax.random.key(0), (1, 5, 5, 3))
  module = StdConv(4, 3)
  params = module.init(jax.random.key(1), image)
  np.testing.assert_allclose(
    module.apply(jax.tree.map(lambda x: 100 * x, params), image),
    module.apply(params, image),
    rtol=1e-3,
    atol=1e-4,
  )


def test_a_stride_rounds_up():
  image = jnp.ones((1, 5, 8, 3))
  module = StdConv(4, 3, stride=2)
  params = module.init(jax.random.key(0), image)
  assert module.apply(params, image).shape == (1, 3, 4, 4)


def of_ones(x, **fields):
  """A ConvBN of ones and a norm that changes next to nothing."""
  module = ConvBN(1, 3, **{'epsilon': 1e-5, **fields})
  shapes = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, train=False), x
  )
  ones = jax.tree.map(jnp.ones_like, shapes['params'])
  bias = jnp.zeros_like(ones['norm']['bias'])
  params = ones | {'norm': ones['norm'] | {'bias': bias}}
  stats = {'norm': {'mean': jnp.zeros(1), 'var': jnp.ones(1)}}
  return module, {'params': params, 'batch_stats': stats}


@pytest.mark.parametrize(
  ('same_padding', 'seen'),
  [(False, [2, 3, 3]), (True, [3, 3, 2])],
)
def test_the_odd_zero_stands_first_or_last(same_padding, seen):
  x = jnp.ones((1, 6, 6, 1))
  module, variables = of_ones(x, stride=2, same_padding=same_padding)
  y = module.apply(variables, x, train=False)[0, :, :, 0]
  np.testing.assert_allclose(y, np.outer(seen, seen), rtol=1e-4)


def test_a_batch_is_normed_by_itself_and_moves_the_running_statistics():
  x = jax.random.normal(jax.random.key(0), (4, 5, 7, 1))
  module, variables = of_ones(x, momentum=0.8, epsilon=0.5)
  kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
  variables['params']['conv'] = {'kernel': kernel}
  y, after = module.apply(variables, x, train=True, mutable=['batch_stats'])
  mean, var = np.mean(x), np.var(x)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  close(y, (x - mean) / np.sqrt(var + 0.5))
  stats = jax.tree.map(np.asarray, after['batch_stats']['norm'])
  close(stats['mean'], 0.2 * mean)
  close(stats['var'], 0.8 + 0.2 * var)
  # In evaluation they are used, and stay.
  used = variables | after
  y = module.apply(used, x, train=False)
  close(y, (np.asarray(x) - stats['mean']) / np.sqrt(stats['var'] + 0.5))


def test_groups_do_not_see_each_other():
  x = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
  module = ConvBN(4, 3, groups=4)
  variables = module.init(jax.random.key(1), x, train=False)
  changed = x.at[..., 0].add(1.0)
  before, after = (
    module.apply(variables, x, train=False) for x in (x, changed)
  )
  moved = np.abs(before - after).max((0, 1, 2)) > 1e-6
  np.testing.assert_array_equal(moved, [True, False, False, False])
