"""Swin Transformer.

Swin Transformer: Hierarchical Vision Transformer using Shifted Windows,
arXiv:2103.14030.

What is different about it:
- attention stays within windows of the map, so that its cost is linear in the
  size of the image; every other block shifts them by half a window, which
  connects neighbours;
- positions are a learned bias of the attention, by the difference of rows and
  of columns (equation 4);
- between stages, each 2 x 2 tokens are merged into one of twice the width.

Any image will do: where patches, windows or merged tokens do not come out even,
zeros are added at the bottom and the right, before a shift. A window is never
larger than the map. The parameters do not depend on the size of the image.

Departures from microsoft/Swin-Transformer: along each axis on its own, windows
shrink to the map and are then not shifted, and a shrunk window takes the middle
of its table; a shift masks pairs outright instead of lowering them by 100;
merging stands at the start of a stage, as in timm.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float

from vit_jax.layers.attention import MultiHeadAttention
from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.layers.window import (
  Size,
  largest_window,
  pad_to_multiple,
  pairwise,
  within_windows,
)
from vit_jax.lookup import unknown
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# The reference cuts this distribution at 100 deviations: that is, not at all.
INIT = nn.initializers.normal(0.02)

norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
# Section 3.3: the expansion of each MLP is 4.
mlp = functools.partial(
  Mlp, gelu='erf', kernel_init=INIT, bias_init=nn.initializers.zeros
)


def _size(width: int, depths: tuple, num_heads: tuple) -> dict[str, Any]:
  return dict(width=width, depths=depths, num_heads=num_heads)


# Section 3.3; a head has 32 components.
SIZES = {
  'T': _size(96, (2, 2, 6, 2), (3, 6, 12, 24)),
  'S': _size(96, (2, 2, 18, 2), (3, 6, 12, 24)),
  'B': _size(128, (2, 2, 18, 2), (4, 8, 16, 32)),
  'L': _size(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}

# Size / side of the windows: 7 at 224 pixels, 12 at 384.
VARIANTS = ('T/7', 'S/7', 'B/7', 'B/12', 'L/7', 'L/12')


def variant(name: str) -> dict[str, Any]:
  """Fields of `Swin` for e.g. 'T/7'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  if name not in VARIANTS:
    raise unknown(name, known=VARIANTS, kind='variant')
  size, _, window = name.partition('/')
  return SIZES[size] | {'window_size': int(window)}


class RelativePositionBias(nn.Module):
  """A learned bias for each head and difference of positions (equation 4).

  Parameters: table (2s - 1, 2s - 1, k) for k heads and windows of s x s.

  Attributes:
    num_heads: k.
    window_size: s, the side of the largest windows.
  """

  num_heads: int
  window_size: int

  @nn.compact
  def __call__(self, window: Size) -> Float[Array, '1 k n n']:
    """Returns the bias of each pair (query, key) in windows of that size."""
    side = 2 * self.window_size - 1
    table = self.param('table', INIT, (side, side, self.num_heads))
    h, w = window
    middle = jnp.asarray(table)[
      self.window_size - h : self.window_size + h - 1,
      self.window_size - w : self.window_size + w - 1,
    ]
    return pairwise(middle, window=window)[None]


class Block(nn.Module):
  """Attention in windows and an MLP, each on a norm and added (equation 3).

  Attributes: as in `Swin`, of one stage.
  """

  num_heads: int
  window_size: int

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
    bias = RelativePositionBias(
      self.num_heads, self.window_size, name='position_bias'
    )(window)
    attn = MultiHeadAttention(self.num_heads, kernel_init=INIT, name='attn')
    y = within_windows(
      lambda tokens, mask: attn(tokens, bias=bias, mask=mask),
      norm(name='norm1')(x),
      window=window,
      shifted=shifted,
    )
    x = x + DropPath()(y, rate=drop_path, train=train)
    y = mlp(4 * x.shape[-1], name='mlp')(norm(name='norm2')(x))
    return x + DropPath()(y, rate=drop_path, train=train)


class PatchMerging(nn.Module):
  """Merges 2 x 2 tokens into one of twice the width (section 3.1)."""

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b y x e']:
    """Returns the map at half the size, rounded up."""
    x = norm(name='norm')(gather_2x2(x))
    return nn.Dense(
      x.shape[-1] // 2, use_bias=False, kernel_init=INIT, name='reduction'
    )(x)


def gather_2x2(x: Float[Array, 'b h w d']) -> Float[Array, 'b y x f']:
  """The channels of 2 x 2 tokens in a row: down the left column first."""
  x = pad_to_multiple(x, sides=(2, 2))
  b, h, w, d = x.shape
  x = x.reshape(b, h // 2, 2, w // 2, 2, d).transpose(0, 1, 3, 4, 2, 5)
  return x.reshape(b, h // 2, w // 2, 4 * d)


class Stage(nn.Module):
  """Blocks on maps of one size, after a merging in all stages but the first.

  Attributes:
    make_block: name -> block.
    make_merging: name -> what halves the map; None to leave it as it is.
    depth: number of blocks; every other has shifted windows.
    drop_path: rates of the first and the last block.
    scan, remat: as in `Swin`.
  """

  make_block: Callable[..., nn.Module]
  make_merging: Callable[..., nn.Module] | None
  depth: int
  drop_path: Sequence[float]
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w d'], *, train: bool
  ) -> Float[Array, 'b y x e']:
    """Returns the new map."""
    if self.make_merging is not None:
      x = self.make_merging(name='merging')(x)
    return apply_blocks(
      self.make_block,
      x,
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
      shifted=[i % 2 == 1 for i in range(self.depth)],
    )


class Swin(nn.Module):
  """Patches, stages, the average of the normed tokens, and a linear head.

  Attributes:
    width: of the first stage; each of the others has twice that before it.
    depths: number of blocks of each stage.
    num_heads: of the attention in each stage; must divide the width there.
    window_size: side of the windows, in tokens.
    num_classes: of the head; None for no head.
    patch_size: in pixels.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a stage share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  width: int
  depths: tuple[int, ...]
  num_heads: tuple[int, ...]
  window_size: int
  num_classes: int | None = None
  patch_size: int = 4
  drop_path: float | Sequence[float] = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and a map of each stage.

    The maps have strides of 1, 2, 4 ... patches, rounded up, and are those that
    the next stage reads, without a norm, as in timm. The features are normed.

    Raises:
      ValueError: if `depths` and `num_heads` do not go together.
    """
    if len(self.depths) != len(self.num_heads):
      raise ValueError(
        f'depths={self.depths} and num_heads={self.num_heads} must have a '
        'number for each stage'
      )
    x = pad_to_multiple(image, sides=(self.patch_size, self.patch_size))
    x = PatchEmbed(self.width, self.patch_size, name='patch_embed')(x)
    x = norm(name='patch_norm')(x)
    rates = stage_rates(self.drop_path, depths=self.depths)
    pyramid = ()
    for i, depth in enumerate(self.depths):
      x = Stage(
        make_block=self.make_block(i),
        make_merging=self.make_merging() if i > 0 else None,
        depth=depth,
        drop_path=rates[i],
        scan=self.scan,
        remat=self.remat,
        name=f'stage_{i}',
      )(x, train=train)
      pyramid = (*pyramid, x)
    pooled = norm(name='norm')(x).mean(axis=(1, 2))  # (B, D)
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(self.num_classes, kernel_init=INIT, name='head')(pooled)
    return Output(logits, pooled, pyramid)

  def make_block(self, stage: int) -> Callable[..., nn.Module]:
    """Returns name -> block of a stage."""
    return functools.partial(
      Block, num_heads=self.num_heads[stage], window_size=self.window_size
    )

  def make_merging(self) -> Callable[..., nn.Module]:
    """Returns name -> what stands between two stages."""
    return PatchMerging
