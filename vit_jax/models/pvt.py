"""PVT, Pyramid Vision Transformer.

Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without
Convolutions, arXiv:2102.12122.

What is different about it:
- four stages, each of which makes patches of the map before it, so that a
  transformer has features at strides of 4, 8, 16 and 32;
- queries stand at every position, but keys and values at one of R x R, which
  makes attention affordable on large maps (section 3.3);
- each stage has its own positions, and the last its class token.

Any image of 32 x 32 pixels and more will do: rows and columns at the bottom and
the right that do not fill a patch, or a group of keys, are left out. The
positions tie the parameters to the size of the image; `pretrained/fit.py`
resamples them.

Departures from whai362/PVT: positions are resampled when a checkpoint is read
rather than in each pass, and corners on corners unless bicubic is asked for;
blocks may be scanned.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.attention import CrossAttention
from vit_jax.layers.drop_path import DropPath, stage_rates
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.layers.reduction import SpatialReduction
from vit_jax.lookup import choose
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# The reference cuts this distribution at 100 deviations: that is, not at all.
INIT = nn.initializers.normal(0.02)

norm = functools.partial(nn.LayerNorm, epsilon=1e-6)
# Those of patches, and of reduced keys and values, keep PyTorch's epsilon.
patch_norm = functools.partial(nn.LayerNorm, epsilon=1e-5)


def _size(*depths: int) -> dict[str, Any]:
  return dict(
    widths=(64, 128, 320, 512),
    depths=depths,
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    reductions=(8, 4, 2, 1),
  )


# Table 1.
SIZES = {
  'T': _size(2, 2, 2, 2),
  'S': _size(3, 4, 6, 3),
  'M': _size(3, 4, 18, 3),
  'L': _size(3, 8, 27, 3),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `PVT` for e.g. 'S'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


def check_stages(**fields: Sequence[Any]) -> None:
  """Raises a ValueError unless all fields have a value for each stage."""
  if len({len(values) for values in fields.values()}) > 1:
    raise ValueError(
      ', '.join(f'{name}={values}' for name, values in fields.items())
      + ' must all have a number for each stage'
    )


class Block(nn.Module):
  """Attention to reduced tokens and an MLP, each on a norm and added.

  Attributes: as in `PVT`, of one stage.
  """

  num_heads: int
  mlp_ratio: int
  reduction: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b *n d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b *n d']:
    """Returns the new tokens; `drop_path` is the rate of both branches.

    They are a row or a map; only a map can be reduced.
    """
    y = norm(name='norm1')(x)
    tokens, context = y.reshape(len(y), -1, y.shape[-1]), self.reduce(y)
    attn = CrossAttention(self.num_heads, kernel_init=INIT, name='attn')
    y = attn(tokens, context).reshape(x.shape)
    x = x + DropPath()(y, rate=drop_path, train=train)
    y = self.mix_channels(norm(name='norm2')(x))
    return x + DropPath()(y, rate=drop_path, train=train)

  def reduce(self, x: Float[Array, 'b *n d']) -> Float[Array, 'b m d']:
    """Returns what is attended to."""
    if self.reduction == 1:
      return x.reshape(len(x), -1, x.shape[-1])
    return SpatialReduction(self.reduction, name='reduction')(x)

  def mix_channels(self, x: Float[Array, 'b *n d']) -> Float[Array, 'b *n d']:
    """Returns the other branch."""
    return Mlp(
      self.mlp_ratio * x.shape[-1],
      gelu='erf',
      kernel_init=INIT,
      bias_init=nn.initializers.zeros,
      name='mlp',
    )(x)


class Stage(nn.Module):
  """Patches, positions and blocks on maps of one size (section 3.2).

  Attributes:
    make_block: name -> block.
    patch_size: in positions of the map before.
    width: of the tokens.
    depth: number of blocks.
    token: whether there is a class token.
    drop_path: rates of the first and the last block.
    scan, remat: as in `PVT`.
  """

  make_block: Callable[..., nn.Module]
  patch_size: int
  width: int
  depth: int
  token: bool
  drop_path: Sequence[float]
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> tuple[Float[Array, 'b y x d'], Float[Array, 'b d'] | None]:
    """Returns the new map, and the class token if there is one."""
    x = PatchEmbed(self.width, self.patch_size, name='patch_embed')(x)
    x = patch_norm(name='patch_norm')(x)
    b, h, w, d = x.shape
    if self.token:
      cls = self.param('cls', INIT, (1, 1, d))
      cls = jnp.broadcast_to(cls, (b, 1, d)).astype(x.dtype)
      x = jnp.concatenate([cls, x.reshape(b, h * w, d)], axis=1)  # (B, 1+N, D)
    x = apply_blocks(
      self.make_block,
      x + self.param('pos_embed', INIT, (1, *x.shape[1:])),
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    return (x[:, 1:].reshape(b, h, w, d), x[:, 0]) if self.token else (x, None)


class PVT(nn.Module):
  """Stages, the norm of the class token, and a linear head.

  Attributes:
    widths: of the tokens of each stage.
    depths: number of blocks of each stage.
    num_heads: of the attention in each stage; must divide the width there.
    mlp_ratios: hidden width of the MLPs of each stage over that of the tokens.
    reductions: R of each stage; its keys and values stand for R x R tokens. The
      last, with the class token, has none: 1.
    num_classes: of the head; None for no head.
    patch_size: of the first stage, in pixels; that of the others is 2.
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
    stage reads, without a norm. The features, of the class token, are normed.

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
    if self.reductions[-1] != 1:
      raise ValueError(
        f'reductions={self.reductions} must end with 1: the last stage has a '
        'class token, which is in no group'
      )
    rates = stage_rates(self.drop_path, depths=self.depths)
    x, pyramid = image, ()
    for i, depth in enumerate(self.depths):
      x, cls = Stage(
        make_block=functools.partial(
          Block,
          num_heads=self.num_heads[i],
          mlp_ratio=self.mlp_ratios[i],
          reduction=self.reductions[i],
        ),
        patch_size=self.patch_size if i == 0 else 2,
        width=self.widths[i],
        depth=depth,
        token=i == len(self.depths) - 1,
        drop_path=rates[i],
        scan=self.scan,
        remat=self.remat,
        name=f'stage_{i}',
      )(x, train=train)
      pyramid = (*pyramid, x)
    pooled = norm(name='norm')(cls)  # (B, D)
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(self.num_classes, kernel_init=INIT, name='head')(pooled)
    return Output(logits, pooled, pyramid)
