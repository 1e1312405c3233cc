import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.layers.squeeze_excite import SqueezeExcite

X = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def test_channels_are_scaled_by_what_their_averages_say():
  module = SqueezeExcite(2)
  shapes = jax.eval_shape(module.init, jax.random.key(0), X)['params']
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(size=x.shape), shapes)
  hidden = np.asarray(X).mean((1, 2)) @ params['reduce']['kernel']
  hidden += params['reduce']['bias']
  gate = hidden * sigmoid(hidden) @ params['expand']['kernel']
  gate = sigmoid(gate + params['expand']['bias'])
  np.testing.assert_allclose(
    module.apply({'params': jax.tree.map(jnp.asarray, params)}, X),
    np.asarray(X) * gate[:, None, None],
    rtol=1e-5,
    atol=1e-6,
  )
