import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.layers.norm import LayerScale


def test_layer_scale_multiplies_each_channel():
  x = jax.random.normal(jax.random.key(0), (2, 3, 4))
  variables = LayerScale(1e-4).init(jax.random.key(1), x)
  np.testing.assert_allclose(variables['params']['scale'], np.full(4, 1e-4))
  scale = jnp.arange(4.0)
  scaled = LayerScale(1e-4).apply({'params': {'scale': scale}}, x)
  np.testing.assert_allclose(scaled, np.asarray(x) * np.arange(4.0), rtol=1e-6)
