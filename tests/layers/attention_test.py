import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.attention import CrossAttention, MultiHeadAttention


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(order=st.permutations(range(5)))
def test_attention_without_positions_is_permutation_equivariant(order):
  tokens, order = normal(0, 2, 5, 8), np.array(order)
  module = MultiHeadAttention(num_heads=2)
  variables = module.init(jax.random.key(1), tokens)
  np.testing.assert_allclose(
    module.apply(variables, tokens[:, order]),
    module.apply(variables, tokens)[:, order],
    rtol=1e-4,
    atol=1e-5,
  )


def test_query_key_and_value_are_each_xavier_uniform():
  module = MultiHeadAttention(num_heads=4)
  params = module.init(jax.random.key(0), jnp.zeros((1, 2, 32)))['params']
  assert params['qkv']['kernel'].shape == (32, 3, 4, 8)
  assert params['qkv']['bias'].shape == (3, 4, 8)
  assert params['out']['kernel'].shape == (4, 8, 32)
  assert params['out']['bias'].shape == (32,)
  bound = np.sqrt(6 / (32 + 32))
  kernels = [params['qkv']['kernel'][:, i] for i in range(3)]
  for kernel in [*kernels, params['out']['kernel']]:
    assert 0.98 * bound < jnp.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.1)


def test_cross_attention_to_oneself_is_self_attention():
  tokens = normal(0, 2, 5, 8)
  module = MultiHeadAttention(num_heads=2)
  params = module.init(jax.random.key(1), tokens)['params']
  params['qkv']['bias'] = normal(2, 3, 2, 4)
  cross = {
    'q': {k: v[0 if k == 'bias' else np.s_[:, 0]] for k, v in
          params['qkv'].items()},
    'kv': {k: v[np.s_[1:] if k == 'bias' else np.s_[:, 1:]] for k, v in
           params['qkv'].items()},
    'out': params['out'],
  }  # fmt: skip
  np.testing.assert_allclose(
    CrossAttention(num_heads=2).apply({'params': cross}, tokens, tokens),
    module.apply({'params': params}, tokens),
    rtol=1e-5,
    atol=1e-6,
  )


def test_a_context_may_have_another_width():
  module, query, context = (
    CrossAttention(2),
    normal(0, 2, 3, 8),
    normal(1, 2, 5, 6),
  )
  params = module.init(jax.random.key(0), query, context)
  assert module.apply(params, query, context).shape == (2, 3, 8)


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(
    ValueError, match=r'num_heads=3 .*width=8.*\[1, 2, 4, 8\]'
  ):
    MultiHeadAttention(num_heads=3).init(jax.random.key(0), jnp.ones((1, 2, 8)))


def test_heads_share_the_width_that_comes_out():
  tokens, module = normal(0, 2, 5, 8), MultiHeadAttention(3, width=12)
  out, variables = module.init_with_output(jax.random.key(1), tokens)
  assert out.shape == (2, 5, 12)
  assert variables['params']['qkv']['kernel'].shape == (8, 3, 3, 4)
  assert variables['params']['out']['kernel'].shape == (3, 4, 12)
