"""ConvNeXt.

A ConvNet for the 2020s, arXiv:2201.03545.

What is different about it:
- no attention: a depthwise convolution of 7 x 7 mixes positions, an MLP the
  channels, and the two share one norm and one residual (figure 4);
- all else is as in Swin: patches of 4 x 4, four stages, each of half the size
  and twice the width of that before it, layer norms, a GELU;
- the average is normed, not the map;
- the isotropic models keep to one stage of 16 x 16 patches, as ViT does, and do
  not norm the patches.

Any image of 32 x 32 pixels and more will do: rows and columns at the bottom and
the right that do not fill a patch, or a pair at a halving, are left out.

Departures from facebookresearch/ConvNeXt: blocks may be scanned.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Float

from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import LayerScale
from vit_jax.lookup import choose
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# The reference cuts this distribution at 100 deviations: that is, not at all.
INIT = nn.initializers.normal(0.02)

norm = functools.partial(nn.LayerNorm, epsilon=1e-6)


def _size(width: int, depths: tuple[int, ...]) -> dict[str, Any]:
  return dict(width=width, depths=depths)


def _isotropic(
  width: int, depth: int, layer_scale: float | None
) -> dict[str, Any]:
  return _size(width, (depth,)) | dict(
    patch_size=16, patch_norm=False, layer_scale=layer_scale
  )


SIZES = {
  'T': _size(96, (3, 3, 9, 3)),  # section 3
  'S': _size(96, (3, 3, 27, 3)),
  'B': _size(128, (3, 3, 27, 3)),
  'L': _size(192, (3, 3, 27, 3)),
  'XL': _size(256, (3, 3, 27, 3)),
  'iso_S': _isotropic(384, 18, None),  # section 3.3 and appendix A.1
  'iso_B': _isotropic(768, 18, None),
  'iso_L': _isotropic(1024, 36, 1e-6),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `ConvNeXt` for e.g. 'T' or 'iso_S'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


def patches(width: int, *, side: int, name: str) -> nn.Conv:
  """A linear map of each patch of side x side positions.

  It takes (b, h, w, c) to (b, h // side, w // side, width).
  """
  return nn.Conv(
    width,
    (side, side),
    strides=(side, side),
    padding='VALID',
    kernel_init=INIT,
    name=name,
  )


class Block(nn.Module):
  """A depthwise convolution and an MLP, with one norm, added to the stream.

  Attributes: as in `ConvNeXt`.
  """

  layer_scale: float | None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b h w d']:
    """Returns the new map; `drop_path` is the rate of the only branch."""
    d = x.shape[-1]
    y = nn.Conv(
      d, (7, 7), feature_group_count=d, kernel_init=INIT, name='depthwise'
    )(x)
    y = norm(name='norm')(y)
    y = Mlp(
      4 * d,
      gelu='erf',
      kernel_init=INIT,
      bias_init=nn.initializers.zeros,
      name='mlp',
    )(y)
    if self.layer_scale is not None:
      y = LayerScale(self.layer_scale, name='scale')(y)
    return x + DropPath()(y, rate=drop_path, train=train)


class Stage(nn.Module):
  """Blocks on maps of one size.

  Attributes:
    width: of the map; if that of the input differs, it is halved first.
    depth: number of blocks.
    drop_path: rates of the first and the last block.
    layer_scale, scan, remat: as in `ConvNeXt`.
  """

  width: int
  depth: int
  drop_path: Sequence[float]
  layer_scale: float | None
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w d'], *, train: bool
  ) -> Float[Array, 'b y x e']:
    """Returns the new map."""
    if x.shape[-1] != self.width:
      x = patches(self.width, side=2, name='downsample')(norm(name='norm')(x))
    return apply_blocks(
      functools.partial(Block, layer_scale=self.layer_scale),
      x,
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )


class ConvNeXt(nn.Module):
  """Patches, stages, the norm of the average, and a linear head.

  Attributes:
    width: of the first stage; each of the others has twice that before it.
    depths: number of blocks of each stage.
    num_classes: of the head; None for no head.
    patch_size: in pixels.
    patch_norm: whether there is a norm after the patches.
    layer_scale: what the factors of the branches start from; None for none.
    head_std: deviation of the head's kernel at the start.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a stage share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  width: int
  depths: tuple[int, ...]
  num_classes: int | None = None
  patch_size: int = 4
  patch_norm: bool = True
  layer_scale: float | None = 1e-6
  head_std: float = 0.02
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
      ValueError: if the image is too small for the last stage.
    """
    stride = self.patch_size * 2 ** (len(self.depths) - 1)
    if min(image.shape[1:3]) < stride:
      raise ValueError(
        f'an image of {image.shape[1]}x{image.shape[2]} is smaller than the '
        f'stride of the last stage, {stride}: enlarge the image or choose a '
        'smaller patch_size'
      )
    x = patches(self.width, side=self.patch_size, name='patch_embed')(image)
    if self.patch_norm:
      x = norm(name='patch_norm')(x)
    rates = stage_rates(self.drop_path, depths=self.depths)
    pyramid = ()
    for i, depth in enumerate(self.depths):
      x = Stage(
        width=self.width * 2**i,
        depth=depth,
        drop_path=rates[i],
        layer_scale=self.layer_scale,
        scan=self.scan,
        remat=self.remat,
        name=f'stage_{i}',
      )(x, train=train)
      pyramid = (*pyramid, x)
    pooled = norm(name='norm')(x.mean(axis=(1, 2)))  # (B, D)
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(
        self.num_classes,
        kernel_init=nn.initializers.normal(self.head_std),
        name='head',
      )(pooled)
    return Output(logits, pooled, pyramid)
