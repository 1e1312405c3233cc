"""ResNet.

Deep Residual Learning for Image Recognition, arXiv:1512.03385.

What is different about it:
- convolutions only, each with a batch norm: two of 3 x 3 in a block, or a
  bottleneck of 1 x 1, 3 x 3 and 1 x 1 (figure 5), and a shortcut around them;
- four stages, each of half the size and twice the width of that before it;
- the activation follows the sum, so that no shortcut is linear from end to end.

It is the backbone of DETR and the yardstick of all others. That in front of the
hybrid vision transformers, of group norms, is in `models/resnet_v1.py`.

Any image will do: maps are rounded up. Batch norm has running statistics, in
the collection `batch_stats`: with `train=False` they are used and frozen.

Departures from the paper, as in torchvision and timm: a bottleneck halves the
map in its convolution of 3 x 3, not in its first ("v1.5"); the last norm of a
branch starts from zero (arXiv:1706.02677, section 5.1). From both: the variance
in the running statistics is that of the batch, not the unbiased estimate, which
is larger by n / (n - 1) for n positions.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Float

from vit_jax.layers.conv import ConvBN
from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.lookup import choose
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output


def _basic(*depths: int) -> dict[str, Any]:
  return dict(widths=(64, 128, 256, 512), depths=depths, bottleneck=False)


def _bottleneck(*depths: int) -> dict[str, Any]:
  return dict(widths=(256, 512, 1024, 2048), depths=depths, bottleneck=True)


# Table 1.
SIZES = {
  '18': _basic(2, 2, 2, 2),
  '34': _basic(3, 4, 6, 3),
  '50': _bottleneck(3, 4, 6, 3),
  '101': _bottleneck(3, 4, 23, 3),
  '152': _bottleneck(3, 8, 36, 3),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `ResNet` for e.g. '50'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


class Block(nn.Module):
  """Convolutions and a shortcut (figure 5).

  Attributes:
    width: of the map that comes out.
    bottleneck: whether there is a bottleneck, of a quarter of the width.
    stride: 2 to halve the map.
  """

  width: int
  bottleneck: bool
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
    last = functools.partial(ConvBN, scale_init=nn.initializers.zeros)
    if self.bottleneck:
      d = self.width // 4
      y = nn.relu(ConvBN(d, 1, name='conv1')(x, train=train))
      y = nn.relu(ConvBN(d, 3, self.stride, name='conv2')(y, train=train))
      y = last(self.width, 1, name='conv3')(y, train=train)
    else:
      d = self.width
      y = nn.relu(ConvBN(d, 3, self.stride, name='conv1')(x, train=train))
      y = last(d, 3, name='conv2')(y, train=train)
    if self.stride > 1 or x.shape[-1] != self.width:
      shortcut = ConvBN(self.width, 1, self.stride, name='shortcut')
      x = shortcut(x, train=train)
    return nn.relu(x + DropPath()(y, rate=drop_path, train=train))


class Stage(nn.Module):
  """Blocks on maps of one size and width.

  Attributes:
    width: of the map.
    depth: number of blocks.
    stride: 2 for a first block that halves the map.
    drop_path: rates of the first and the last block.
    bottleneck, scan, remat: as in `ResNet`.
  """

  width: int
  depth: int
  stride: int
  drop_path: Sequence[float]
  bottleneck: bool
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the new map."""
    block = functools.partial(Block, self.width, self.bottleneck)
    entry = functools.partial(block, stride=self.stride)
    is_other = self.stride > 1 or x.shape[-1] != self.width
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


class ResNet(nn.Module):
  """A stem of stride 4, stages, the average of the last map, a linear head.

  Attributes:
    widths: of the map of each stage.
    depths: number of blocks of each stage.
    bottleneck: whether the blocks are bottlenecks.
    stem_width: of the map that enters the first stage.
    num_classes: of the head; None for no head.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a stage, but for one that halves the map, share
      one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  bottleneck: bool
  stem_width: int = 64
  num_classes: int | None = None
  drop_path: float | Sequence[float] = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and a map of each stage.

    The maps have strides of 4, 8, 16 ... pixels, rounded up.

    Raises:
      ValueError: if `widths` and `depths` do not go together.
    """
    if len(self.widths) != len(self.depths):
      raise ValueError(
        f'widths={self.widths} and depths={self.depths} must have a number for '
        'each stage'
      )
    x = nn.relu(ConvBN(self.stem_width, 7, 2, name='stem')(image, train=train))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    rates = stage_rates(self.drop_path, depths=self.depths)
    pyramid = ()
    for i, depth in enumerate(self.depths):
      x = Stage(
        width=self.widths[i],
        depth=depth,
        stride=1 if i == 0 else 2,
        drop_path=rates[i],
        bottleneck=self.bottleneck,
        scan=self.scan,
        remat=self.remat,
        name=f'stage_{i}',
      )(x, train=train)
      pyramid = (*pyramid, x)
    pooled = x.mean(axis=(1, 2))  # (B, D)
    logits = None
    if self.num_classes is not None:
      # arXiv:1706.02677, section 5.1.
      init = nn.initializers.normal(0.01)
      logits = nn.Dense(self.num_classes, kernel_init=init, name='head')(pooled)
    return Output(logits, pooled, pyramid)
