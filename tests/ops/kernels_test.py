import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.ops import flops
from vit_jax.ops.kernels import KERNELS, choose_kernel, dot_product_attention


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def softmax_by_hand(query, key, value, *, bias=0.0):
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  logits = np.einsum('bqht,bnht->bhqn', query, key) / np.sqrt(query.shape[-1])
  weights = np.exp(logits + bias)
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum('bhqn,bnht->bqht', weights, value)


def test_attention_equals_its_definition():
  query, key, value = normal(0, 2, 3, 2, 4), *normal(1, 2, 2, 5, 2, 4)
  bias = normal(2, 1, 2, 3, 5)
  np.testing.assert_allclose(
    dot_product_attention(query, key, value, bias=bias),
    softmax_by_hand(query, key, value, bias=np.asarray(bias)),
    rtol=1e-5,
    atol=1e-6,
  )


def test_masked_keys_do_not_matter():
  query, key, value = normal(0, 3, 1, 4, 2, 4)
  mask = jnp.array([True, True, False, True]).reshape(1, 1, 1, 4)
  before = dot_product_attention(query, key, value, mask=mask)
  after = dot_product_attention(
    query, key.at[:, 2].set(9.0), value.at[:, 2].set(9.0), mask=mask
  )
  np.testing.assert_array_equal(before, after)


def test_the_softmax_of_bfloat16_is_computed_in_float32():
  # 1024 equal weights: a sum in bfloat16 would stop growing at 256.
  query, key, value = jnp.ones((3, 1, 1024, 1, 8), jnp.bfloat16)
  mixed = dot_product_attention(query, key, value)
  assert mixed.dtype == jnp.bfloat16
  np.testing.assert_allclose(mixed.astype(jnp.float32), 1.0, rtol=0.01)


def test_large_logits_do_not_overflow():
  query, key, value = normal(0, 3, 1, 4, 2, 4)
  query = 100 * query
  logits = np.einsum('bqht,bnht->bhqn', query, key) / 2
  assert 89 < np.abs(logits).max() < 700  # beyond float32, within float64
  np.testing.assert_allclose(
    dot_product_attention(query, key, value),
    softmax_by_hand(query, key, value),
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize('options', [{}, {'bias': 8}, {'mask': 8}])
def test_the_gradient_is_that_of_jax(options):
  arrays = {k: normal(3, 1, 2, n, n) for k, n in options.items()}
  arrays = {k: x > 0 if k == 'mask' else x for k, x in arrays.items()}
  qkv = normal(0, 3, 2, 8, 2, 4)

  def gradient(attend):
    loss = lambda *qkv: jnp.sum(attend(*qkv, scale=0.7, **arrays) ** 2)
    return jax.grad(loss, (0, 1, 2))(*qkv)

  for ours, theirs in zip(
    gradient(dot_product_attention),
    gradient(jax.nn.dot_product_attention),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('shape', 'bias', 'options', 'kernel'),
  [
    ((2, 197, 12, 64), None, {}, 'cudnn'),
    ((2, 197, 12, 64), None, {'dtype': jnp.float32}, 'xla'),
    ((2, 197, 12, 64), None, {'mask': True}, 'xla'),
    ((2, 197, 12, 64), None, {'queries': 1}, 'xla'),
    ((2, 197, 12, 64), None, {'capability': '7.5'}, 'xla'),
    ((2, 197, 12, 64), None, {'capability': 'gfx90a'}, 'xla'),
    ((2, 197, 12, 64), None, {'capability': ''}, 'xla'),
    ((2, 197, 12, 12), None, {}, 'xla'),
    ((2, 197, 12, 256), None, {}, 'xla'),
    ((2, 64, 12, 32), (1, 12, 64, 64), {}, 'cudnn'),
    ((2, 64, 12, 32), (2, 12, 64, 64), {}, 'xla'),
    ((2, 49, 12, 32), (1, 12, 49, 49), {}, 'xla'),
  ],
)
def test_the_kernel_suits_the_shapes_and_the_device(
  shape, bias, options, kernel
):
  dtype = options.pop('dtype', jnp.bfloat16)
  key = jnp.zeros(shape, dtype)
  queries = options.pop('queries', shape[1])
  query = jnp.zeros((shape[0], queries, *shape[2:]), dtype)
  mask = jnp.ones((1, 1, 1, 1), bool) if options.pop('mask', False) else None
  device = types.SimpleNamespace(
    platform='gpu', compute_capability=options.pop('capability', '9.0')
  )
  if bias is not None:
    bias = jnp.zeros(bias)
  assert not options
  assert kernel == choose_kernel(
    query, key, bias=bias, mask=mask, device=device
  )


def test_a_cpu_leaves_it_to_xla():
  x = jnp.zeros((1, 4, 2, 8), jnp.bfloat16)
  device = jax.devices('cpu')[0]
  assert 'xla' == choose_kernel(x, x, bias=None, mask=None, device=device)


def test_a_misspelt_kernel_is_corrected():
  x = jnp.zeros((1, 4, 2, 8))
  with pytest.raises(ValueError, match='cudnn'):
    dot_product_attention(x, x, x, kernel='cudn')


@pytest.mark.skipif(
  jax.default_backend() != 'gpu', reason='needs a GPU and JAX_PLATFORMS=cuda'
)
@pytest.mark.parametrize('tokens', [64, 197])
@pytest.mark.parametrize('has_bias', [False, True])
@pytest.mark.parametrize('kernel', sorted(KERNELS))
def test_a_kernel_on_a_gpu_is_near_float32(kernel, tokens, has_bias):
  if has_bias and tokens % 2:
    pytest.skip('cuDNN has no gradient of a bias between odd numbers')
  qkv = list(normal(0, 3, 2, tokens, 3, 32))
  bias = normal(1, 1, 3, tokens, tokens) if has_bias else None

  def run(kernel, dtype):
    def loss(*args):
      *qkv, bias = args
      qkv = [x.astype(dtype) for x in qkv]
      mixed = dot_product_attention(*qkv, bias=bias, kernel=kernel)
      return jnp.sum(mixed.astype(jnp.float32) ** 2), mixed

    argnums = range(4) if has_bias else range(3)
    return jax.jit(jax.grad(loss, argnums, has_aux=True))(*qkv, bias)

  forward = lambda *qkv: dot_product_attention(*qkv, bias=bias, kernel=kernel)
  half = [x.astype(jnp.bfloat16) for x in qkv]
  assert flops.count(forward, *half) == 4 * 2 * 3 * tokens**2 * 32
  exact, ours = run('xla', jnp.float32), run(kernel, jnp.bfloat16)
  for want, got in zip(*map(jax.tree.leaves, (exact, ours)), strict=True):
    error = jnp.linalg.norm((got - want).ravel()) / jnp.linalg.norm(want)
    assert error < 0.02
