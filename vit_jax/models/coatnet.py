"""CoAtNet.

CoAtNet: Marrying Convolution and Attention for All Data Sizes,
arXiv:2106.04803.

What is different about it:
- early stages are convolutions (MBConv), late ones attention over the whole map
  (section 2.2), and all blocks add what they make of a normed input to it;
- the attention has a learned bias for each head and difference of positions,
  which is a depthwise convolution as wide as the map (equation 3);
- the first block of a stage halves the map, on both paths (appendix A.1).

The tables of biases are as large as the maps, and are resampled for another
size of the image. Any image will do: maps are rounded up. Batch norm has
running statistics, in the collection `batch_stats`.

No code was published. What the paper leaves open is as in google-research/
maxvit, whose blocks are these: biases, epsilons, the form of GELU, a norm after
the average; the stem without biases and most of the initial parameters are
timm's. The tables are resampled bicubically, as those of Swin, and not
bilinearly. timm's own wiring is an option: `WIRING_OF_TIMM`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Float

from vit_jax.layers.attention import MultiHeadAttention
from vit_jax.layers.conv import ConvBN
from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.layers.mlp import GELU, Mlp
from vit_jax.layers.squeeze_excite import SqueezeExcite
from vit_jax.layers.window import Size, pairwise
from vit_jax.lookup import choose, unknown
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# Convolutions start as in EfficientNet, attention and MLPs as in ViT.
INIT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
_NORM = dict(momentum=0.99, epsilon=1e-3)

gelu = GELU['tanh']
layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
conv_bn = functools.partial(ConvBN, same_padding=True, **_NORM)


def _size(
  stem_width: int, widths: tuple, depths: tuple, **others: Any
) -> dict[str, Any]:
  fields = dict(stem_width=stem_width, widths=widths, depths=depths)
  return fields | dict(layout='CCTT', strides=(2, 2, 2, 2)) | others


def _mixed(*widths: int) -> dict[str, Any]:
  """Both kinds of blocks, of two widths, on the maps of stride 16."""
  return _size(
    192,
    widths,
    (2, 4, 8, 42, 2),
    layout='CCCTT',
    strides=(2, 2, 2, 1, 2),
    head_dim=128,
  )


# Tables 3, 11 and 12. Those of 6 make 1.34 billion parameters, where the paper
# has 1.47.
SIZES = {
  '0': _size(64, (96, 192, 384, 768), (2, 3, 5, 2)),
  '1': _size(64, (96, 192, 384, 768), (2, 6, 14, 2)),
  '2': _size(128, (128, 256, 512, 1024), (2, 6, 14, 2)),
  '3': _size(192, (192, 384, 768, 1536), (2, 6, 14, 2)),
  '4': _size(192, (192, 384, 768, 1536), (2, 12, 28, 2)),
  '5': _size(192, (256, 512, 1280, 2048), (2, 12, 28, 2), head_dim=64),
  '6': _mixed(192, 384, 768, 1536, 2048),
  '7': _mixed(256, 512, 1024, 2048, 3072),
}

VARIANTS = tuple(SIZES)

# Fields of coatnet_0_224 and so on at timm, besides their
# `representation_size`. The paper measured such strides, too: 82.0 % instead of
# 81.6 for CoAtNet-0, at more cost ("Stride-2 DConv2D").
WIRING_OF_TIMM = {'stride_in': 'depthwise', 'pool': 'avg'}


def variant(name: str) -> dict[str, Any]:
  """Fields of `CoAtNet` for e.g. '0'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


STRIDES_IN = ('expand', 'depthwise')
POOLS = {
  'max': nn.max_pool,
  'avg': functools.partial(nn.avg_pool, count_include_pad=False),
}


def reduce(x: Float[Array, 'b h w c'], *, stride: int, pool: str) -> Array:
  """Pools stride x stride positions; fewer at the far edges."""
  if stride == 1:
    return x
  window = (stride, stride)
  return POOLS[pool](x, window, strides=window, padding='SAME')


def shortcut(
  x: Float[Array, 'b h w c'], *, width: int, stride: int, pool: str
) -> Float[Array, 'b y x d']:
  """What a block adds to: the input, pooled and made wider, if need be.

  With the projection as the submodule `shortcut` of the caller.
  """
  x = reduce(x, stride=stride, pool=pool)
  return x if x.shape[-1] == width else nn.Dense(width, name='shortcut')(x)


class MBConv(nn.Module):
  """An inverted bottleneck on a norm (appendix A.1, equation 5).

  Attributes:
    width: of the map that comes out; in the middle it is 4 times as wide.
    stride_in, pool: as in `CoAtNet`.
    stride: 2 to halve the map.
  """

  width: int
  stride_in: str
  pool: str
  stride: int = 1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b y x d']:
    """Returns the new map; `drop_path` is the rate of the branch."""
    hidden = 4 * self.width
    y = nn.BatchNorm(use_running_average=not train, name='norm', **_NORM)(x)
    early, late = self.stride, 1
    if self.stride_in == 'depthwise':
      early, late = late, early
    # A name of its own where the map is halved: the kinds of blocks differ.
    first = 'downsample' if self.stride > 1 else 'expand'
    y = gelu(conv_bn(hidden, 1, early, name=first)(y, train=train))
    depthwise = conv_bn(
      hidden,
      3,
      late,
      groups=hidden,
      kernel_init=nn.initializers.normal(math.sqrt(2) / 3),
      name='depthwise',
    )
    y = gelu(depthwise(y, train=train))
    y = SqueezeExcite(self.width // 4, name='squeeze_excite')(y)
    y = nn.Dense(self.width, kernel_init=INIT, name='project')(y)
    x = shortcut(x, width=self.width, stride=self.stride, pool=self.pool)
    return x + DropPath()(y, rate=drop_path, train=train)


class RelativePositionBias(nn.Module):
  """A learned bias for each head and difference of positions (appendix A.1).

  Parameters: table (2h - 1, 2w - 1, k) for k heads and maps of h x w.

  Attributes:
    num_heads: k.
  """

  num_heads: int

  @nn.compact
  def __call__(self, size: Size) -> Float[Array, '1 k n n']:
    """Returns the bias of each pair (query, key) of positions."""
    h, w = size
    table = self.param(
      'table',
      nn.initializers.normal(0.02),
      (2 * h - 1, 2 * w - 1, self.num_heads),
    )
    return pairwise(table, window=size)[None]


class Transformer(nn.Module):
  """Attention over the map and an MLP, each on a norm (equations 3 and 4).

  Attributes:
    width: of the map that comes out.
    head_dim: width of a head of the attention; must divide that of the map.
    pool: as in `CoAtNet`.
    stride: 2 to halve the map.
  """

  width: int
  head_dim: int
  pool: str
  stride: int = 1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b y x d']:
    """Returns the new map; `drop_path` is the rate of both branches."""
    num_heads = self.width // self.head_dim
    y = layer_norm(name='norm1')(x)
    y = reduce(y, stride=self.stride, pool=self.pool)
    b, h, w, c = y.shape
    bias = RelativePositionBias(num_heads, name='position_bias')((h, w))
    attn = MultiHeadAttention(num_heads, width=self.width, name='attn')
    y = attn(y.reshape(b, h * w, c), bias=bias).reshape(b, h, w, self.width)
    x = shortcut(x, width=self.width, stride=self.stride, pool=self.pool)
    x = x + DropPath()(y, rate=drop_path, train=train)
    y = Mlp(4 * self.width, name='mlp')(layer_norm(name='norm2')(x))
    return x + DropPath()(y, rate=drop_path, train=train)


class Stage(nn.Module):
  """Blocks on maps of one size and width.

  Attributes:
    make_block: name, and stride if not 1 -> block.
    width: of the map.
    depth: number of blocks.
    stride: 2 for a first block that halves the map.
    drop_path: rates of the first and the last block.
    scan, remat: as in `CoAtNet`.
  """

  make_block: Callable[..., nn.Module]
  width: int
  depth: int
  stride: int
  drop_path: Sequence[float]
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the new map."""
    entry = functools.partial(self.make_block, stride=self.stride)
    is_other = self.stride > 1 or x.shape[-1] != self.width
    return apply_blocks(
      self.make_block,
      x,
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
      first=[entry] if is_other else [],
    )


class CoAtNet(nn.Module):
  """A stem of stride 2, stages, the norm of the average, and a linear head.

  Attributes:
    stem_width: of the map that enters the first stage.
    widths: of the map of each stage.
    depths: number of blocks of each stage.
    layout: for each stage, 'C' for convolutions or 'T' for attention.
    strides: of each stage.
    head_dim: width of a head of the attention.
    stride_in: which convolution of a block that halves the map does so,
      'expand', the first, or 'depthwise'.
    pool: how the other paths are halved, 'max' or 'avg'.
    representation_size: width of a dense layer with tanh before the head; None
      for no such layer.
    num_classes: of the head; None for no head.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a stage, but for the first, share one program;
      see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  stem_width: int
  widths: tuple[int, ...]
  depths: tuple[int, ...]
  layout: str
  strides: tuple[int, ...]
  head_dim: int = 32
  stride_in: str = 'expand'
  pool: str = 'max'
  representation_size: int | None = None
  num_classes: int | None = None
  drop_path: float | Sequence[float] = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and a map of each stage.

    The maps have strides of 4, 8, 16 ... pixels, rounded up, without a norm.
    The features are normed.

    Raises:
      ValueError: if the fields do not go together.
    """
    self.check()
    x = conv_bn(self.stem_width, 3, 2, name='stem1')(image, train=train)
    x = nn.Conv(
      self.stem_width,
      (3, 3),
      use_bias=False,
      kernel_init=INIT,
      name='stem2',
    )(gelu(x))
    rates = stage_rates(self.drop_path, depths=self.depths)
    pyramid = ()
    for i, depth in enumerate(self.depths):
      x = Stage(
        make_block=self.make_block(i),
        width=self.widths[i],
        depth=depth,
        stride=self.strides[i],
        drop_path=rates[i],
        scan=self.scan,
        remat=self.remat,
        name=f'stage_{i}',
      )(x, train=train)
      pyramid = (*pyramid, x)
    pooled = layer_norm(name='norm')(x.mean(axis=(1, 2)))  # (B, D)
    if self.representation_size is not None:
      dense = nn.Dense(self.representation_size, name='pre_logits')
      pooled = nn.tanh(dense(pooled))
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(
        self.num_classes, kernel_init=nn.initializers.normal(0.02), name='head'
      )(pooled)
    return Output(logits, pooled, pyramid)

  def check(self) -> None:
    """Raises a ValueError if the fields do not go together."""
    fields = (self.widths, self.depths, self.layout, self.strides)
    if len(set(map(len, fields))) > 1 or set(self.layout) - set('CT'):
      raise ValueError(
        f'widths={self.widths}, depths={self.depths}, layout={self.layout!r} '
        f'and strides={self.strides} must have an item for each stage, that of '
        "layout 'C' or 'T'"
      )
    for width, kind in zip(self.widths, self.layout, strict=True):
      if kind == 'T' and width % self.head_dim:
        raise ValueError(
          f'head_dim={self.head_dim} does not divide the width {width} of a '
          'stage of attention: choose one that does'
        )
    choose(POOLS, word=self.pool, kind='pool')
    if self.stride_in not in STRIDES_IN:
      raise unknown(self.stride_in, known=STRIDES_IN, kind='stride_in')

  def make_block(self, stage: int) -> Callable[..., nn.Module]:
    """Returns name, and stride if not 1 -> block of a stage."""
    width = self.widths[stage]
    if self.layout[stage] == 'C':
      return functools.partial(MBConv, width, self.stride_in, self.pool)
    return functools.partial(Transformer, width, self.head_dim, self.pool)
