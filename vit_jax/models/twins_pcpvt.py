"""Twins-PCPVT.

Twins: Revisiting the Design of Spatial Attention in Vision Transformers,
arXiv:2104.13840.

What is different from PVT:
- positions follow from the neighbours of a token: the first block of each stage
  ends with the positional encoding generator of CPVT (section 3.1);
- there is no class token: the features are an average.

With no positions of its own, the model takes images of any size from 32 x 32
pixels with the same parameters: rows and columns at the bottom and the right
that do not fill a patch, or a group of keys, are left out.

Departures from Meituan-AutoML/Twins: blocks may be scanned, all of a stage but
the first.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Float

from vit_jax.layers.drop_path import stage_rates
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.layers.peg import PEG
from vit_jax.lookup import choose
from vit_jax.models import pvt
from vit_jax.models.pvt import INIT, Block, check_stages, norm, patch_norm
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# Table 1: those of PVT without the tiny one.
SIZES = {
  'S': pvt.SIZES['S'],
  'B': pvt.SIZES['M'],
  'L': pvt.SIZES['L'],
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `TwinsPCPVT` for e.g. 'S'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


class FirstBlock(Block):
  """A block, and positions after it."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b h w d']:
    """Returns the new map; `drop_path` is the rate of both branches."""
    return PEG(name='peg')(
      super().__call__(x, drop_path=drop_path, train=train)
    )


class Stage(nn.Module):
  """Patches and blocks on maps of one size.

  Attributes:
    patch_size: in positions of the map before.
    width: of the map.
    depth: number of blocks.
    num_heads, mlp_ratio, reduction: of the blocks.
    drop_path: rates of the first and the last block.
    scan, remat: as in `TwinsPCPVT`.
  """

  patch_size: int
  width: int
  depth: int
  num_heads: int
  mlp_ratio: int
  reduction: int
  drop_path: Sequence[float]
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the new map."""
    x = PatchEmbed(self.width, self.patch_size, name='patch_embed')(x)
    fields = (self.num_heads, self.mlp_ratio, self.reduction)
    return apply_blocks(
      functools.partial(Block, *fields),
      patch_norm(name='patch_norm')(x),
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
      first=[functools.partial(FirstBlock, *fields)],
    )


class TwinsPCPVT(nn.Module):
  """Stages, the average of the normed tokens, and a linear head.

  Attributes: as in `PVT`, but the last stage may be reduced, too.
  """

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  num_heads: tuple[int, ...]
  mlp_ratios: tuple[int, ...]
  reductions: tuple[int, ...]
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

    The maps have strides of 1, 2, 4 ... patches, and are those that the next
    stage reads, without a norm, as in timm. The features are normed.

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
        patch_size=self.patch_size if i == 0 else 2,
        width=self.widths[i],
        depth=depth,
        num_heads=self.num_heads[i],
        mlp_ratio=self.mlp_ratios[i],
        reduction=self.reductions[i],
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
