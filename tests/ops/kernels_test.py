import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import sharding
from vit_jax.ops import flops, fused_attention
from vit_jax.ops.curvature import hessian_product
from vit_jax.ops.kernels import (
  KERNELS,
  choose_kernel,
  dot_product_attention,
  using,
)
from vit_jax.ops.place import Place, placed


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
    ((2, 197, 12, 64), None, {'mask': (1, 1, 1, 197)}, 'xla'),
    ((2, 197, 12, 64), None, {'mask': (2, 1, 197, 197)}, 'xla'),
    ((2, 197, 12, 64), None, {'mask': (1, 1, 197, 197)}, 'cudnn'),
    ((8, 49, 3, 32), (1, 3, 49, 49), {'mask': (4, 1, 49, 49)}, 'cudnn'),
    ((8, 49, 3, 32), (1, 3, 49, 49), {'mask': (4, 3, 49, 49)}, 'xla'),
    ((2, 197, 12, 64), None, {'queries': 1}, 'xla'),
    ((2, 197, 12, 64), None, {'capability': '7.5'}, 'xla'),
    ((2, 197, 12, 64), None, {'capability': 'gfx90a'}, 'xla'),
    ((2, 197, 12, 64), None, {'capability': ''}, 'xla'),
    ((2, 197, 12, 12), None, {}, 'xla'),
    ((2, 197, 12, 256), None, {}, 'xla'),
    ((2, 64, 12, 32), (1, 12, 64, 64), {}, 'cudnn'),
    ((2, 64, 12, 32), (2, 12, 64, 64), {}, 'xla'),
    ((2, 49, 12, 32), (1, 12, 49, 49), {}, 'cudnn'),
  ],
)
def test_the_kernel_suits_the_shapes_and_the_device(
  shape, bias, options, kernel
):
  dtype = options.pop('dtype', jnp.bfloat16)
  key = jnp.zeros(shape, dtype)
  queries = options.pop('queries', shape[1])
  query = jnp.zeros((shape[0], queries, *shape[2:]), dtype)
  mask = options.pop('mask', None)
  mask = None if mask is None else jnp.ones(mask, bool)
  device = types.SimpleNamespace(
    platform='gpu', compute_capability=options.pop('capability', '9.0')
  )
  # XLA splits cuDNN's kernel by itself.
  place = Place(device, None, lambda f: f)
  if bias is not None:
    bias = jnp.zeros(bias)
  assert not options
  assert kernel == choose_kernel(query, key, bias=bias, mask=mask, place=place)


@pytest.mark.parametrize(
  ('query', 'keys', 'options', 'kernel'),
  [
    ((8, 197, 12, 64), 197, {}, 'pallas'),
    ((8, 577, 16, 80), 577, {}, 'pallas'),
    ((8, 1024, 12, 64), 256, {}, 'pallas'),
    ((8, 196, 12, 64), 49, {}, 'xla'),
    ((8, 1, 12, 64), 197, {}, 'xla'),
    ((8, 50, 12, 64), 50, {}, 'xla'),
    ((8, 9217, 2, 16), 9217, {}, 'xla'),
    ((8, 197, 12, 12), 197, {}, 'xla'),
    ((8, 197, 12, 64), 197, {'dtype': jnp.float32}, 'xla'),
    ((8, 197, 12, 64), 197, {'dtype': jnp.float16}, 'xla'),
    ((8, 197, 12, 64), 197, {'mask': jnp.ones((1, 1, 1, 197), bool)}, 'xla'),
    ((8, 197, 12, 64), 197, {'bias': jnp.ones((1, 12, 197, 197))}, 'xla'),
    ((6, 197, 12, 64), 197, {}, 'xla'),
    ((8, 197, 3, 64), 197, {}, 'xla'),
    ((8, 197, 12, 64), 197, {'shards': None}, 'xla'),
    ((8, 197, 12, 64), 197, {'platform': 'cpu'}, 'xla'),
  ],
)
def test_a_tpu_has_a_kernel_of_its_own(query, keys, options, kernel):
  given = {'dtype': jnp.bfloat16, 'platform': 'tpu', 'shards': (4, 2)}
  given |= {'bias': None, 'mask': None} | options
  query = jnp.zeros(query, given['dtype'])
  key = jnp.zeros((len(query), keys, *query.shape[2:]), given['dtype'])
  device = types.SimpleNamespace(platform=given['platform'])
  place = Place(device, given['shards'], lambda f: f)
  assert kernel == choose_kernel(
    query, key, bias=given['bias'], mask=given['mask'], place=place
  )


def test_a_cpu_leaves_it_to_xla():
  x = jnp.zeros((1, 200, 2, 16), jnp.bfloat16)
  place = Place(jax.devices('cpu')[0], (1, 1), lambda f: f)
  assert 'xla' == choose_kernel(x, x, bias=None, mask=None, place=place)


def test_a_misspelt_kernel_is_corrected():
  x = jnp.zeros((1, 4, 2, 8))
  with pytest.raises(ValueError, match='cudnn'):
    dot_product_attention(x, x, x, kernel='cudn')


def test_several_devices_without_a_mesh_leave_it_to_xla(monkeypatch):
  device = types.SimpleNamespace(platform='tpu')
  monkeypatch.setattr(jax, 'devices', lambda: [device])
  x = jnp.zeros((1, 200, 2, 16), jnp.bfloat16)
  # JAX remembers what it traced, by the function.
  traced = lambda: str(
    jax.make_jaxpr(lambda x: dot_product_attention(x, x, x))(x)
  )
  assert 'pallas_call' not in traced()
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  assert 'pallas_call' in traced()


def test_the_environment_may_name_the_kernel():
  program = (
    'import jax; from vit_jax.ops.kernels import dot_product_attention as f; '
    'f(*[jax.numpy.zeros((1, 2, 1, 8))] * 3)'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    env={**os.environ, 'VIT_JAX_ATTENTION': 'xlb'},
    capture_output=True,
    text=True,
  )
  assert "Unknown kernel: 'xlb'. Did you mean 'xla'?" in done.stderr


def relative_error(got, want):
  return jnp.linalg.norm((got - want).ravel()) / jnp.linalg.norm(want)


def squares(kernel, mesh, dtype, *, wrap=lambda f: f):
  """The gradient of a sum of squares of attention, and what it returned."""

  def loss(*qkv):
    with sharding.on(mesh), using(kernel):
      mixed = wrap(dot_product_attention)(*(x.astype(dtype) for x in qkv))
    return jnp.sum(mixed.astype(jnp.float32) ** 2), mixed

  return jax.grad(loss, (0, 1, 2), has_aux=True)


@pytest.mark.parametrize(('queries', 'keys'), [(13, 13), (21, 5)])
@pytest.mark.parametrize(
  ('axes', 'wrap'),
  [({}, lambda f: f), ({'fsdp': 2, 'tensor': 2}, jax.checkpoint)],
)
def test_the_kernel_for_tpus_is_near_float32(
  queries, keys, axes, wrap, monkeypatch
):
  # Blocks of 8 queries, the last of which is not full, and one head at a time.
  monkeypatch.setattr(fused_attention, 'LANES', 8)
  monkeypatch.setattr(fused_attention, 'LOGITS', 8)
  monkeypatch.setattr(fused_attention, 'TOKENS', 2 * keys)
  devices = jax.devices()[: 8 if axes else 1]
  mesh = sharding.make_mesh(**axes, devices=devices)
  qkv = [normal(i, 4, n, 4, 16) for i, n in enumerate([queries, keys, keys])]
  exact = squares('xla', mesh, jnp.float32)(*qkv)
  for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.bfloat16, 0.01)):
    gradient = squares('pallas', mesh, dtype, wrap=wrap)
    ours = jax.jit(gradient)(*qkv)
    for got, want in zip(*map(jax.tree.leaves, (ours, exact)), strict=True):
      assert relative_error(got, want) < tolerance
  # What is left over of a block does not count.
  product = 2 * 4 * 4 * queries * keys * 16
  assert flops.count(gradient, *qkv) == (2 + 5) * product


def test_a_hessian_is_never_that_of_a_fused_kernel():
  device = types.SimpleNamespace(platform='tpu')
  x = normal(0, 1, 200, 1, 16).astype(jnp.bfloat16)
  loss = lambda x: jnp.sum(dot_product_attention(x, x, x) ** 2)
  with placed(Place(device, (1, 1), lambda f: f)):
    assert 'pallas_call' in str(jax.make_jaxpr(loss)(x))
    curved = jax.eval_shape(lambda x: hessian_product(loss, x, x), x)
  assert curved.shape == x.shape


@pytest.mark.parametrize('tokens', [8, 13])
@pytest.mark.parametrize('has_bias', [False, True])
@pytest.mark.parametrize('windows', [None, 1, 3])
def test_cudnn_gets_even_numbers_of_tokens_and_masks_as_a_bias(
  tokens, has_bias, windows, monkeypatch
):
  qkv = [normal(i, 6, tokens, 2, 8) for i in range(3)]
  bias = normal(3, 1, 2, tokens, tokens) if has_bias else jnp.zeros(())
  mask = None
  if windows:
    mask = (
      normal(4, windows, 1, tokens, tokens) + 2 * jnp.eye(tokens)[None, None]
      > 0
    )
  given = []

  def elsewhere(query, *args, implementation, **options):
    given.append((implementation, query.shape))
    return attend(query, *args, implementation='xla', **options)

  def run(kernel):
    def loss(qkv, bias):
      options = {'bias': bias if has_bias else None, 'mask': mask}
      mixed = dot_product_attention(*qkv, **options, kernel=kernel)
      return jnp.sum(mixed**2), mixed

    return jax.grad(loss, (0, 1), has_aux=True)(qkv, bias)

  attend = jax.nn.dot_product_attention
  monkeypatch.setattr(jax.nn, 'dot_product_attention', elsewhere)
  pairs = zip(*map(jax.tree.leaves, (run('cudnn'), run('xla'))), strict=True)
  for ours, exact in pairs:
    np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)
  folded = windows or 1
  shape = (6 // folded, tokens + tokens % 2, 2 * folded, 8)
  assert given == [('cudnn', shape)]


def test_masks_repeat_along_the_examples():
  query, key, value = (normal(i, 4, 5, 2, 8) for i in range(3))
  mask = jnp.tril(jnp.ones((5, 5), bool))
  mask = jnp.stack([mask, mask.T])[:, None]
  options = {'kernel': 'xla'}
  np.testing.assert_array_equal(
    dot_product_attention(query, key, value, mask=mask, **options),
    dot_product_attention(
      query, key, value, mask=jnp.concatenate([mask, mask]), **options
    ),
  )


@pytest.mark.skipif(
  jax.default_backend() != 'gpu', reason='needs a GPU and JAX_PLATFORMS=cuda'
)
@pytest.mark.parametrize('tokens', [64, 197])
@pytest.mark.parametrize('has_bias', [False, True])
@pytest.mark.parametrize('kernel', sorted(KERNELS.keys() - {'pallas'}))
def test_a_kernel_on_a_gpu_is_near_float32(kernel, tokens, has_bias):
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
  side = tokens + (tokens % 2 if kernel == 'cudnn' else 0)  # padded
  assert flops.count(forward, *half) == 4 * 2 * 3 * side**2 * 32
  exact, ours = run('xla', jnp.float32), run(kernel, jnp.bfloat16)
  for want, got in zip(*map(jax.tree.leaves, (exact, ours)), strict=True):
    assert relative_error(got, want) < 0.02
