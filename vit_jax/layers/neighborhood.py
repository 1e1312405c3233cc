"""Attention of each token of a map to the tokens nearest to it.

Neighborhood Attention Transformer, arXiv:2204.07143v1, section 3.1; and, with a
dilation, Dilated Neighborhood Attention Transformer, arXiv:2209.15001.

With a dilation of d, tokens whose rows and columns are multiples of d apart
form a lattice, and see no other. Along each axis a token sees K of its lattice:
K // 2 before it, itself, and K // 2 behind; near an end the K nearest to the
end, so that a window is never cut.

No token is gathered, and no gradient is scattered. A lattice is cut into tiles
of at most K x K queries. The windows of a tile lie in a span of at most 2K - 1
tokens along each axis, which is a slice of the lattice; the tile attends to all
of it, under a mask that leaves the windows. Memory is linear in the number of
tokens, and the work is in products of matrices. Nothing of it is in vain where
a window covers its lattice, as in all dilated blocks of DiNAT at 224 pixels.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vit_jax.layers.attention import (
  FusedProjection,
  head_shape,
  project_out,
)
from vit_jax.ops.kernels import dot_product_attention
from vit_jax.types import Array

# Of the kernels and of the biases, as in the reference.
INIT = nn.initializers.normal(0.02)


class NeighborhoodAttention(nn.Module):
  """Self-attention of a map within the neighbourhood of each token.

  Parameters: qkv and out as in `MultiHeadAttention`, and position_bias/table
  (2K - 1, 2K - 1, h), see `neighborhood_attention`.

  Attributes:
    num_heads: h; must divide the width.
    kernel_size: K, side of the neighbourhoods, odd.
  """

  num_heads: int
  kernel_size: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b y x d'], *, dilation: int = 1
  ) -> Float[Array, 'b y x d']:
    """Mixes the tokens of each example.

    Where the map is smaller than K * dilation, it gets zeros at the bottom and
    the right, which take part like any token, as in the reference.
    """
    _, h, w, width = x.shape
    heads = head_shape(width, num_heads=self.num_heads)
    least = self.kernel_size * dilation
    x = _pad(_pad(x, axis=1, size=least), axis=2, size=least)
    qkv = FusedProjection(3, heads, kernel_init=INIT, name='qkv')(x)
    table = BiasTable(self.num_heads, self.kernel_size, name='position_bias')()
    mixed = neighborhood_attention(*qkv, table=table, dilation=dilation)
    return project_out(mixed[:, :h, :w], width=width, kernel_init=INIT)


class BiasTable(nn.Module):
  """The parameter `table`: a bias for each difference of positions and head."""

  num_heads: int
  kernel_size: int

  @nn.compact
  def __call__(self) -> Float[Array, 's s h']:
    """Returns it; s = 2 * kernel_size - 1."""
    side = 2 * self.kernel_size - 1
    return self.param('table', INIT, (side, side, self.num_heads))


def neighborhood_attention(
  query: Float[Array, 'b y x h t'],
  key: Float[Array, 'b y x h t'],
  value: Float[Array, 'b y x h t'],
  *,
  table: Float[Array, 's s h'],
  dilation: int = 1,
) -> Float[Array, 'b y x h t']:
  """Attention of each token to the K x K in its neighbourhood.

  Args:
    query: what asks.
    key: what is compared with the query.
    value: what is averaged.
    table: of what is added to the logits, by the number of steps from the query
      down to the key and right to it, from 1 - K to K - 1; s = 2K - 1.
    dilation: tokens of a step.

  Raises:
    ValueError: if K is not odd and above 1, or the map is smaller than
      K * dilation.
  """
  b, y, x, *heads = query.shape
  rows, columns = (
    _Axis.of(side, kernel_size=(len(table) + 1) // 2, dilation=dilation)
    for side in (y, x)
  )

  def attend(query, key, value, bias):
    # The bias hides keys by minus infinity, which fused kernels do not take.
    return dot_product_attention(query, key, value, bias=bias, kernel='xla')

  mixed = jax.vmap(attend, in_axes=(1, 1, 1, 0), out_axes=1)(
    _tiles(columns.queries(rows.queries(query, axis=1), axis=4)),
    _tiles(columns.keys(rows.keys(key, axis=1), axis=4)),
    _tiles(columns.keys(rows.keys(value, axis=1), axis=4)),
    _bias(rows.steps, columns.steps, table=table),
  )  # (B, tiles, queries, H, T)
  (i, r, q), (j, s, p) = rows.steps.shape[:3], columns.steps.shape[:3]
  mixed = mixed.reshape(b, i, r, j, s, q, p, *heads)
  mixed = mixed.transpose(0, 1, 5, 2, 3, 6, 4, 7, 8)
  return mixed.reshape(b, i * q * r, j * p * s, *heads)[:, :y, :x]


class _Axis(NamedTuple):
  """How the lattices of an axis are cut into tiles.

  Attributes:
    length: of the longest lattice.
    starts: first key of each tile.
    steps: bool (tiles, lattices, queries, keys, 2K - 1), whether so many steps
      lead from a query of a tile to a key, and the query sees it.
  """

  length: int
  starts: np.ndarray
  steps: np.ndarray

  @classmethod
  def of(cls, size: int, *, kernel_size: int, dilation: int) -> '_Axis':
    """The tiles of an axis of so many tokens."""
    if kernel_size < 3 or kernel_size % 2 == 0:
      raise ValueError(
        f'kernel_size={kernel_size} must be an odd number above 1, so that a '
        'token stands in the middle of its neighbourhood'
      )
    if dilation < 1:
      raise ValueError(f'dilation={dilation} must be at least 1')
    if size < kernel_size * dilation:
      raise ValueError(
        f'neighbourhoods of kernel_size={kernel_size} and dilation={dilation} '
        f'span {kernel_size * dilation} tokens, more than the {size} of the '
        'map: choose a smaller one, or enlarge the map'
      )
    length = -(-size // dilation)
    tiles = -(-length // kernel_size)
    queries = -(-length // tiles)
    keys = min(queries + kernel_size - 1, length)
    query = np.arange(tiles * queries).reshape(tiles, 1, queries, 1)
    starts = query[:, 0, 0, 0] - kernel_size // 2
    starts = starts.clip(0, length - keys)
    key = starts[:, None, None, None] + np.arange(keys)
    # Of the lattices that begin at the tokens 0 to dilation - 1, some may be
    # shorter by one than others.
    lengths = -(-(size - np.arange(dilation)) // dilation)
    last = lengths[:, None, None] - kernel_size
    window = (query - kernel_size // 2).clip(0, last)
    seen = (window <= key) & (key < window + kernel_size)
    steps = (key - query)[..., None] == np.arange(1 - kernel_size, kernel_size)
    return cls(length, starts, steps & seen[..., None])

  def queries(self, x: Array, *, axis: int) -> Array:
    """(..., size, ...) -> (..., tiles, queries, lattices, ...)."""
    tiles, lattices, queries = self.steps.shape[:3]
    x = _pad(x, axis=axis, size=tiles * queries * lattices)
    return _split(x, axis=axis, shape=(tiles, queries, lattices))

  def keys(self, x: Array, *, axis: int) -> Array:
    """(..., size, ...) -> (..., tiles, keys, lattices, ...)."""
    tiles, lattices, _, keys, _ = self.steps.shape
    x = _pad(x, axis=axis, size=self.length * lattices)
    spans = [
      jax.lax.slice_in_dim(x, i * lattices, (i + keys) * lattices, axis=axis)
      for i in self.starts
    ]
    x = jnp.concatenate(spans, axis)
    return _split(x, axis=axis, shape=(tiles, keys, lattices))


def _pad(x: Array, *, axis: int, size: int) -> Array:
  """Adds zeros at the end of an axis, up to at least this size."""
  pad = [(0, 0)] * x.ndim
  pad[axis] = (0, max(size - x.shape[axis], 0))
  return jnp.pad(x, pad)


def _split(x: Array, *, axis: int, shape: tuple[int, ...]) -> Array:
  return x.reshape(*x.shape[:axis], *shape, *x.shape[axis + 1 :])


def _tiles(
  x: Float[Array, 'b i q r j p s h t'],
) -> Float[Array, 'b tiles n h t']:
  """Puts the tokens of a tile side by side, and tile after tile."""
  b, i, q, r, j, p, s, h, t = x.shape
  x = x.transpose(0, 1, 3, 4, 6, 2, 5, 7, 8)
  return x.reshape(b, i * r * j * s, q * p, h, t)


def _bias(
  rows: Bool[np.ndarray, 'i r q k m'],
  columns: Bool[np.ndarray, 'j s p l m'],
  *,
  table: Float[Array, 'm m h'],
) -> Float[Array, 'tiles 1 h queries keys']:
  """The table's entry for a query and a key that it sees; else -infinity."""
  # By a product, whose gradient is one, too, and in float32: many pairs share
  # an entry, and the gradient is their sum.
  bias = jnp.einsum(
    'irqkm,jspln,mnh->irjshqpkl',
    rows.astype(np.float32),
    columns.astype(np.float32),
    table.astype(jnp.float32),
    precision='highest',
  )
  # Left to the program: as a constant it would be as large as the bias.
  seen = jnp.logical_and(
    np.expand_dims(rows.any(-1), (2, 3, 4, 6, 8)),
    np.expand_dims(columns.any(-1), (0, 1, 4, 5, 7)),
  )
  i, r, j, s, h, q, p, k, l = bias.shape
  bias = jnp.where(seen, bias, -jnp.inf)
  return bias.reshape(i * r * j * s, 1, h, q * p, k * l)
