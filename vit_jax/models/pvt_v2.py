"""PVT v2.

PVT v2: Improved Baselines with Pyramid Vision Transformer, arXiv:2106.13797.

What is different from PVT:
- patches overlap: each is a convolution whose kernel is almost twice as wide as
  its stride (section 3.3);
- a depthwise convolution in each MLP, whose zeros around the map tell where it
  ends, takes the place of the positions (section 3.4);
- there is no class token: the features are an average, and each stage ends with
  a norm;
- in the linear variant, keys and values are averages of 7 x 7 parts of the map,
  however large it is, so that the cost is linear in the size of the image
  (section 3.2).

Images of any size fit the same parameters. The linear variant takes any; in the
others no map may be smaller than its groups of keys, for which images of 29 x
29 pixels are large enough.

Departures from whai362/PVT: blocks may be scanned. As there, though the paper
does not tell, the linear variant has a GELU on what it attends to and a ReLU
before the convolution of the MLP.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.drop_path import stage_rates
from vit_jax.layers.mlp import GELU
from vit_jax.lookup import choose
from vit_jax.models import pvt
from vit_jax.models.pvt import INIT, check_stages, norm, patch_norm
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

POOLED = 7  # section 3.2: the side of what is attended to, if linear


def _size(*depths: int, **fields: Any) -> dict[str, Any]:
  return (
    dict(
      widths=(64, 128, 320, 512),
      depths=depths,
      num_heads=(1, 2, 5, 8),
      mlp_ratios=(8, 8, 4, 4),
      reductions=(8, 4, 2, 1),
    )
    | fields
  )


# Table 1.
SIZES = {
  'B0': _size(2, 2, 2, 2, widths=(32, 64, 160, 256)),
  'B1': _size(2, 2, 2, 2),
  'B2': _size(3, 4, 6, 3),
  'B2-Li': _size(3, 4, 6, 3, linear=True),
  'B3': _size(3, 4, 18, 3),
  'B4': _size(3, 8, 27, 3),
  'B5': _size(3, 6, 40, 3, mlp_ratios=(4, 4, 4, 4)),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `PVTv2` for e.g. 'B2' or 'B2-Li'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


class PooledReduction(nn.Module):
  """The map averaged over 7 x 7 parts and projected (section 3.2)."""

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b n d']:
    """Returns 49 tokens."""
    b, _, _, d = x.shape
    x = nn.Conv(d, (1, 1), name='proj')(average(x, side=POOLED))
    x = patch_norm(name='norm')(x.reshape(b, -1, d))  # (B, N, D)
    return GELU['erf'](x)


def average(
  x: Float[Array, 'b h w d'], *, side: int
) -> Float[Array, 'b s s d']:
  """The averages of side x side parts of a map, as even as they can be.

  Where they do not come out even, neighbours share a row or a column, as in
  `torch.nn.AdaptiveAvgPool2d`.
  """
  for axis in (1, 2):
    size = x.shape[axis]
    ends = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
    parts = [jax.lax.slice_in_dim(x, *end, axis=axis) for end in ends]
    x = jnp.stack([part.mean(axis) for part in parts], axis)
  return x


class ConvMlp(nn.Module):
  """An MLP with a depthwise convolution of 3 x 3 in it (section 3.4).

  Attributes:
    mlp_dim: width of the hidden layer.
    relu: whether there is a ReLU before the convolution.
  """

  mlp_dim: int
  relu: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b h w d']:
    """Maps each position and its neighbours."""
    hidden = nn.Dense(self.mlp_dim, kernel_init=INIT, name='fc1')(x)
    if self.relu:
      hidden = nn.relu(hidden)
    hidden = nn.Conv(
      self.mlp_dim,
      (3, 3),
      feature_group_count=self.mlp_dim,
      kernel_init=nn.initializers.normal(math.sqrt(2 / 9)),
      name='depthwise',
    )(hidden)
    hidden = GELU['erf'](hidden)
    return nn.Dense(x.shape[-1], kernel_init=INIT, name='fc2')(hidden)


class Block(pvt.Block):
  """That of PVT, on maps alone.

  Attributes:
    linear: as in `PVTv2`.
  """

  linear: bool = False

  def reduce(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b m d']:
    """Returns what is attended to."""
    if self.linear:
      return PooledReduction(name='reduction')(x)
    return super().reduce(x)

  def mix_channels(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b h w d']:
    """Returns the other branch."""
    mlp = ConvMlp(self.mlp_ratio * x.shape[-1], relu=self.linear, name='mlp')
    return mlp(x)


class Stage(nn.Module):
  """Overlapping patches and blocks on maps of one size, and a norm.

  Attributes:
    make_block: name -> block.
    stride: S, of the patches; their kernel is 2S - 1 (section 3.3).
    width: of the map.
    depth: number of blocks.
    drop_path: rates of the first and the last block.
    scan, remat: as in `PVTv2`.
  """

  make_block: Callable[..., nn.Module]
  stride: int
  width: int
  depth: int
  drop_path: Sequence[float]
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the new map, y = h / S and x = w / S, rounded up."""
    kernel = 2 * self.stride - 1
    x = nn.Conv(
      self.width,
      (kernel, kernel),
      strides=(self.stride, self.stride),
      padding=self.stride - 1,
      kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
      name='patch_embed',
    )(x)
    x = apply_blocks(
      self.make_block,
      patch_norm(name='patch_norm')(x),
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    return norm(name='norm')(x)


class PVTv2(nn.Module):
  """Stages, the average of the last map, and a linear head.

  Attributes:
    widths: of the map of each stage.
    depths: number of blocks of each stage.
    num_heads: of the attention in each stage; must divide the width there.
    mlp_ratios: hidden width of the MLPs of each stage over that of the map.
    reductions: R of each stage; its keys and values stand for R x R tokens.
    linear: whether they are 7 x 7 averages instead.
    num_classes: of the head; None for no head.
    patch_size: stride of the first patches, in pixels; of the others it is 2.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a stage share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  num_heads: tuple[int, ...]
  mlp_ratios: tuple[int, ...]
  reductions: tuple[int, ...]
  linear: bool = False
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

    The maps have strides of 1, 2, 4 ... patches, rounded up, and are normed.

    Raises:
      ValueError: if the fields do not go together, or the image is too small.
    """
    check_stages(
      widths=self.widths,
      depths=self.depths,
      num_heads=self.num_heads,
      mlp_ratios=self.mlp_ratios,
      reductions=self.reductions,
    )
    rates = stage_rates(self.drop_path, depths=self.depths)
    x, pyramid = image, ()
    for i, depth in enumerate(self.depths):
      x = Stage(
        make_block=functools.partial(
          Block,
          num_heads=self.num_heads[i],
          mlp_ratio=self.mlp_ratios[i],
          reduction=self.reductions[i],
          linear=self.linear,
        ),
        stride=self.patch_size if i == 0 else 2,
        width=self.widths[i],
        depth=depth,
        drop_path=rates[i],
        scan=self.scan,
        remat=self.remat,
        name=f'stage_{i}',
      )(x, train=train)
      pyramid = (*pyramid, x)
    pooled = x.mean(axis=(1, 2))  # (B, D)
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(self.num_classes, kernel_init=INIT, name='head')(pooled)
    return Output(logits, pooled, pyramid)
