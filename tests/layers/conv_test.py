import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.layers.conv import StdConv


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
