"""Attention as a kernel for TPUs: its weights never leave the chip.

After FlashAttention (https://arxiv.org/abs/2205.14135), but the tokens of an
image are few: all keys of a head fit into the chip's own memory, so that the
softmax of a block of queries is computed at once instead of being corrected
from block to block, and one kernel computes all three gradients. Where keys run
along the rows of the logits, and tokens along the last axis of all arrays, each
product is one that the matrix unit takes without a transposed copy of logits,
and neither tokens nor width need be multiples of a tile.

It has a first derivative only. Letters as in `types`, with k for keys.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Float

from vit_jax.types import Array

# Of logits in float32, in the chip's memory at a time: the gradient has four
# such arrays, and a v4 has 16 MiB for everything.
LOGITS = 2**18
# Tokens of all heads that one turn of the grid works on: turns have a cost.
TOKENS = 2048
LANES = 128


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def fused_attention(
  query: Float[Array, 'b h t q'],
  key: Float[Array, 'b h t n'],
  value: Float[Array, 'b h t n'],
  scale: float,
  interpret: bool = False,
) -> Float[Array, 'b h t q']:
  """softmax(scale query key^T) value, of arrays on one device.

  The softmax is computed in float32.

  Args:
    query: what asks; the tokens come last.
    key: what is compared with the query.
    value: what is averaged.
    scale: of the products.
    interpret: whether to run on another device, slowly.
  """
  (mixed,) = _call(
    _forward,
    (query, key, value),
    returned=(query,),
    products=2,
    scale=scale,
    interpret=interpret,
  )
  return mixed


def _fwd(query, key, value, scale, interpret):
  mixed = fused_attention(query, key, value, scale, interpret)
  return mixed, (query, key, value)


def _bwd(scale, interpret, residuals, gradient):
  return _call(
    _backward,
    (*residuals, gradient),
    returned=residuals,
    products=5,
    scale=scale,
    interpret=interpret,
  )


fused_attention.defvjp(_fwd, _bwd)


def _call(
  kernel: Callable[..., None],
  arrays: tuple[Array, ...],
  *,
  returned: tuple[Array, ...],
  products: int,
  scale: float,
  interpret: bool,
) -> tuple[Array, ...]:
  """Runs a kernel over examples, groups of heads and blocks of queries.

  Args:
    kernel: takes references to arrays, to results, and to sums over the blocks
      of queries, of the results after the first.
    arrays: query, key, value and, if any, the gradient.
    returned: what the results are like.
    products: of the size of query key^T, that the kernel computes.
    scale: of the logits.
    interpret: see `fused_attention`.
  """
  b, h, t, queries = arrays[0].shape
  keys = arrays[1].shape[-1]
  block = min(queries, max(1, LOGITS // keys // LANES) * LANES)
  group = max(
    g for g in range(1, h + 1) if h % g == 0 and g <= max(1, TOKENS // keys)
  )
  some = pl.BlockSpec((1, group, t, block), lambda b, h, i: (b, h, 0, i))
  whole = pl.BlockSpec((1, group, t, keys), lambda b, h, i: (b, h, 0, 0))
  sums = [pltpu.VMEM((group, t, keys), jnp.float32) for _ in returned[1:]]
  moved = sum(x.size * x.dtype.itemsize for x in (*arrays, *returned))
  pairs = b * h * queries * keys
  return pl.pallas_call(
    functools.partial(kernel, scale=scale, queries=queries),
    grid=(b, h // group, pl.cdiv(queries, block)),
    in_specs=[some, whole, whole, some][: len(arrays)],
    out_specs=[some, whole, whole][: len(returned)],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in returned],
    scratch_shapes=sums,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    ),
    cost_estimate=pl.CostEstimate(
      flops=products * 2 * pairs * t,
      transcendentals=pairs,
      bytes_accessed=moved,
    ),
    interpret=interpret,
    name=f'attention{kernel.__name__}',
  )(*arrays)


def _forward(query, key, value, mixed, *, scale, queries):
  del queries  # Those beyond the last are not written.

  def head(i, _):
    q, k, v = query[0, i], key[0, i], value[0, i]
    weights, total = _softmax(q, k, scale=scale)
    mixed[0, i] = (_dot(v, weights.astype(v.dtype), (1, 0)) / total).astype(
      mixed.dtype
    )
    return _

  jax.lax.fori_loop(0, query.shape[1], head, 0)


def _backward(
  query, key, value, gradient, dq, dk, dv, dk_sum, dv_sum, *, scale, queries
):
  turn = pl.program_id(2)
  block = query.shape[-1]

  @pl.when(turn == 0)
  def _():
    dk_sum[...] = jnp.zeros_like(dk_sum)
    dv_sum[...] = jnp.zeros_like(dv_sum)

  def head(i, _):
    q, k, v, g = query[0, i], key[0, i], value[0, i], gradient[0, i]
    if queries % block:  # What lies beyond the last query may be anything.
      token = turn * block + jax.lax.broadcasted_iota(jnp.int32, q.shape, 1)
      q, g = (jnp.where(token < queries, x, jnp.zeros_like(x)) for x in (q, g))
    weights, total = _softmax(q, k, scale=scale)
    weights = weights * (1 / total)
    change = _dot(v, g, (0, 0))
    change = weights * (change - (weights * change).sum(0, keepdims=True))
    change = change.astype(q.dtype)
    dq[0, i] = (scale * _dot(k, change, (1, 0))).astype(dq.dtype)
    dk_sum[i] += _dot(q, change, (1, 1))
    dv_sum[i] += _dot(g, weights.astype(g.dtype), (1, 1))
    return _

  jax.lax.fori_loop(0, query.shape[1], head, 0)

  @pl.when(turn == pl.num_programs(2) - 1)
  def _():
    dk[0] = (scale * dk_sum[...]).astype(dk.dtype)
    dv[0] = dv_sum[...].astype(dv.dtype)


def _softmax(q, k, *, scale):
  """Exponentials of logits (N, Q) that are at most 0, and their sums (1, Q)."""
  logits = scale * _dot(k, q, (0, 0))
  weights = jnp.exp(logits - logits.max(0, keepdims=True))
  return weights, weights.sum(0, keepdims=True)


def _dot(a, b, axes):
  """Contracts one axis of each, summing in float32."""
  i, j = axes
  return jax.lax.dot_general(
    a, b, (((i,), (j,)), ((), ())), preferred_element_type=jnp.float32
  )
