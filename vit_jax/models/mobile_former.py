"""Mobile-Former.

Mobile-Former: Bridging MobileNet and Transformer, arXiv:2108.05895.

What is different about it:
- two networks side by side: MobileNetV2 on a map, and a transformer on a few
  tokens, which are learned and at first the same for all images;
- in each block a bridge leads both ways: the tokens gather from the map, then
  the map from the tokens; on the side of the map, attention projects nothing;
- the ReLUs are dynamic: the first token chooses their slopes;
- blocks that halve the map have two lite bottlenecks (MicroNet,
  arXiv:2108.05894), whose depthwise convolutions multiply the channels;
- the smallest, 26M, has groups of channels, shuffled in between (ShuffleNet,
  arXiv:1707.01083).

The head reads the average of the last map, and the first token. Any image will
do, with the same parameters: maps are rounded up.

Departures from AAboys/MobileFormer, the code of the authors: drop path rises
from 0 at the first block, not from a share of the rate; the running variance is
that of the batches, and there the unbiased one. Blocks are not scanned: hardly
two in a row have the same shape.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.attention import DotProduct, head_shape
from vit_jax.layers.conv import ConvBN
from vit_jax.layers.drop_path import DropPath, linear_rates
from vit_jax.layers.mlp import Mlp
from vit_jax.lookup import choose
from vit_jax.types import Array, Output

BRIDGE_HEADS, FORMER_HEADS = 2, 4
SECOND_EXPANSION = 4  # of a block that halves the map
LAST_EXPANSION = 6  # of the last map, before its average

INIT, ZEROS = nn.initializers.normal(0.01), nn.initializers.zeros
dense = functools.partial(nn.Dense, kernel_init=INIT)
norm = functools.partial(nn.LayerNorm, epsilon=1e-5)


def _large(
  widths: tuple[int, ...], expansions: tuple[int, int], *, feature_width: int
) -> dict[str, Any]:
  """The four sizes that differ in nothing else."""
  stem, a, b, c, d, e = widths
  first, second = expansions
  return dict(
    stem_width=stem,
    blocks=(
      (stem, 2, 1),
      *((a, 6, 2), (a, first, 1)),
      *((b, 6, 2), (b, second, 1)),
      *((c, 6, 2), (c, 4, 1), (d, 6, 1), (d, 6, 1)),
      *((e, 6, 2), (e, 6, 1), (e, 6, 1)),
    ),
    num_tokens=6,
    token_width=192,
    feature_width=feature_width,
  )


_52M = dict(
  stem_width=8,
  blocks=(
    *((12, 3, 2), (12, 3, 1)),
    *((24, 6, 2), (24, 3, 1)),
    *((48, 6, 2), (48, 4, 1), (64, 6, 1)),
    *((96, 6, 2), (96, 6, 1)),
  ),
  num_tokens=3,
  token_width=128,
  feature_width=1024,
)

# From mobile_former.py of AAboys/MobileFormer. A name is the number of
# multiply-adds that the paper states; there are up to a tenth fewer.
SIZES = {
  '508M': _large((24, 40, 72, 128, 176, 240), (3, 3), feature_width=1920),
  '294M': _large((16, 24, 48, 96, 128, 192), (4, 4), feature_width=1920),
  '214M': _large((12, 20, 40, 80, 112, 160), (3, 4), feature_width=1600),
  '151M': _large((12, 16, 32, 64, 88, 128), (3, 3), feature_width=1280),
  '96M': dict(
    stem_width=12,
    blocks=(
      (12, 2, 1),
      (16, 6, 2),
      *((32, 6, 2), (32, 3, 1)),
      *((64, 6, 2), (64, 4, 1), (88, 6, 1)),
      *((128, 6, 2), (128, 6, 1)),
    ),
    num_tokens=4,
    token_width=128,
    feature_width=1280,
  ),
  '52M': _52M,
  '26M': _52M | dict(groups=4),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `MobileFormer` for e.g. '294M'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


def attend(
  query: Float[Array, 'b q d'],
  key: Float[Array, 'b n d'],
  value: Float[Array, 'b n d'],
  *,
  num_heads: int,
) -> Float[Array, 'b q d']:
  """Attention without projections: heads are parts of the last axis."""
  heads = head_shape(query.shape[-1], num_heads=num_heads)
  split = (x.reshape(*x.shape[:2], *heads) for x in (query, key, value))
  return DotProduct()(*split).reshape(query.shape)


def shuffle(x: Float[Array, '*b d'], *, groups: int) -> Float[Array, '*b d']:
  """The first channel of each group, then the second of each, and so on."""
  parts = x.reshape(*x.shape[:-1], groups, -1)
  return parts.swapaxes(-1, -2).reshape(x.shape)


class DynamicReLU(nn.Module):
  """The larger of two multiples of a channel (arXiv:2003.10027, equation 1).

  The factors lie in [0, 2] and in [-1, 1], and start as those of a ReLU.
  """

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w d'], token: Float[Array, 'b c']
  ) -> Float[Array, 'b h w d']:
    """Maps each channel as the token wants it."""
    hidden = nn.relu(dense(token.shape[-1] // 4, name='fc1')(token))
    slopes = nn.hard_sigmoid(dense(2 * x.shape[-1], name='fc2')(hidden))
    first, second = jnp.split(slopes[:, None, None], 2, axis=-1)
    return jnp.maximum(2 * first * x, (2 * second - 1) * x)


class MobileToFormer(nn.Module):
  """The bridge from the map to the tokens."""

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b n c'],
    x: Float[Array, 'b h w d'],
    *,
    drop_path: float | None,
    train: bool,
  ) -> Float[Array, 'b n c']:
    """Returns the new tokens."""
    d = x.shape[-1]
    rows = x.reshape(len(x), -1, d)
    query = dense(d, name='query')(tokens)
    gate = 2 * nn.hard_sigmoid(dense(d, name='gate')(tokens))
    y = gate * attend(query, rows, rows, num_heads=BRIDGE_HEADS)
    y = dense(tokens.shape[-1], name='out')(y)
    y = DropPath()(y, rate=drop_path, train=train)
    return norm(name='norm')(tokens + y)


class Former(nn.Module):
  """Attention to the tokens as they are, and an MLP, each normed behind."""

  @nn.compact
  def __call__(
    self, tokens: Float[Array, 'b n d'], *, drop_path: float | None, train: bool
  ) -> Float[Array, 'b n d']:
    """Returns the new tokens; drop path strikes the attention alone."""
    d = tokens.shape[-1]
    query = dense(d, name='query')(tokens)
    y = attend(query, tokens, tokens, num_heads=FORMER_HEADS)
    y = DropPath()(dense(d, name='out')(y), rate=drop_path, train=train)
    tokens = norm(name='norm1')(tokens + y)
    mlp = Mlp(2 * d, gelu='erf', kernel_init=INIT, bias_init=ZEROS, name='mlp')
    return norm(name='norm2')(tokens + mlp(tokens))


class FormerToMobile(nn.Module):
  """The bridge from the tokens to the map."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w d'],
    tokens: Float[Array, 'b n c'],
    *,
    drop_path: float | None,
    train: bool,
  ) -> Float[Array, 'b h w d']:
    """Returns the new map."""
    d = x.shape[-1]
    key, value = dense(d, name='key')(tokens), dense(d, name='value')(tokens)
    y = attend(x.reshape(len(x), -1, d), key, value, num_heads=BRIDGE_HEADS)
    return x + DropPath()(y.reshape(x.shape), rate=drop_path, train=train)


class Bottleneck(nn.Module):
  """That of MobileNetV2 (arXiv:1801.04381, table 1), with dynamic ReLUs.

  Attributes:
    width: of the new map.
    expansion: width between the convolutions over that of the old map.
    groups: as in `MobileFormer`.
  """

  width: int
  expansion: int
  groups: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], token: Float[Array, 'b e'], *, train: bool
  ) -> Float[Array, 'b h w d']:
    """Returns the new map."""
    hidden = self.expansion * x.shape[-1]
    expand = ConvBN(hidden, 1, groups=self.groups, name='expand')
    x = shuffle(expand(x, train=train), groups=self.groups)
    x = DynamicReLU(name='relu1')(x, token)
    depthwise = ConvBN(hidden, 3, groups=hidden, name='depthwise')
    x = DynamicReLU(name='relu2')(depthwise(x, train=train), token)
    project = ConvBN(self.width, 1, groups=self.groups, name='project')
    return shuffle(project(x, train=train), groups=self.groups)


class LiteBottleneck(nn.Module):
  """One whose depthwise convolution multiplies the channels (MicroNet).

  Attributes:
    width, expansion, groups: as in `Bottleneck`.
    stride: of the depthwise convolution.
  """

  width: int
  expansion: int
  stride: int
  groups: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    token: Float[Array, 'b e'] | None = None,
    *,
    train: bool,
  ) -> Float[Array, 'b y x d']:
    """Returns the new map; without a token, the ReLU is not dynamic."""
    c = x.shape[-1]
    hidden = self.expansion * c
    depthwise = ConvBN(hidden, 3, self.stride, groups=c, name='depthwise')
    x = depthwise(x, train=train)
    # Every group of the next convolution then sees all of the old channels.
    x = shuffle(x, groups=c if self.groups > 1 else 1)
    x = nn.relu6(x) if token is None else DynamicReLU(name='relu')(x, token)
    project = ConvBN(self.width, 1, groups=self.groups, name='project')
    return project(x, train=train)


class Block(nn.Module):
  """The Mobile-Former block: a bridge, both networks, a bridge back.

  Attributes:
    width, expansion, stride, groups: as in `MobileFormer`.
  """

  width: int
  expansion: int
  stride: int
  groups: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    tokens: Float[Array, 'b n e'],
    *,
    drop_path: float | None,
    train: bool,
  ) -> tuple[Float[Array, 'b y x d'], Float[Array, 'b n e']]:
    """Returns the new map and the new tokens."""
    options = dict(drop_path=drop_path, train=train)
    tokens = MobileToFormer(name='to_tokens')(tokens, x, **options)
    tokens = Former(name='former')(tokens, **options)
    token, width, groups = tokens[:, 0], self.width, self.groups
    if self.stride == 2:
      halve = LiteBottleneck(width, self.expansion, 2, groups, name='halve')
      x = halve(x, token, train=train)
      mobile = LiteBottleneck(width, SECOND_EXPANSION, 1, groups, name='mobile')
    else:
      mobile = Bottleneck(width, self.expansion, groups, name='mobile')
    y = mobile(x, token, train=train)
    if x.shape == y.shape:
      y = x + DropPath()(y, rate=drop_path, train=train)
    return FormerToMobile(name='to_map')(y, tokens, **options), tokens


class MobileFormer(nn.Module):
  """A convolution, blocks, one more bridge, and a head of two layers.

  Attributes:
    stem_width: of the map that enters the first block.
    blocks: of each, the width of its map; how much wider than the old map its
      first bottleneck is; and its stride, 1 or 2. The first has no tokens.
    num_tokens: their number.
    token_width: of each; 4 heads must divide it, and 2 the maps' widths.
    feature_width: of what the last layer reads.
    groups: of channels that do not see each other in a convolution of 1 x 1.
    num_classes: of the head; None for no head.
    dropout: probability to drop a feature that the last layer reads.
    drop_path: rate of the last block, rising linearly from 0; or those of the
      first and the last block.
  """

  stem_width: int
  blocks: tuple[tuple[int, int, int], ...]
  num_tokens: int
  token_width: int
  feature_width: int
  groups: int = 1
  num_classes: int | None = None
  dropout: float = 0.0
  drop_path: float | Sequence[float] = 0.0

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and the last map of each size.

    The maps have strides of 2, 4, 8 ... pixels, rounded up.

    Raises:
      ValueError: if the fields do not go together.
    """
    self.check()
    shape = (self.num_tokens, self.token_width)
    tokens = self.param('tokens', nn.initializers.normal(1.0), shape)
    tokens = jnp.broadcast_to(tokens, (len(image), *shape))
    stem = ConvBN(self.stem_width, 3, 2, name='stem')
    x = nn.relu6(stem(image, train=train))
    pyramid = (x,)
    depth = len(self.blocks)
    rates = linear_rates(self.drop_path, depth=depth) or [None] * depth
    for i, (width, expansion, stride) in enumerate(self.blocks):
      fields = (width, expansion, stride, self.groups)
      if i == 0:
        y = LiteBottleneck(*fields, name='block_0')(x, train=train)
        x = x + y if stride == 1 and x.shape == y.shape else y
      else:
        block = Block(*fields, name=f'block_{i}')
        x, tokens = block(x, tokens, drop_path=rates[i], train=train)
      pyramid = (*(pyramid if stride == 2 else pyramid[:-1]), x)
    bridge = MobileToFormer(name='to_tokens')
    tokens = bridge(tokens, x, drop_path=rates[-1], train=train)
    hidden = LAST_EXPANSION * x.shape[-1]
    widen = ConvBN(hidden, 1, groups=self.groups, name='widen')
    x = nn.relu6(widen(shuffle(x, groups=self.groups), train=train))
    average = nn.hard_swish(x.mean(axis=(1, 2)))  # (B, C)
    both = jnp.concatenate([average, tokens[:, 0]], axis=-1)
    batch_norm = nn.BatchNorm(
      use_running_average=not train, momentum=0.9, name='features_norm'
    )
    features = dense(self.feature_width, name='features')(both)
    pooled = nn.hard_swish(batch_norm(features))
    logits = None
    if self.num_classes is not None:
      dropout = nn.Dropout(self.dropout, deterministic=not train)
      logits = dense(self.num_classes, name='head')(dropout(pooled))
    return Output(logits, pooled, pyramid)

  def check(self) -> None:
    """Raises a ValueError if the fields do not go together."""
    strides = {stride for _, _, stride in self.blocks}
    if not strides or strides - {1, 2}:
      raise ValueError(
        f'blocks={self.blocks} must have a width, an expansion and a stride of '
        '1 or 2 for each block, of which there is at least one'
      )
    widths = [self.stem_width, *(width for width, _, _ in self.blocks)]
    if any(width % self.groups for width in widths):
      raise ValueError(
        f'groups={self.groups} must divide {widths}, the widths of all maps'
      )
