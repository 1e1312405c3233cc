"""CvT, Convolutional vision Transformer.

CvT: Introducing Convolutions to Vision Transformers, arXiv:2103.15808.

What is different about it:
- patches overlap, and each of three stages makes patches of the map before it
  (section 3.1);
- queries, keys and values are projected by convolutions of 3 x 3, so that a
  token sees its neighbours before it is compared; those of keys and values
  have a stride of 2, which makes attention four times cheaper (section 3.2);
- nothing else tells where a token stands: there are no positions;
- a class token joins the last stage, and passes the convolutions by.

Any image of 3 x 3 pixels and more will do, with the same parameters.

Departures from microsoft/CvT: none in what is computed, but the running
variance, which here is that of the batches, and there the unbiased one; blocks
may be scanned. As there, though the paper does not tell, products are scaled by
the root of the whole width, not of that of a head, the GELU is the quick one,
and drop path rises within the last stage alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.attention import DotProduct, head_shape, project_out
from vit_jax.layers.conv import ConvBN
from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.mlp import Mlp
from vit_jax.lookup import choose
from vit_jax.models.pvt import INIT, check_stages
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# That of PyTorch's convolutions, which the reference keeps.
CONV_INIT = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')

norm = functools.partial(nn.LayerNorm, epsilon=1e-5)


def _size(widths: tuple, depths: tuple, num_heads: tuple) -> dict[str, Any]:
  return dict(widths=widths, depths=depths, num_heads=num_heads)


# Table 2.
SIZES = {
  '13': _size((64, 192, 384), (1, 2, 10), (1, 3, 6)),
  '21': _size((64, 192, 384), (1, 4, 16), (1, 3, 6)),
  'W24': _size((192, 768, 1024), (2, 2, 20), (3, 12, 16)),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `CvT` for e.g. '13'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


class ConvAttention(nn.Module):
  """Attention with convolutional projections (section 3.2).

  Attributes:
    num_heads: h; must divide the width.
    size: (height, width) of the map; tokens before it pass the convolutions by.
  """

  num_heads: int
  size: tuple[int, int]

  @nn.compact
  def __call__(
    self, tokens: Float[Array, 'b n d'], *, train: bool
  ) -> Float[Array, 'b n d']:
    """Mixes the tokens of each example."""
    d = tokens.shape[-1]
    project = functools.partial(self._project, tokens, train=train)
    mixed = DotProduct()(
      project('q', stride=1),
      project('k', stride=2),
      project('v', stride=2),
      scale=d**-0.5,
    )
    return project_out(mixed, width=d, kernel_init=INIT)

  def _project(
    self, tokens: Array, name: str, *, stride: int, train: bool
  ) -> Array:
    """(B, N, D) -> (B, M, H, T): a convolution, and a layer (equation 2)."""
    b, n, d = tokens.shape
    h, w = self.size
    first, x = jnp.split(tokens, [n - h * w], axis=1)
    conv = ConvBN(
      d, 3, stride, groups=d, kernel_init=CONV_INIT, name=f'{name}_conv'
    )
    x = conv(x.reshape(b, h, w, d), train=train)
    x = jnp.concatenate([first, x.reshape(b, -1, d)], axis=1)
    heads = head_shape(d, num_heads=self.num_heads)
    return nn.Einsum((d, *heads), 'bnd,dht->bnht', kernel_init=INIT, name=name)(
      x
    )


class Block(nn.Module):
  """Attention and an MLP, each on a norm and added to the stream.

  Attributes:
    size: as in `ConvAttention`.
    num_heads, gelu: as in `CvT`, of one stage.
  """

  size: tuple[int, int]
  num_heads: int
  gelu: str

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b n d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b n d']:
    """Returns the new tokens; `drop_path` is the rate of both branches."""
    attn = ConvAttention(self.num_heads, self.size, name='attn')
    x = attn(norm(name='norm1')(tokens), train=train)
    tokens = tokens + DropPath()(x, rate=drop_path, train=train)
    x = Mlp(
      4 * tokens.shape[-1],  # section 4.1
      gelu=self.gelu,
      kernel_init=INIT,
      bias_init=nn.initializers.zeros,
      name='mlp',
    )(norm(name='norm2')(tokens))
    return tokens + DropPath()(x, rate=drop_path, train=train)


class Stage(nn.Module):
  """Overlapping patches and blocks on maps of one size.

  Attributes:
    make_block: (size of the map, name) -> block.
    width: of the tokens.
    depth: number of blocks.
    kernel_size, stride, padding: of the patches.
    token: whether there is a class token.
    drop_path: rate of the last block.
    scan, remat: as in `CvT`.
  """

  make_block: Callable[..., nn.Module]
  width: int
  depth: int
  kernel_size: int
  stride: int
  padding: int
  token: bool
  drop_path: float
  scan: bool
  remat: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> tuple[Float[Array, 'b y x d'], Float[Array, 'b d'] | None]:
    """Returns the new map, and the class token if there is one."""
    x = nn.Conv(
      self.width,
      (self.kernel_size, self.kernel_size),
      strides=(self.stride, self.stride),
      padding=self.padding,
      kernel_init=CONV_INIT,
      name='patch_embed',
    )(x)
    x = norm(name='patch_norm')(x)
    b, h, w, d = x.shape
    tokens = x.reshape(b, h * w, d)  # (B, N, D)
    if self.token:
      cls = self.param('cls', INIT, (1, 1, d))
      cls = jnp.broadcast_to(cls, (b, 1, d)).astype(x.dtype)
      tokens = jnp.concatenate([cls, tokens], axis=1)  # (B, 1+N, D)
    tokens = apply_blocks(
      functools.partial(self.make_block, size=(h, w)),
      tokens,
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    patches = tokens[:, -h * w :].reshape(b, h, w, d)
    return patches, tokens[:, 0] if self.token else None


class CvT(nn.Module):
  """Stages, the norm of the class token, and a linear head.

  Attributes:
    widths: of the tokens of each stage.
    depths: number of blocks of each stage.
    num_heads: of the attention in each stage; must divide the width there.
    num_classes: of the head; None for no head.
    gelu: 'quick', 'erf' (as Hugging Face has it) or 'tanh'.
    drop_path: rate of the last block, rising linearly from 0 at the first block
      of the last stage; no other stage drops any.
    scan: whether the blocks of a stage share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  num_heads: tuple[int, ...]
  num_classes: int | None = None
  gelu: str = 'quick'
  drop_path: float = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and a map of each stage.

    The maps have strides of 4, 8, 16 ... pixels and are those that the next
    stage reads, without a norm. The features, of the class token, are normed.

    Raises:
      ValueError: if the fields do not go together, or the image is too small.
    """
    check_stages(
      widths=self.widths, depths=self.depths, num_heads=self.num_heads
    )
    if min(image.shape[1:3]) < 3:
      raise ValueError(
        f'an image of {image.shape[1]}x{image.shape[2]} has no patch: enlarge '
        'it to 3x3 or more'
      )
    x, pyramid = image, ()
    for i, depth in enumerate(self.depths):
      is_last = i == len(self.depths) - 1
      x, cls = Stage(
        make_block=functools.partial(
          Block, num_heads=self.num_heads[i], gelu=self.gelu
        ),
        width=self.widths[i],
        depth=depth,
        # Table 2, with the paddings of the reference.
        kernel_size=7 if i == 0 else 3,
        stride=4 if i == 0 else 2,
        padding=2 if i == 0 else 1,
        token=is_last,
        drop_path=self.drop_path if is_last else 0.0,
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
