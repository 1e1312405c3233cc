"""Attention of equation 1 (Attention Is All You Need), by several kernels.

xla     written out here; anything, anywhere
cudnn   cuDNN's fused kernel, for NVIDIA GPUs: the weights of all pairs of
        tokens are never stored; it has a first derivative only
pallas  that of `fused_attention`, for TPUs, of which the same is true; it is
        interpreted elsewhere, for tests

Which one serves depends on where the program will run, see `ops.place`, unless
the environment variable VIT_JAX_ATTENTION names one.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from vit_jax.lookup import choose
from vit_jax.ops.fused_attention import fused_attention
from vit_jax.ops.place import Place, here
from vit_jax.types import Array

# Tokens from which, and up to which, the kernel for TPUs is chosen: below, the
# matrix of weights is small; above, it was not compiled (docs/notebook.md).
FEWEST, MOST = 192, 4112
_NEVER = -1e9  # of a logit whose key does not count


class _Inside(threading.local):
  kernel: str | None = os.getenv('VIT_JAX_ATTENTION') or None


_inside = _Inside()


@contextlib.contextmanager
def using(kernel: str) -> Iterator[None]:
  """Inside, attention that names no kernel takes this one of `KERNELS`."""
  before, _inside.kernel = _inside.kernel, kernel
  try:
    yield
  finally:
    _inside.kernel = before


def dot_product_attention(
  query: Float[Array, 'b q h t'],
  key: Float[Array, 'b n h t'],
  value: Float[Array, 'b n h t'],
  *,
  bias: Float[Array, '#b #h #q #n'] | None = None,
  mask: Bool[Array, 'w #h #q #n'] | None = None,
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
    mask: True where a query may look at a key; w divides b, and the first w
      examples have these masks, as the next w have, and so on.
    scale: of the products, 1 / sqrt(t) by default.
    kernel: of `KERNELS`; by default what `choose_kernel` says for the place,
      see `ops.place`, unless `using` names one.
  """
  kernel = kernel or _inside.kernel
  if kernel is None:
    kernel = choose_kernel(query, key, bias=bias, mask=mask, place=here())
  attend = choose(KERNELS, word=kernel, kind='kernel')
  scale = query.shape[-1] ** -0.5 if scale is None else scale
  return attend(query, key, value, bias=bias, mask=mask, scale=scale)


def choose_kernel(
  query: Float[Array, 'b q h t'],
  key: Float[Array, 'b n h t'],
  *,
  bias: Float[Array, '#b #h #q #n'] | None,
  mask: Bool[Array, 'w #h #q #n'] | None,
  place: Place,
) -> str:
  """Returns the name of the kernel for arrays of these shapes and types.

  cuDNN takes 16 bits, heads of at most 128 in multiples of 8, and a bias whose
  gradient it can sum, the same for all examples
  (jax/_src/cudnn/fused_attention_stablehlo.py). It takes masks as such a bias,
  the windows that share none as heads of one image. On a mesh, query and key
  must be split alike, which only self-attention promises. It is used from
  compute capability 8.0 on.

  That for TPUs takes bfloat16 without bias or mask, if the devices split the
  examples and the heads evenly.
  """
  if _suits_pallas(query, key, place=place) and bias is None and mask is None:
    return 'pallas'
  tokens, heads, width = query.shape[1:]
  # That of AMD's devices, which are GPUs as well, reads 'gfx90a'.
  capability = getattr(place.device, 'compute_capability', '')
  suits_cudnn = (
    capability[:1].isdigit()
    and float(capability) >= 8.0
    and query.dtype.itemsize == 2
    and query.shape == key.shape
    and width % 8 == 0
    and width <= 128
  )
  if bias is not None:
    suits_cudnn &= bias.shape == (1, heads, tokens, tokens)
  if mask is not None:
    suits_cudnn &= mask.shape[1:] == (1, tokens, tokens)
    suits_cudnn &= len(mask) < len(query)
  return 'cudnn' if suits_cudnn else 'xla'


def _suits_pallas(query, key, *, place):
  if place.device.platform != 'tpu' or place.shards is None:
    return False
  examples, tokens, heads, width = query.shape
  return (
    query.dtype == jnp.bfloat16
    and all(FEWEST <= n <= MOST for n in (tokens, key.shape[1]))
    and width % 16 == 0  # rows of a tile
    and examples % place.shards[0] == 0
    and heads % place.shards[1] == 0
  )


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
    mask = repeat_mask(mask, examples=len(logits))
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


def repeat_mask(
  mask: Bool[Array, 'w h q n'], *, examples: int
) -> Bool[Array, '#b h q n']:
  """One for each example, or one for all, see `dot_product_attention`."""
  if len(mask) == 1:
    return mask
  return jnp.tile(mask, (examples // len(mask), 1, 1, 1))


def _cudnn(query, key, value, *, bias, mask, scale):
  _, tokens, heads, _ = query.shape
  lengths = {}
  if mask is not None:
    split, join = _windows_as_heads(len(mask), query.shape)
    query, key, value = map(split, (query, key, value))
    bias = jnp.zeros((1, 1, 1, 1)) if bias is None else bias
    bias = jnp.where(mask.swapaxes(0, 1), bias.swapaxes(0, 1), _NEVER)
    bias = jnp.broadcast_to(bias, (heads, *bias.shape[1:]))  # (H, W, N, N)
    bias = bias.reshape(1, -1, tokens, tokens)
  if bias is not None:
    bias = bias.astype(query.dtype)  # In float32 it gives NaN, jax issue 32242.
  # It has no gradient for odd numbers: one token more, which does not count.
  if tokens % 2:
    pad = ((0, 0), (0, 1), (0, 0), (0, 0))
    query, key, value = (jnp.pad(x, pad) for x in (query, key, value))
    if bias is None:
      length = jnp.full(len(query), tokens, jnp.int32)
      lengths = {'query_seq_lengths': length, 'key_value_seq_lengths': length}
    else:
      bias = jnp.pad(bias, ((0, 0), (0, 0), (0, 1), (0, 0)))
      pad = ((0, 0), (0, 0), (0, 0), (0, 1))
      bias = jnp.pad(bias, pad, constant_values=_NEVER)
  mixed = jax.nn.dot_product_attention(
    query, key, value, bias, scale=scale, implementation='cudnn', **lengths
  )[:, :tokens]
  return mixed if mask is None else join(mixed)


def _windows_as_heads(windows, shape):
  """Ways from windows that are examples, of this shape, to heads, and back."""
  images, (_, tokens, heads, width) = shape[0] // windows, shape

  # Heads before windows, as devices split the heads.
  def split(x):
    x = x.reshape(images, windows, tokens, heads, width)
    return x.transpose(0, 2, 3, 1, 4).reshape(images, tokens, -1, width)

  def join(x):
    x = x.reshape(images, tokens, heads, windows, width)
    return x.transpose(0, 3, 1, 2, 4).reshape(shape)

  return split, join


def _pallas(query, key, value, *, bias, mask, scale):
  if bias is not None or mask is not None:
    raise ValueError('The kernel for TPUs takes neither a bias nor a mask.')
  place = here()
  interpret = place.device.platform != 'tpu'

  @place.by_shard
  def attend(*qkv):
    # Tokens last, as XLA lays them out as well.
    qkv = (x.transpose(0, 2, 3, 1) for x in qkv)
    return fused_attention(*qkv, scale, interpret).transpose(0, 3, 1, 2)

  return attend(query, key, value)


KERNELS = {'xla': _xla, 'cudnn': _cudnn, 'pallas': _pallas}
