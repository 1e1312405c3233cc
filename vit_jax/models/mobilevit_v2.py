"""MobileViTv2.

Separable Self-attention for Mobile Vision Transformers, arXiv:2206.02680.

What is different from MobileViT:
- attention is separable: each token has one score, the keys are averaged by the
  scores into one context, and every value is multiplied by that context. Its
  cost is linear in the number of tokens, and no product of matrices is needed
  (section 3.2);
- a norm takes all channels of all tokens of an image together;
- convolutions before the transformer are depthwise, and nothing is fused after
  it;
- all widths follow from one multiplier, those of the tokens being half of those
  of the maps.

Any image will do, with the same parameters: a map that patches do not fill is
resized, for good, to one that they do.

Departures from apple/ml-cvnets: drop path and scanned blocks are possible; the
running variance is that of the batches, and there the unbiased one.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax.layers.conv import ConvBN
from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.lookup import choose
from vit_jax.models import mobilevit
from vit_jax.models.mobilevit import (
  CONV_INIT,
  PATCH,
  Mlp,
  Stage,
  check_stages,
)
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

EXPANSION = 2  # of the inverted residuals

norm = functools.partial(nn.GroupNorm, num_groups=1, epsilon=1e-5)


def _size(multiplier: float) -> dict[str, Any]:
  widths = tuple(int(multiplier * d) for d in (64, 128, 256, 384, 512))
  return dict(widths=widths, residuals=(1, 2), depths=(2, 4, 3))


# From apple/ml-cvnets, cvnets/models/classification/config/mobilevit_v2.py.
VARIANTS = ('0.5', '0.75', '1.0', '1.25', '1.5', '1.75', '2.0')
SIZES = {name: _size(float(name)) for name in VARIANTS}


def variant(name: str) -> dict[str, Any]:
  """Fields of `MobileViTV2` for e.g. '0.5', the multiplier of its widths.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


class SeparableAttention(nn.Module):
  """Attention by one score for each token (section 3.2).

  Parameters: qkv/kernel (d, 1 + 2d), of score, key and value; out/kernel. They
  start as those of convolutions, which they are in the reference.
  """

  @nn.compact
  def __call__(
    self, tokens: Float[Array, 'b p n d']
  ) -> Float[Array, 'b p n d']:
    """Mixes the n tokens of each position in a patch."""
    d = tokens.shape[-1]
    qkv = nn.Dense(1 + 2 * d, kernel_init=CONV_INIT, name='qkv')(tokens)
    query, key, value = jnp.split(qkv, [1, 1 + d], axis=-1)
    scores = nn.softmax(query.astype(jnp.float32), axis=2).astype(key.dtype)
    context = (scores * key).sum(axis=2, keepdims=True)  # (B, P, 1, D)
    out = nn.Dense(d, kernel_init=CONV_INIT, name='out')
    return out(nn.relu(value) * context)


class Block(nn.Module):
  """Separable attention and an MLP, each on a norm and added."""

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b p n d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b p n d']:
    """Returns the new tokens; `drop_path` is the rate of both branches."""
    x = SeparableAttention(name='attn')(norm(name='norm1')(tokens))
    tokens = tokens + DropPath()(x, rate=drop_path, train=train)
    mlp = Mlp(kernel_init=CONV_INIT, name='mlp')
    x = mlp(norm(name='norm2')(tokens), train=train)
    return tokens + DropPath()(x, rate=drop_path, train=train)


class Mixer(nn.Module):
  """The MobileViTv2 block: convolutions, with a transformer between.

  Attributes:
    depth: number of blocks of the transformer.
    drop_path: rates of the first and the last block.
    scan, remat: as in `MobileViTV2`.
  """

  depth: int
  drop_path: Sequence[float]
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w d'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the new map, whose sides are even."""
    _, h, w, d = x.shape
    x = resize(x, size=(h + -h % PATCH, w + -w % PATCH))
    size = x.shape[1:3]
    x = nn.silu(ConvBN(d, 3, groups=d, name='local')(x, train=train))
    x = nn.Conv(
      d // 2,
      (1, 1),
      use_bias=False,
      kernel_init=CONV_INIT,
      name='to_tokens',
    )(x)
    tokens = apply_blocks(
      Block,
      mobilevit.unfold(x),
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    x = mobilevit.fold(norm(name='norm')(tokens), size=size)
    return ConvBN(d, 1, name='from_tokens')(x, train=train)


def resize(
  x: Float[Array, 'b h w d'], *, size: tuple[int, int]
) -> Float[Array, 'b y x d']:
  """The map at another size, linear between positions, corners on corners."""
  for axis, new in zip((1, 2), size, strict=True):
    old = x.shape[axis]
    if old != new:
      distance = np.linspace(0, old - 1, new)[:, None] - np.arange(old)
      weights = jnp.asarray(np.maximum(0, 1 - np.abs(distance)), x.dtype)
      x = jnp.moveaxis(jnp.tensordot(weights, x, (1, axis)), 0, axis)
  return x


class MobileViTV2(nn.Module):
  """Stages, the average of the last map, and a linear head.

  Attributes:
    widths: of the map of each stage; that of the stem is half of the first.
    residuals: number of inverted residuals of each stage without a mixer.
    depths: number of blocks of the transformer of each of the other stages,
      which have one inverted residual each.
    num_classes: of the head; None for no head.
    drop_path: rate of the last block of all, rising linearly from 0; or those
      of the first and the last block.
    scan: whether the blocks of a transformer share one program; see
      `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  widths: tuple[int, ...]
  residuals: tuple[int, ...]
  depths: tuple[int, ...]
  num_classes: int | None = None
  drop_path: float | Sequence[float] = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and a map of each stage.

    The maps have strides of 2, 4, 8 ... pixels, rounded up, with a mixer to
    even sides, and are those that the next stage reads.

    Raises:
      ValueError: if the fields do not go together.
    """
    check_stages(self.widths, residuals=self.residuals, depths=self.depths)
    plain = len(self.residuals)
    rates = stage_rates(self.drop_path, depths=self.depths)
    mixers = [None] * plain + [
      functools.partial(
        Mixer,
        depth=depth,
        drop_path=rate,
        scan=self.scan,
        remat=self.remat,
      )
      for depth, rate in zip(self.depths, rates, strict=True)
    ]
    stem = ConvBN(self.widths[0] // 2, 3, 2, name='stem')
    x, pyramid = nn.silu(stem(image, train=train)), ()
    for i, width in enumerate(self.widths):
      x = Stage(
        width=width,
        stride=1 if i == 0 else 2,
        residuals=self.residuals[i] if i < plain else 1,
        expansion=EXPANSION,
        make_mixer=mixers[i],
        name=f'stage_{i}',
      )(x, train=train)
      pyramid = (*pyramid, x)
    pooled = x.mean(axis=(1, 2))  # (B, D)
    logits = None
    if self.num_classes is not None:
      head = nn.Dense(self.num_classes, kernel_init=mobilevit.INIT, name='head')
      logits = head(pooled)
    return Output(logits, pooled, pyramid)
