"""Attention of equation 1 (Attention Is All You Need), by several kernels.

xla     written out here; anything, anywhere
cudnn   cuDNN's fused kernel, for NVIDIA GPUs: the weights of all pairs of
        tokens are never stored; it has a first derivative only, but Hessians
        are computed in float32, which it does not take
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from vit_jax.lookup import choose
from vit_jax.types import Array


def dot_product_attention(
  query: Float[Array, 'b q h t'],
  key: Float[Array, 'b n h t'],
  value: Float[Array, 'b n h t'],
  *,
  bias: Float[Array, '#b #h #q #n'] | None = None,
  mask: Bool[Array, '#b #h #q #n'] | None = None,
  scale: float | None = None,
  kernel: str | None = None,
) -> Float[Array, 'b q h t']:
  """softmax(scale query key^T + bias) value.

  The softmax is computed in float32 whatever the inputs are.

  Args:
    query: what asks.
    key: what is compared with the query.
    value: what is averaged.
    bias: added to the logits.
    mask: True where a query may look at a key.
    scale: of the products, 1 / sqrt(t) by default.
    kernel: of `KERNELS`; by default what `choose_kernel` says for the first
      device.
  """
  if kernel is None:
    kernel = choose_kernel(
      query, key, bias=bias, mask=mask, device=jax.devices()[0]
    )
  attend = choose(KERNELS, word=kernel, kind='kernel')
  scale = query.shape[-1] ** -0.5 if scale is None else scale
  return attend(query, key, value, bias=bias, mask=mask, scale=scale)


def choose_kernel(
  query: Float[Array, 'b q h t'],
  key: Float[Array, 'b n h t'],
  *,
  bias: Float[Array, '#b #h #q #n'] | None,
  mask: Bool[Array, '#b #h #q #n'] | None,
  device: Any,
) -> str:
  """Returns the name of the kernel for arrays of these shapes and types.

  cuDNN takes 16 bits, heads of at most 128 in multiples of 8, and a bias whose
  gradient it can sum, the same for all examples, for an even number of tokens
  (jax/_src/cudnn/fused_attention_stablehlo.py). Masks it takes as biases, of
  every example. On a mesh, query and key must be split alike, which only
  self-attention promises. It is used from compute capability 8.0 on.
  """
  tokens, heads, width = query.shape[1:]
  # That of AMD's devices, which are GPUs as well, reads 'gfx90a'.
  capability = getattr(device, 'compute_capability', '')
  suits_cudnn = (
    capability[:1].isdigit()
    and float(capability) >= 8.0
    and query.dtype.itemsize == 2
    and mask is None
    and query.shape == key.shape
    and width % 8 == 0
    and width <= 128
  )
  if bias is not None:
    is_shared = bias.shape == (1, heads, tokens, tokens)
    suits_cudnn &= is_shared and tokens % 2 == 0
  return 'cudnn' if suits_cudnn else 'xla'


def _xla(query, key, value, *, bias, mask, scale):
  # Heads before tokens: products of matrices whose rows follow each other.
  query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
  if query.dtype == jnp.float32:
    query, scale = query * scale, 1.0  # There are fewer than logits.
  logits = scale * jnp.einsum(
    'bhqt,bhnt->bhqn', query, key, preferred_element_type=jnp.float32
  )
  if bias is not None:
    logits = logits + bias
  if mask is not None:
    logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
  largest = logits.max(axis=-1, keepdims=True)
  weights = jnp.exp(logits - jax.lax.stop_gradient(largest))
  # Divided by their sum last, where there is less to divide.
  mixed = jnp.einsum(
    'bhqn,bhnt->bhqt',
    weights.astype(value.dtype),
    value,
    preferred_element_type=jnp.float32,
  )
  mixed = mixed / weights.sum(axis=-1, keepdims=True)
  return mixed.astype(value.dtype).swapaxes(1, 2)


def _cudnn(query, key, value, *, bias, mask, scale):
  if bias is not None:
    bias = bias.astype(query.dtype)  # In float32 it gives NaN, jax issue 32242.
  return jax.nn.dot_product_attention(
    query, key, value, bias, mask, scale=scale, implementation='cudnn'
  )


KERNELS = {'xla': _xla, 'cudnn': _cudnn}
