"""EfficientNet.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
arXiv:1905.11946.

What is different about it:
- one small network, B0, was found by a search (table 1); all others are B0 with
  more channels, more blocks and larger images, in a fixed proportion (equation
  3);
- a block is an inverted bottleneck (MBConv): wide in the middle, where its
  convolution is depthwise, narrow and linear at the ends of the shortcut;
- in the middle, squeeze-and-excitation weights the channels.

B8 is of AdvProp (arXiv:1911.09665), L2 of Noisy Student (arXiv:1911.04252).
B7 and L2 are image encoders of ALIGN.

Any image will do: maps are rounded up. Batch norm has running statistics, in
the collection `batch_stats`: with `train=False` they are used and frozen.

Departures from tensorflow/tpu: the last block of all is dropped at the full
rate, as in other models here, and not at (n - 1) / n of it for n blocks; blocks
may be scanned. `same_padding=False` and `epsilon=1e-5` give what was trained in
PyTorch. There the variance in the running statistics is the unbiased estimate,
larger by n / (n - 1) for n positions.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Float

from vit_jax.layers.conv import ConvBN
from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.layers.squeeze_excite import SqueezeExcite
from vit_jax.lookup import choose
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output


class Layout(NamedTuple):
  """What is the same for a stage in all sizes."""

  kernel_size: int
  stride: int
  expansion: int


# Table 1.
STAGES = (
  Layout(3, 1, 1),
  Layout(3, 2, 6),
  Layout(5, 2, 6),
  Layout(3, 2, 6),
  Layout(5, 1, 6),
  Layout(5, 2, 6),
  Layout(3, 1, 6),
)


def _scaled(width: float, depth: float) -> dict[str, Any]:
  """B0 with so many times the channels and the blocks."""
  widths = (16, 24, 40, 80, 112, 192, 320)
  depths = (1, 2, 2, 3, 3, 4, 1)
  return dict(
    widths=tuple(_round(width * x) for x in widths),
    depths=tuple(math.ceil(depth * x) for x in depths),
    stem_width=_round(width * 32),
    head_width=_round(width * 1280),
  )


def _round(channels: float) -> int:
  """The nearest multiple of 8, or the next, so that no tenth is lost."""
  nearest = max(8, int(channels + 4) // 8 * 8)
  return nearest if nearest >= 0.9 * channels else nearest + 8


# As in tensorflow/tpu: powers of 1.1 and 1.2, rounded (section 3.3).
SIZES = {
  'B0': _scaled(1.0, 1.0),
  'B1': _scaled(1.0, 1.1),
  'B2': _scaled(1.1, 1.2),
  'B3': _scaled(1.2, 1.4),
  'B4': _scaled(1.4, 1.8),
  'B5': _scaled(1.6, 2.2),
  'B6': _scaled(1.8, 2.6),
  'B7': _scaled(2.0, 3.1),
  'B8': _scaled(2.2, 3.6),
  'L2': _scaled(4.3, 5.3),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `EfficientNet` for e.g. 'B0'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


class Block(nn.Module):
  """An inverted bottleneck, MBConv (arXiv:1801.04381, figure 4).

  Attributes:
    width: of the map that comes out.
    layout: of the stage.
    same_padding, epsilon: as in `EfficientNet`.
    stride: 2 to halve the map.
  """

  width: int
  layout: Layout
  same_padding: bool
  epsilon: float
  stride: int = 1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b y x d']:
    """Returns the new map; `drop_path` is the rate beside a shortcut."""
    c, side = x.shape[-1], self.layout.kernel_size
    hidden = c * self.layout.expansion
    conv = conv_bn(same_padding=self.same_padding, epsilon=self.epsilon)
    y = x
    if self.layout.expansion > 1:
      y = nn.silu(conv(hidden, 1, name='expand')(y, train=train))
    depthwise = conv(
      hidden,
      side,
      self.stride,
      groups=hidden,
      kernel_init=nn.initializers.normal(math.sqrt(2) / side),
      name='depthwise',
    )
    y = nn.silu(depthwise(y, train=train))
    y = SqueezeExcite(c // 4, name='squeeze_excite')(y)
    y = conv(self.width, 1, name='project')(y, train=train)
    if self.stride > 1 or c != self.width:
      return y
    return x + DropPath()(y, rate=drop_path, train=train)


def conv_bn(*, same_padding: bool, epsilon: float) -> functools.partial[ConvBN]:
  """Returns the makers' convolution and norm (section 5.2)."""
  return functools.partial(
    ConvBN, same_padding=same_padding, epsilon=epsilon, momentum=0.99
  )


class Stage(nn.Module):
  """Blocks on maps of one size and width.

  Attributes:
    width: of the map.
    depth: number of blocks.
    layout: of the stage; its stride is that of the first block.
    drop_path: rates of the first and the last block.
    same_padding, epsilon, scan, remat: as in `EfficientNet`.
  """

  width: int
  depth: int
  layout: Layout
  drop_path: Sequence[float]
  same_padding: bool
  epsilon: float
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the new map."""
    block = functools.partial(
      Block, self.width, self.layout, self.same_padding, self.epsilon
    )
    entry = functools.partial(block, stride=self.layout.stride)
    is_other = self.layout.stride > 1 or x.shape[-1] != self.width
    return apply_blocks(
      block,
      x,
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
      first=[entry] if is_other else [],
    )


class EfficientNet(nn.Module):
  """A convolution, stages, another, the average of its map, a linear head.

  Attributes:
    widths: of the map of each stage; with fewer than seven, the last are left
      out.
    depths: number of blocks of each stage.
    stem_width: of the map that enters the first stage.
    head_width: of the last convolution, of 1 x 1; None for none.
    num_classes: of the head; None for no head.
    dropout: probability to drop a feature that the head reads.
    same_padding: whether zeros are added as in TensorFlow, of which the bottom
      and the right get the odd one; if not, on all sides alike.
    epsilon: of the norms.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a stage, but for the first, share one program;
      see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  stem_width: int
  head_width: int | None = None
  num_classes: int | None = None
  dropout: float = 0.0
  same_padding: bool = True
  epsilon: float = 1e-3
  drop_path: float | Sequence[float] = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and the last map of each size.

    The maps have strides of 2, 4, 8 ... pixels, rounded up, and are those of
    the narrow ends of blocks. The features are wide.

    Raises:
      ValueError: if the fields do not go together.
    """
    self.check()
    options = dict(same_padding=self.same_padding, epsilon=self.epsilon)
    conv = conv_bn(**options)
    x = nn.silu(conv(self.stem_width, 3, 2, name='stem')(image, train=train))
    rates = stage_rates(self.drop_path, depths=self.depths)
    pyramid = ()
    for i, depth in enumerate(self.depths):
      if STAGES[i].stride > 1:
        pyramid = (*pyramid, x)
      x = Stage(
        width=self.widths[i],
        depth=depth,
        layout=STAGES[i],
        drop_path=rates[i],
        scan=self.scan,
        remat=self.remat,
        name=f'stage_{i}',
        **options,
      )(x, train=train)
    pyramid = (*pyramid, x)
    if self.head_width is not None:
      x = nn.silu(conv(self.head_width, 1, name='widen')(x, train=train))
    pooled = x.mean(axis=(1, 2))  # (B, D)
    logits = None
    if self.num_classes is not None:
      dropout = nn.Dropout(self.dropout, deterministic=not train)
      init = nn.initializers.variance_scaling(1 / 3, 'fan_out', 'uniform')
      head = nn.Dense(self.num_classes, kernel_init=init, name='head')
      logits = head(dropout(pooled))
    return Output(logits, pooled, pyramid)

  def check(self) -> None:
    """Raises a ValueError if the fields do not go together."""
    if not len(self.widths) == len(self.depths) <= len(STAGES):
      raise ValueError(
        f'widths={self.widths} and depths={self.depths} must have a number for '
        f'each stage, of which there are at most {len(STAGES)}'
      )
