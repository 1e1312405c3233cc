"""MobileViT.

MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
Transformer, arXiv:2110.02178.

What is different about it:
- it is MobileNetV2, in which the coarser maps are mixed by transformers;
- attention runs between the patches of a map, of 2 x 2 positions, but only from
  a position to the same one of the other patches; a convolution of 3 x 3 before
  it sees within a patch (figure 1b);
- the positions are unfolded and folded back, so that the map stays one, and
  nothing has to tell where a token stands;
- what entered is put beside what came out, and both are fused by another
  convolution;
- few and narrow channels, and SiLU everywhere.

Any image will do, with the same parameters: a map that patches do not fill is
resized to one that they do, and back.

Departures from apple/ml-cvnets: drop path and scanned blocks are possible; the
running variance is that of the batches, and there the unbiased one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.attention import MultiHeadAttention
from vit_jax.layers.conv import ConvBN
from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.lookup import choose
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

PATCH = 2  # the side of a patch, in positions
NUM_HEADS = 4
STEM_WIDTH = 16

# The reference cuts this distribution at 100 deviations: that is, not at all.
INIT = nn.initializers.normal(0.02)
# He's, for the way back, of all convolutions.
CONV_INIT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

norm = functools.partial(nn.LayerNorm, epsilon=1e-5)


def _size(
  expansion: int, widths: tuple, token_widths: tuple, feature_width: int
) -> dict[str, Any]:
  return dict(
    widths=widths,
    residuals=(1, 3),
    token_widths=token_widths,
    depths=(2, 4, 3),
    expansion=expansion,
    feature_width=feature_width,
  )


# From apple/ml-cvnets, cvnets/models/classification/config/mobilevit.py.
SIZES = {
  'XXS': _size(2, (16, 24, 48, 64, 80), (64, 80, 96), 320),
  'XS': _size(4, (32, 48, 64, 80, 96), (96, 120, 144), 384),
  'S': _size(4, (32, 64, 96, 128, 160), (144, 192, 240), 640),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `MobileViT` for e.g. 'XS'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


class InvertedResidual(nn.Module):
  """That of MobileNetV2 (arXiv:1801.04381, section 3.3), with SiLU.

  Attributes:
    width: of the new map.
    stride: of the depthwise convolution.
    expansion: width between the convolutions over that of the map.
  """

  width: int
  stride: int
  expansion: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the new map, y = h / stride and x = w / stride, rounded up."""
    hidden = self.expansion * x.shape[-1]
    depthwise = ConvBN(hidden, 3, self.stride, hidden, name='depthwise')
    y = nn.silu(ConvBN(hidden, 1, name='expand')(x, train=train))
    y = nn.silu(depthwise(y, train=train))
    y = ConvBN(self.width, 1, name='reduce')(y, train=train)
    keeps_shape = self.stride == 1 and x.shape == y.shape
    return x + y if keeps_shape else y


class Mlp(nn.Module):
  """Dense, SiLU, dense, with dropout after the second.

  Attributes:
    kernel_init: of both kernels.
    dropout: probability to drop a unit.
  """

  kernel_init: nn.initializers.Initializer = INIT
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, x: Float[Array, '*b d'], *, train: bool
  ) -> Float[Array, '*b d']:
    """Maps the last axis, through a hidden layer of twice its width."""
    d = x.shape[-1]
    dense = functools.partial(nn.Dense, kernel_init=self.kernel_init)
    x = dense(d, name='fc2')(nn.silu(dense(2 * d, name='fc1')(x)))
    return nn.Dropout(self.dropout, deterministic=not train)(x)


class Block(nn.Module):
  """Attention between patches and an MLP, each on a norm and added.

  Attributes:
    dropout: as in `MobileViT`.
  """

  dropout: float

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b p n d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b p n d']:
    """Returns the new tokens; `drop_path` is the rate of both branches."""
    b, p, n, d = tokens.shape
    attn = MultiHeadAttention(NUM_HEADS, kernel_init=INIT, name='attn')
    x = norm(name='norm1')(tokens).reshape(b * p, n, d)
    x = attn(x).reshape(b, p, n, d)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    tokens = tokens + DropPath()(x, rate=drop_path, train=train)
    mlp = Mlp(dropout=self.dropout, name='mlp')
    x = mlp(norm(name='norm2')(tokens), train=train)
    return tokens + DropPath()(x, rate=drop_path, train=train)


class Mixer(nn.Module):
  """The MobileViT block: convolutions, with a transformer between (figure 1b).

  Attributes:
    token_width: of the transformer.
    depth: number of its blocks.
    drop_path: rates of the first and the last block.
    dropout, scan, remat: as in `MobileViT`.
  """

  token_width: int
  depth: int
  drop_path: Sequence[float]
  dropout: float
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w d'], *, train: bool
  ) -> Float[Array, 'b h w d']:
    """Returns the new map."""
    _, h, w, d = x.shape
    y = nn.silu(ConvBN(d, 3, name='local')(x, train=train))
    y = nn.Conv(
      self.token_width,
      (1, 1),
      use_bias=False,
      kernel_init=CONV_INIT,
      name='to_tokens',
    )(y)
    y = resize(y, size=(h + -h % PATCH, w + -w % PATCH))
    size = y.shape[1:3]
    tokens = apply_blocks(
      functools.partial(Block, dropout=self.dropout),
      unfold(y),
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    y = resize(fold(norm(name='norm')(tokens), size=size), size=(h, w))
    y = nn.silu(ConvBN(d, 1, name='from_tokens')(y, train=train))
    both = jnp.concatenate([x, y], axis=-1)
    return nn.silu(ConvBN(d, 3, name='fuse')(both, train=train))


def resize(
  x: Float[Array, 'b h w d'], *, size: tuple[int, int]
) -> Float[Array, 'b y x d']:
  """The map at another size, linear between the centres of its positions."""
  shape = (len(x), *size, x.shape[-1])
  if x.shape == shape:
    return x
  return jax.image.resize(x, shape, 'linear', antialias=False)


def unfold(x: Float[Array, 'b h w d']) -> Float[Array, 'b p n d']:
  """The p positions of a patch, each as a row of all n patches (section 3.1).

  Height and width must be multiples of the side of a patch.
  """
  b, h, w, d = x.shape
  x = x.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, d)
  return x.transpose(0, 2, 4, 1, 3, 5).reshape(b, PATCH**2, -1, d)


def fold(
  tokens: Float[Array, 'b p n d'], *, size: tuple[int, int]
) -> Float[Array, 'b h w d']:
  """The map of this size that `unfold` made these tokens of."""
  (b, _, _, d), (h, w) = tokens.shape, size
  x = tokens.reshape(b, PATCH, PATCH, h // PATCH, w // PATCH, d)
  return x.transpose(0, 3, 1, 4, 2, 5).reshape(b, h, w, d)


class Stage(nn.Module):
  """Inverted residuals, and a mixer if there is one.

  Attributes:
    width: of the map.
    stride: of the first inverted residual.
    residuals: number of inverted residuals.
    expansion: of each of them.
    make_mixer: name -> what mixes all positions; None for none.
  """

  width: int
  stride: int
  residuals: int
  expansion: int
  make_mixer: Callable[..., nn.Module] | None

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the new map."""
    for i in range(self.residuals):
      residual = InvertedResidual(
        self.width,
        self.stride if i == 0 else 1,
        self.expansion,
        name=f'residual_{i}',
      )
      x = residual(x, train=train)
    if self.make_mixer is not None:
      x = self.make_mixer(name='mixer')(x, train=train)
    return x


class MobileViT(nn.Module):
  """Stages, the average of the last map once widened, and a linear head.

  Attributes:
    widths: of the map of each stage.
    residuals: number of inverted residuals of each stage without a mixer.
    token_widths: of the transformer of each of the other stages, which have one
      inverted residual each; 4 heads must divide them.
    depths: number of blocks of each transformer.
    expansion: of the inverted residuals.
    feature_width: of what the head reads.
    num_classes: of the head; None for no head.
    dropout: after the attention and the MLP of each block, and on the features.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a transformer share one program; see
      `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  widths: tuple[int, ...]
  residuals: tuple[int, ...]
  token_widths: tuple[int, ...]
  depths: tuple[int, ...]
  expansion: int
  feature_width: int
  num_classes: int | None = None
  dropout: float = 0.0
  drop_path: float | Sequence[float] = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and a map of each stage.

    The maps have strides of 2, 4, 8 ... pixels, rounded up, and are those that
    the next stage reads.

    Raises:
      ValueError: if the fields do not go together.
    """
    check_stages(self.widths, residuals=self.residuals, depths=self.depths)
    if len(self.token_widths) != len(self.depths):
      raise ValueError(
        f'token_widths={self.token_widths} and depths={self.depths} must have '
        'a number for each transformer'
      )
    plain = len(self.residuals)
    rates = stage_rates(self.drop_path, depths=self.depths)
    mixers = [None] * plain + [
      functools.partial(
        Mixer,
        token_width=self.token_widths[i],
        depth=depth,
        drop_path=rates[i],
        dropout=self.dropout,
        scan=self.scan,
        remat=self.remat,
      )
      for i, depth in enumerate(self.depths)
    ]
    x = nn.silu(ConvBN(STEM_WIDTH, 3, 2, name='stem')(image, train=train))
    pyramid = ()
    for i, width in enumerate(self.widths):
      x = Stage(
        width=width,
        stride=1 if i == 0 else 2,
        residuals=self.residuals[i] if i < plain else 1,
        expansion=self.expansion,
        make_mixer=mixers[i],
        name=f'stage_{i}',
      )(x, train=train)
      pyramid = (*pyramid, x)
    widen = ConvBN(self.feature_width, 1, name='widen')
    pooled = nn.silu(widen(x, train=train)).mean(axis=(1, 2))  # (B, D)
    logits = None
    if self.num_classes is not None:
      dropped = nn.Dropout(self.dropout, deterministic=not train)(pooled)
      head = nn.Dense(self.num_classes, kernel_init=INIT, name='head')
      logits = head(dropped)
    return Output(logits, pooled, pyramid)


def check_stages(
  widths: Sequence[int], *, residuals: Sequence[int], depths: Sequence[int]
) -> None:
  """Raises a ValueError unless each stage has a width."""
  if len(widths) != len(residuals) + len(depths):
    raise ValueError(
      f'widths={widths} must have a number for each stage: those of '
      f'residuals={residuals} and of depths={depths}'
    )
