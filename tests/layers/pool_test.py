import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.layers.pool import MAPHead


def test_the_pooled_feature_ignores_the_order_of_the_tokens():
  tokens = jax.random.normal(jax.random.key(0), (2, 5, 8))
  module = MAPHead(num_heads=2, mlp_dim=16)
  params = module.init(jax.random.key(1), tokens)
  pooled = module.apply(params, tokens)
  assert pooled.shape == (2, 8)
  np.testing.assert_allclose(
    module.apply(params, tokens[:, ::-1]), pooled, rtol=1e-4, atol=1e-5
  )


def test_the_probe_decides_what_is_looked_at():
  tokens = jax.random.normal(jax.random.key(0), (2, 5, 8))
  module = MAPHead(num_heads=2, mlp_dim=16)
  params = module.init(jax.random.key(1), tokens)
  other = {'params': {**params['params'], 'probe': 3 * jnp.ones((1, 1, 8))}}
  difference = module.apply(other, tokens) - module.apply(params, tokens)
  assert jnp.abs(difference).max() > 1e-3
