import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.layers.peg import PEG

SHAPE = (2, 6, 7, 3)


def draw():
  """The module, random parameters and a random map."""
  module, keys = PEG(), jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], SHAPE)
  conv = {
    'kernel': jax.random.normal(keys[1], (3, 3, 1, 3)),
    'bias': jax.random.normal(keys[2], (3,)),
  }
  return module, {'params': {'depthwise': conv}}, x


def test_positions_are_a_convolution_of_each_channel_between_zeros():
  module, params, x = draw()
  kernel, bias = params['params']['depthwise'].values()
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  expected = np.asarray(x) + np.asarray(bias)
  for i in range(3):
    for j in range(3):
      expected += padded[:, i : i + 6, j : j + 7] * np.asarray(kernel[i, j, 0])
  actual = module.apply(params, x)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_only_the_edges_tell_where_a_token_stands():
  module, params, x = draw()
  out = np.asarray(module.apply(params, jnp.ones(SHAPE)))
  inside = out[:, 1:-1, 1:-1]
  np.testing.assert_allclose(
    inside, np.broadcast_to(inside[:, :1, :1], inside.shape), rtol=1e-5
  )
  for edge in (out[:, 0], out[:, -1], out[:, :, 0], out[:, :, -1]):
    assert np.abs(edge - inside[:, 0, :1]).min() > 1e-3


def test_the_filters_start_as_in_twins():
  params = PEG().init(jax.random.key(0), jnp.zeros((1, 3, 3, 512)))['params']
  np.testing.assert_allclose(
    params['depthwise']['kernel'].std(), (2 / 9) ** 0.5, rtol=0.05
  )
  assert not params['depthwise']['bias'].any()
