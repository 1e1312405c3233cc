import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models.resnet_v1 import ResNet, Unit


@pytest.mark.parametrize(
  ('units', 'stride', 'channels'),
  [
    ((), 4, 64),
    ((1,), 4, 256),
    ((2, 2, 2, 2), 32, 2048),
    ((3, 4, 9), 16, 1024),
  ],
)
def test_stages_halve_the_map_and_double_the_channels(units, stride, channels):
  image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
  shape, _ = jax.eval_shape(
    ResNet(units).init_with_output, jax.random.key(0), image
  )
  assert shape.shape == (2, 64 // stride, 96 // stride, channels)


def test_a_unit_begins_as_its_shortcut():
  x = jax.random.normal(jax.random.key(0), (1, 4, 4, 128))
  unit = Unit(32)
  params = jax.jit(unit.init)(jax.random.key(1), x)
  assert 'conv_proj' not in params['params']
  np.testing.assert_allclose(jax.jit(unit.apply)(params, x), jnp.maximum(x, 0))


def test_convolutions_have_no_bias():
  x = jax.ShapeDtypeStruct((1, 4, 4, 64), jnp.float32)
  params = jax.eval_shape(Unit(32, stride=2).init, jax.random.key(0), x)
  for name, module in params['params'].items():
    assert ('bias' in module) == name.startswith('gn')
