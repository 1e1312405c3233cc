"""Multi-head attention (Attention Is All You Need, section 3.2)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Bool, Float

from vit_jax.ops.kernels import dot_product_attention
from vit_jax.ops.place import join_rows
from vit_jax.types import Array

# Glorot's bound is that of one projection, d -> h * t, not of the two or three
# that share a kernel: `batch_axis` leaves the axis they are stacked on out.
_in_init = nn.initializers.xavier_uniform(in_axis=0, out_axis=(1, 2))
_fused_init = nn.initializers.xavier_uniform(
  in_axis=0, out_axis=(2, 3), batch_axis=1
)
_out_init = nn.initializers.xavier_uniform(in_axis=(0, 1), out_axis=2)


class DotProduct(nn.Module):
  """`dot_product_attention` as a module, which has no parameters.

  Modules call it as one so that `nn.intercept_methods` finds the attention of
  any model, with all that enters it: see `tools/pictures/attention.py`.
  """

  def __call__(
    self, query: Array, key: Array, value: Array, **options: Any
  ) -> Float[Array, 'b q h t']:
    """Takes what `dot_product_attention` takes."""
    return dot_product_attention(query, key, value, **options)


class FusedProjection(nn.Module):
  """Several linear maps of the tokens to heads, as one product of matrices.

  Parameters: kernel (c, k, h, t), bias (k, h, t).

  Attributes:
    count: k, how many.
    heads: (h, t), their number and width.
    kernel_init: of the kernel.
    use_bias: whether there is a bias.
  """

  count: int
  heads: tuple[int, int]
  kernel_init: nn.initializers.Initializer
  use_bias: bool = True

  @nn.compact
  def __call__(
    self, tokens: Float[Array, '*b n c']
  ) -> tuple[Float[Array, '*b n h t'], ...]:
    """Returns the k results."""
    width, (num_heads, head_width) = tokens.shape[-1], self.heads
    shape = (self.count, *self.heads)
    kernel = self.param('kernel', self.kernel_init, (width, *shape))
    bias = None
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, shape)
    tokens, kernel, bias = promote_dtype(tokens, kernel, bias, dtype=None)
    rows = join_rows(tokens)
    # By head first, as devices split the heads.
    rows = rows @ kernel.swapaxes(1, 2).reshape(width, -1)
    if bias is not None:
      columns = bias.swapaxes(0, 1).reshape(-1)
      rows = rows + jnp.expand_dims(columns, range(rows.ndim - 1))
    fused = rows.reshape(*tokens.shape[:-1], num_heads, self.count, head_width)
    return tuple(fused[..., i, :] for i in range(self.count))


class MultiHeadAttention(nn.Module):
  """Self-attention; query, key and value come from one fused projection.

  Parameters: qkv/kernel (c, 3, h, t), qkv/bias (3, h, t), out/kernel (h, t, d),
  out/bias (d,), with t = d / h.

  Attributes:
    num_heads: h; must divide the width.
    kernel_init: of both kernels; None for Glorot's, for each projection.
    qkv_bias: whether query, key and value have a bias.
    width: d, of the tokens that come out; None for that of those that go in.
  """

  num_heads: int
  kernel_init: nn.initializers.Initializer | None = None
  qkv_bias: bool = True
  width: int | None = None

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b n c'],
    *,
    bias: Float[Array, '#b #h #n #n'] | None = None,
    mask: Bool[Array, 'w #h #n #n'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Mixes the tokens of each example; see `dot_product_attention`."""
    width = self.width or tokens.shape[-1]
    heads = head_shape(width, num_heads=self.num_heads)
    query, key, value = FusedProjection(
      3,
      heads,
      kernel_init=self.kernel_init or _fused_init,
      use_bias=self.qkv_bias,
      name='qkv',
    )(tokens)
    mixed = DotProduct()(query, key, value, bias=bias, mask=mask)
    return project_out(
      mixed, width=width, kernel_init=self.kernel_init or _out_init
    )


class CrossAttention(nn.Module):
  """Attention of a query to a context; key and value share a projection.

  Parameters: q/kernel (d, h, t), kv/kernel (c, 2, h, t), out/kernel (h, t, d);
  q/bias (h, t), kv/bias (2, h, t), out/bias (d,).

  Attributes:
    num_heads: h; must divide the width of the query.
    kernel_init: of all kernels; None for Glorot's, for each projection.
  """

  num_heads: int
  kernel_init: nn.initializers.Initializer | None = None

  @nn.compact
  def __call__(
    self,
    query: Float[Array, 'b q d'],
    context: Float[Array, 'b n c'],
    *,
    mask: Bool[Array, 'w #h #q #n'] | None = None,
  ) -> Float[Array, 'b q d']:
    """Gathers from the context what each query asks for."""
    width = query.shape[-1]
    heads = head_shape(width, num_heads=self.num_heads)
    q = nn.Einsum(
      (width, *heads),
      'bqd,dht->bqht',
      kernel_init=self.kernel_init or _in_init,
      name='q',
    )(query)  # (B, Q, H, T)
    key, value = FusedProjection(
      2, heads, kernel_init=self.kernel_init or _fused_init, name='kv'
    )(context)
    mixed = DotProduct()(q, key, value, mask=mask)
    return project_out(
      mixed, width=width, kernel_init=self.kernel_init or _out_init
    )


def head_shape(width: int, *, num_heads: int) -> tuple[int, int]:
  """The shape (h, t) into which the heads split the width.

  Raises:
    ValueError: if they do not divide it.
  """
  if width % num_heads:
    raise ValueError(
      f'num_heads={num_heads} does not divide width={width}: choose one of '
      f'{[h for h in range(1, width + 1) if width % h == 0]}'
    )
  return num_heads, width // num_heads


def project_out(
  mixed: Float[Array, '*b h t'],
  *,
  width: int,
  kernel_init: nn.initializers.Initializer,
) -> Float[Array, '*b d']:
  """Joins the heads again, as the submodule `out` of the caller."""
  rows = nn.Einsum(
    (*mixed.shape[-2:], width),
    '...ht,htd->...d',
    kernel_init=kernel_init,
    name='out',
  )(join_rows(mixed, keep=2))
  return rows.reshape(*mixed.shape[:-2], width)
