"""MLP-Mixer.

MLP-Mixer: An all-MLP Architecture for Vision, arXiv:2105.01601.

What is different about it: no attention and no position embedding. One MLP
mixes the tokens of each channel, another the channels of each token, in turn;
the first of them ties the parameters to the number of patches, so to the size
of the image.

Departures from google-research/vision_transformer: drop path and scanned blocks
are possible.
"""

import functools
from typing import Any

import flax.linen as nn
from jaxtyping import Float

from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.models.scan import apply_blocks
from vit_jax.models.variants import with_patch_size
from vit_jax.types import Array, Output


def _size(width: int, depth: int, token_dim: int, channel_dim: int) -> dict:
  return dict(
    width=width, depth=depth, token_dim=token_dim, channel_dim=channel_dim
  )


# Table 1: width is C, token_dim D_S, channel_dim D_C.
SIZES = {
  'S': _size(512, 8, 256, 2048),
  'B': _size(768, 12, 384, 3072),
  'L': _size(1024, 24, 512, 4096),
  'H': _size(1280, 32, 640, 5120),
}

VARIANTS = ('S/32', 'S/16', 'S/8', 'B/32', 'B/16', 'L/32', 'L/16', 'H/14')


def variant(name: str) -> dict[str, Any]:
  """Fields of `MlpMixer` for e.g. 'B/16'.

  Raises:
    ValueError: if the size is not in table 1; it names the nearest variants.
  """
  return with_patch_size(name, sizes=SIZES, known=VARIANTS)


# Unlike those of a ViT, these MLPs start as dense layers usually do.
_mlp = functools.partial(
  Mlp,
  kernel_init=nn.initializers.lecun_normal(),
  bias_init=nn.initializers.zeros,
)


class Block(nn.Module):
  """Token mixing, then channel mixing, each on a norm (equation 1).

  Attributes: as in `MlpMixer`.
  """

  token_dim: int
  channel_dim: int

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b n d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b n d']:
    """Returns the new tokens; `drop_path` is the rate of both branches."""
    x = nn.LayerNorm(epsilon=1e-6, name='norm1')(tokens)
    x = x.swapaxes(1, 2)  # (B, D, N)
    x = _mlp(self.token_dim, name='token_mlp')(x)
    x = x.swapaxes(1, 2)  # (B, N, D)
    tokens = tokens + DropPath()(x, rate=drop_path, train=train)

    x = nn.LayerNorm(epsilon=1e-6, name='norm2')(tokens)
    x = _mlp(self.channel_dim, name='channel_mlp')(x)
    return tokens + DropPath()(x, rate=drop_path, train=train)


class MlpMixer(nn.Module):
  """Patches, blocks, the average of the tokens, and a linear head.

  Attributes:
    patch_size: p, in pixels.
    width: C, of the tokens.
    depth: number of blocks.
    token_dim: D_S, hidden width of the MLPs over tokens.
    channel_dim: D_C, hidden width of the MLPs over channels.
    num_classes: of the head; None for no head.
    head_bias: what the head's bias starts from.
    drop_path: rate of the last block, rising linearly from 0.
    scan: whether the blocks share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  patch_size: int | tuple[int, int]
  width: int
  depth: int
  token_dim: int
  channel_dim: int
  num_classes: int | None = None
  head_bias: float = 0.0
  drop_path: float = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and one map (b, h/p, w/p, d).

    Raises:
      ValueError: if the image is smaller than a patch.
    """
    x = PatchEmbed(self.width, self.patch_size, name='patch_embed')(image)
    b, h, w, d = x.shape
    make_block = functools.partial(
      Block, token_dim=self.token_dim, channel_dim=self.channel_dim
    )
    tokens = apply_blocks(
      make_block,
      x.reshape(b, h * w, d),  # (B, N, D)
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    tokens = nn.LayerNorm(epsilon=1e-6, name='norm')(tokens)
    pooled = tokens.mean(axis=1)  # (B, D)
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(
        self.num_classes,
        kernel_init=nn.initializers.zeros,
        bias_init=nn.initializers.constant(self.head_bias),
        name='head',
      )(pooled)
    return Output(logits, pooled, pyramid=(tokens.reshape(b, h, w, d),))
