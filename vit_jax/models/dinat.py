"""NAT and DiNAT.

Neighborhood Attention Transformer, arXiv:2204.07143, and Dilated Neighborhood
Attention Transformer, arXiv:2209.15001.

What is different about them:
- each token attends to the 7 x 7 tokens nearest to it, so that the window moves
  with the token, as that of a convolution, and nothing has to be shifted;
- in DiNAT every other block takes them from further away, with steps as large
  as the map allows: local and global in turn, at the same cost;
- patches and halvings overlap: they are convolutions of 3 x 3 and stride 2;
- the models DiNAT_s ('s_T', ...) are Swin with another attention and nothing
  else: patches and merging are Swin's.

Any image will do, and the parameters do not depend on its size. But dilations
belong to a size: those of the variants are for 224 pixels, or for 384 where it
is in the name, and a map that a window exceeds is enlarged with zeros for the
attention. For other images give `dilations`, for each stage up to the side of
its map over that of the window.

Departures from SHI-Labs/Neighborhood-Attention-Transformer: halving stands at
the start of a stage; blocks may be scanned; there are no isotropic models.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Bool, Float

from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.layers.neighborhood import NeighborhoodAttention
from vit_jax.layers.norm import LayerScale
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.layers.window import pad_to_multiple
from vit_jax.lookup import choose
from vit_jax.models import swin
from vit_jax.models.scan import apply_blocks
from vit_jax.models.swin import INIT, PatchMerging, mlp, norm
from vit_jax.types import Array, Output

NO_DILATION = (1, 1, 1, 1)
AT_224 = (8, 4, 2, 1)
AT_384 = (13, 6, 3, 1)


def _size(
  width: int,
  depth: int,
  mlp_ratio: int,
  dilations: tuple[int, ...],
  **options: Any,
) -> dict[str, Any]:
  """`depth` is that of the third stage. A head has 32 components."""
  return dict(
    width=width,
    depths=(3, 4, depth, 5),
    num_heads=tuple(width // 32 * 2**i for i in range(4)),
    mlp_ratio=mlp_ratio,
    dilations=dilations,
    **options,
  )


def _as_swin(name: str, dilations: tuple[int, ...]) -> dict[str, Any]:
  others = dict(mlp_ratio=4, dilations=dilations, overlap=False)
  return swin.SIZES[name] | others


# nat.py, dinat.py and dinats.py of the authors.
SIZES = {
  'nat_M': _size(64, 6, 3, NO_DILATION),
  'nat_T': _size(64, 18, 3, NO_DILATION),
  'nat_S': _size(96, 18, 2, NO_DILATION, layer_scale=1e-5),
  'nat_B': _size(128, 18, 2, NO_DILATION, layer_scale=1e-5),
  'M': _size(64, 6, 3, AT_224),
  'T': _size(64, 18, 3, AT_224),
  'S': _size(96, 18, 2, AT_224),
  'B': _size(128, 18, 2, AT_224, layer_scale=1e-5),
  'L': _size(192, 18, 2, AT_224),
  'L_384': _size(192, 18, 2, AT_384),
  'L_384_11x11': _size(192, 18, 2, AT_224, kernel_size=11),
  's_T': _as_swin('T', AT_224),
  's_S': _as_swin('S', AT_224),
  's_B': _as_swin('B', AT_224),
  's_L': _as_swin('L', AT_224),
  's_L_384': _as_swin('L', AT_384),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `DiNAT` for e.g. 'T', 'nat_T', 's_T' or 'L_384'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


def halving(width: int, *, use_bias: bool = True, name: str) -> nn.Conv:
  """A convolution that takes (b, h, w, c) to half the size, rounded up."""
  return nn.Conv(
    width,
    (3, 3),
    strides=(2, 2),
    padding=((1, 1), (1, 1)),
    use_bias=use_bias,
    name=name,
  )


class OverlappingPatchEmbed(nn.Module):
  """Two halvings of the image (NAT, version 1, section 3.4).

  Attributes:
    width: of the map.
  """

  width: int

  @nn.compact
  def __call__(self, image: Float[Array, 'b h w c']) -> Float[Array, 'b y x d']:
    """Returns the map at a quarter of the size, rounded up."""
    x = halving(self.width // 2, name='conv1')(image)
    return halving(self.width, name='conv2')(x)


class OverlappingMerging(nn.Module):
  """A halving to twice the width, and a norm (as above)."""

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b y x e']:
    """Returns the map at half the size, rounded up."""
    x = halving(2 * x.shape[-1], use_bias=False, name='reduction')(x)
    return norm(name='norm')(x)


class Block(nn.Module):
  """Attention to neighbours and an MLP, each on a norm, scaled and added.

  Attributes: as in `DiNAT`, of one stage.
  """

  num_heads: int
  dilation: int
  kernel_size: int
  mlp_ratio: int
  layer_scale: float | None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w d'],
    *,
    dilated: bool | Bool[Array, ''] = False,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b h w d']:
    """Returns the new map; `drop_path` is the rate of both branches."""
    y = self.attend(norm(name='norm1')(x), dilated=dilated)
    if self.layer_scale is not None:
      y = LayerScale(self.layer_scale, name='scale1')(y)
    x = x + DropPath()(y, rate=drop_path, train=train)
    y = mlp(self.mlp_ratio * x.shape[-1], name='mlp')(norm(name='norm2')(x))
    if self.layer_scale is not None:
      y = LayerScale(self.layer_scale, name='scale2')(y)
    return x + DropPath()(y, rate=drop_path, train=train)

  def attend(self, x: Array, *, dilated: bool | Array) -> Array:
    """Attention to the nearest tokens, or to some further away."""
    attn = NeighborhoodAttention(self.num_heads, self.kernel_size, name='attn')
    near = lambda attn, x: attn(x)
    far = lambda attn, x: attn(x, dilation=self.dilation)
    if self.dilation == 1 or dilated is False:
      return near(attn, x)
    if dilated is True:
      return far(attn, x)
    return nn.cond(dilated, far, near, attn, x)  # it is traced: scanned blocks


class Stage(nn.Module):
  """Blocks on maps of one size, after a halving in all stages but the first.

  Attributes:
    make_block: name -> block.
    make_merging: name -> what halves the map; None to leave it as it is.
    depth: number of blocks; every other is dilated.
    drop_path: rates of the first and the last block.
    scan, remat: as in `DiNAT`.
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
      dilated=[i % 2 == 1 for i in range(self.depth)],
    )


class DiNAT(nn.Module):
  """Patches, stages, the average of the normed tokens, and a linear head.

  Attributes:
    width: of the first stage; each of the others has twice that before it.
    depths: number of blocks of each stage.
    num_heads: of the attention in each stage; must divide the width there.
    mlp_ratio: width of the hidden layer of an MLP over that of the map.
    dilations: steps between neighbours, in every other block of each stage; 1
      in those between.
    kernel_size: side of the neighbourhoods, in tokens.
    num_classes: of the head; None for no head.
    overlap: whether patches, of 4 x 4 pixels, and halvings overlap; if not,
      they are those of Swin.
    layer_scale: what the factors of the branches start from; None for none.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a stage share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  width: int
  depths: tuple[int, ...]
  num_heads: tuple[int, ...]
  mlp_ratio: int
  dilations: tuple[int, ...]
  kernel_size: int = 7
  num_classes: int | None = None
  overlap: bool = True
  layer_scale: float | None = None
  drop_path: float | Sequence[float] = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and a map of each stage.

    The maps have strides of 4, 8, 16 ... pixels, rounded up, and are those that
    the next stage reads, without a norm. The features are normed.

    Raises:
      ValueError: if the fields of the stages do not go together, or there is no
        such neighbourhood.
    """
    if not len(self.depths) == len(self.num_heads) == len(self.dilations):
      raise ValueError(
        f'depths={self.depths}, num_heads={self.num_heads} and '
        f'dilations={self.dilations} must have a number for each stage'
      )
    if self.overlap:
      x = OverlappingPatchEmbed(self.width, name='patch_embed')(image)
    else:
      x = pad_to_multiple(image, sides=(4, 4))
      x = PatchEmbed(self.width, 4, name='patch_embed')(x)
    x = norm(name='patch_norm')(x)
    merging = OverlappingMerging if self.overlap else PatchMerging
    rates = stage_rates(self.drop_path, depths=self.depths)
    pyramid = ()
    for i, depth in enumerate(self.depths):
      x = Stage(
        make_block=functools.partial(
          Block,
          num_heads=self.num_heads[i],
          dilation=self.dilations[i],
          kernel_size=self.kernel_size,
          mlp_ratio=self.mlp_ratio,
          layer_scale=self.layer_scale,
        ),
        make_merging=merging if i > 0 else None,
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
