"""Swin Transformer V2.

Swin Transformer V2: Scaling Up Capacity and Resolution, arXiv:2111.09883.

What is different from Swin:
- the norms stand after attention and MLP, on the branch, and start at zero, so
  that a block starts as the identity (res-post-norm, section 3.2);
- attention compares directions: the cosine of query and key, scaled by a
  learned factor of at most 100 for each head (section 3.2);
- the bias of positions comes from a small MLP over log-spaced distances, which
  carries over to windows of another size (section 3.3);
- patches are merged before their norm.

The keys have no bias: it would change their directions. Where the windows of
the fine-tuning are larger than those of the pre-training, distances are still
measured in the latter (`pretrained_windows`).

Departures from microsoft/Swin-Transformer: as in `swin.py`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vit_jax.layers.attention import (
  DotProduct,
  FusedProjection,
  head_shape,
  project_out,
)
from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.window import (
  Size,
  largest_window,
  pairwise,
  within_windows,
)
from vit_jax.lookup import unknown
from vit_jax.models.swin import INIT, SIZES, Swin, gather_2x2, mlp, norm
from vit_jax.types import Array

# Size / side of the windows: 8 or 16 at 256 pixels; 12 at 192, the windows of
# the pre-training on ImageNet-22k, from which 16 at 256 and 24 at 384 come.
VARIANTS = (
  *('T/8', 'T/16', 'S/8', 'S/16', 'B/8', 'B/16'),
  *('B/12', 'B/12to16', 'B/12to24', 'L/12', 'L/12to16', 'L/12to24'),
)
# At 192 pixels the map of the last stage is smaller than a window.
_PRETRAINED_WINDOWS = (12, 12, 12, 6)


def variant(name: str) -> dict[str, Any]:
  """Fields of `SwinV2` for e.g. 'T/8' or 'B/12to24'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  if name not in VARIANTS:
    raise unknown(name, known=VARIANTS, kind='variant')
  size, _, windows = name.partition('/')
  before, _, window = windows.rpartition('to')
  fields = SIZES[size] | {'window_size': int(window)}
  return fields | (
    {'pretrained_windows': _PRETRAINED_WINDOWS} if before else {}
  )


class ContinuousPositionBias(nn.Module):
  """A bias for each head from log-spaced distances (section 3.3).

  Attributes:
    num_heads: k.
    pretrained_window: side of the windows in which distances are measured; None
      for the windows at hand.
  """

  num_heads: int
  pretrained_window: int | None = None

  @nn.compact
  def __call__(self, window: Size) -> Float[Array, '1 k n n']:
    """Returns the bias of each pair (query, key) in windows of that size."""
    coordinates = log_coordinates(window, unit=self.pretrained_window)
    hidden = nn.Dense(512, kernel_init=INIT, name='fc1')(coordinates)
    table = nn.Dense(
      self.num_heads, use_bias=False, kernel_init=INIT, name='fc2'
    )(nn.relu(hidden))  # (Y, X, K)
    return pairwise(16 * nn.sigmoid(table), window=window)[None]


def log_coordinates(window: Size, *, unit: int | None) -> np.ndarray:
  """Differences of rows and columns on a logarithmic scale (section 3.3).

  Args:
    window: (h, w) in tokens.
    unit: side of a window whose largest difference becomes 8 before the
      logarithm, as in the reference, and log2(9) / 3 after it; None for that of
      the window along each axis.

  Returns:
    float32 (2h - 1, 2w - 1, 2).
  """
  axes = []
  for side in window:
    largest = (unit or side) - 1
    difference = np.arange(1 - side, side) * 8 / max(largest, 1)
    axes.append(np.sign(difference) * np.log2(1 + np.abs(difference)) / 3)
  grid = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)
  return grid.astype(np.float32)


class CosineAttention(nn.Module):
  """Self-attention by the cosine of query and key (section 3.2).

  Parameters: as in `MultiHeadAttention`, but the biases are q_bias and v_bias
  (h, t); and logit_scale (h,), the logarithm of the inverse temperature.

  Attributes:
    num_heads: h; must divide the width.
  """

  num_heads: int

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b n d'],
    *,
    bias: Float[Array, '#b #h #n #n'],
    mask: Bool[Array, 'w #h #n #n'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Mixes the tokens of each example; see `dot_product_attention`."""
    width = tokens.shape[-1]
    heads = head_shape(width, num_heads=self.num_heads)
    query, key, value = FusedProjection(
      3, heads, kernel_init=INIT, use_bias=False, name='qkv'
    )(tokens)
    q_bias = self.param('q_bias', nn.initializers.zeros, heads)
    v_bias = self.param('v_bias', nn.initializers.zeros, heads)
    start = nn.initializers.constant(math.log(10))
    logit_scale = self.param('logit_scale', start, (self.num_heads,))
    scale = jnp.exp(jnp.minimum(logit_scale, math.log(100)))
    mixed = DotProduct()(
      direction(query + q_bias[None, None]) * scale[None, None, :, None],
      direction(key),
      value + v_bias[None, None],
      bias=bias,
      mask=mask,
      scale=1.0,
    )
    return project_out(mixed, width=width, kernel_init=INIT)


def direction(x: Float[Array, '*b t']) -> Float[Array, '*b t']:
  """The vectors at length 1, but 0 where they are 0."""
  y = x.astype(jnp.float32)
  # The floor is under the root: the gradient of a length at 0 is infinite, and
  # the keys of padded tokens are 0.
  square = jnp.maximum(jnp.sum(y * y, axis=-1, keepdims=True), 1e-24)
  return (y * jax.lax.rsqrt(square)).astype(x.dtype)


class Block(nn.Module):
  """Attention in windows and an MLP, each with a norm at its end.

  Attributes: as in `SwinV2`, of one stage.
  """

  num_heads: int
  window_size: int
  pretrained_window: int | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w d'],
    *,
    shifted: bool | Bool[Array, ''] = False,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b h w d']:
    """Returns the new map; `drop_path` is the rate of both branches."""
    window = largest_window(x.shape, side=self.window_size)
    bias = ContinuousPositionBias(
      self.num_heads, self.pretrained_window, name='position_bias'
    )(window)
    attn = CosineAttention(self.num_heads, name='attn')
    y = within_windows(
      lambda tokens, mask: attn(tokens, bias=bias, mask=mask),
      x,
      window=window,
      shifted=shifted,
    )
    y = norm(scale_init=nn.initializers.zeros, name='norm1')(y)
    x = x + DropPath()(y, rate=drop_path, train=train)
    y = mlp(4 * x.shape[-1], name='mlp')(x)
    y = norm(scale_init=nn.initializers.zeros, name='norm2')(y)
    return x + DropPath()(y, rate=drop_path, train=train)


class PatchMerging(nn.Module):
  """Merges 2 x 2 tokens into one of twice the width."""

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b y x e']:
    """Returns the map at half the size, rounded up."""
    reduction = nn.Dense(
      2 * x.shape[-1], use_bias=False, kernel_init=INIT, name='reduction'
    )
    return norm(name='norm')(reduction(gather_2x2(x)))


class SwinV2(Swin):
  """`Swin` with other blocks and another merging.

  Attributes: those of `Swin`, and
    pretrained_windows: for each stage, the side of the windows in which its
      distances are measured; None for the windows at hand.
  """

  pretrained_windows: tuple[int, ...] | None = None

  def make_block(self, stage: int) -> Callable[..., nn.Module]:
    """Returns name -> block of a stage."""
    windows = self.pretrained_windows
    return functools.partial(
      Block,
      num_heads=self.num_heads[stage],
      window_size=self.window_size,
      pretrained_window=windows[stage] if windows else None,
    )

  def make_merging(self) -> Callable[..., nn.Module]:
    """Returns name -> what stands between two stages."""
    return PatchMerging
