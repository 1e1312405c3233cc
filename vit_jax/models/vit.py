"""Vision Transformer.

An Image is Worth 16x16 Words, arXiv:2010.11929; How to train your ViT?,
arXiv:2106.10270; Scaling Vision Transformers, arXiv:2106.04560.

What is different about it:
- an image is a sequence of patches; nothing else knows that it was 2D;
- the norms stand before attention and MLP, and once more after the last block;
- the class token is put before the patches first, and positions are added to
  all of them, so that the class token has a position too;
- later models drop the class token for an average or for attention pooling;
- hybrids take the patches of a ResNet's map instead of the image's.

Departures from google-research/vision_transformer: query, key and value share
one kernel; drop path, layer scale and scanned blocks are possible. R+Ti/16 is,
as published, a network of stride 32 (stem 4, patches of 8) in spite of its
name.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.attention import MultiHeadAttention
from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import LayerScale
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.layers.pool import MAPHead
from vit_jax.layers.pos_embed import sincos_2d
from vit_jax.lookup import unknown
from vit_jax.models.resnet_v1 import ResNet
from vit_jax.models.scan import apply_blocks
from vit_jax.models.variants import with_patch_size
from vit_jax.types import Array, Output


def _size(width: int, depth: int, mlp_dim: int, num_heads: int) -> dict:
  return dict(width=width, depth=depth, mlp_dim=mlp_dim, num_heads=num_heads)


SIZES = {
  'mu': _size(32, 1, 128, 2),  # for tests; from no paper
  's': _size(256, 6, 1024, 8),  # Scaling ViT, table 2
  'Ti': _size(192, 12, 768, 3),  # Scaling ViT, table 2
  'S': _size(384, 12, 1536, 6),  # Scaling ViT, table 2
  'M': _size(512, 12, 2048, 8),  # from big_vision
  'B': _size(768, 12, 3072, 12),  # ViT, table 1
  'L': _size(1024, 24, 4096, 16),  # ViT, table 1
  'So400m': _size(1152, 27, 4304, 16),  # arXiv:2305.13035, shape-optimised
  'H': _size(1280, 32, 5120, 16),  # ViT, table 1
  'g': _size(1408, 40, 6144, 16),  # Scaling ViT, table 2
  'G': _size(1664, 48, 8192, 16),  # Scaling ViT, table 2
  'e': _size(1792, 56, 15360, 16),  # PaLI, arXiv:2209.06794
}

# AugReg, table 1, and ViT, table 2: the patches of a map of stride 4, 16 or 32.
HYBRIDS = {
  'R+Ti/16': SIZES['Ti'] | dict(resnet=(), patch_size=8),
  'R26+S/32': SIZES['S'] | dict(resnet=(2, 2, 2, 2), patch_size=1),
  'R26+B/32': SIZES['B'] | dict(resnet=(2, 2, 2, 2), patch_size=1),
  'R50+B/16': SIZES['B'] | dict(resnet=(3, 4, 9), patch_size=1),
  'R50+L/32': SIZES['L'] | dict(resnet=(3, 4, 6, 3), patch_size=1),
}

VARIANTS = (
  *('mu/16', 's/28', 's/16', 'Ti/16', 'S/32', 'S/16', 'M/16'),
  *('B/32', 'B/28', 'B/16', 'B/8', 'L/32', 'L/16', 'So400m/14'),
  *('H/14', 'g/14', 'G/14', 'e/14'),
  *HYBRIDS,
)


def variant(name: str) -> dict[str, Any]:
  """Fields of `ViT` for e.g. 'S/16', 'g/14', 's/28' or 'R26+S/32'.

  Raises:
    ValueError: if the size is not in the tables; it names the nearest variants.
  """
  if name in HYBRIDS:
    return HYBRIDS[name]
  return with_patch_size(name, sizes=SIZES, known=VARIANTS)


class Block(nn.Module):
  """Attention and MLP, each on a norm and added to the stream (equations 2, 3).

  Attributes: as in `ViT`.
  """

  num_heads: int
  mlp_dim: int
  gelu: str = 'tanh'
  dropout: float = 0.0
  layer_scale: float | None = None

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
    x = MultiHeadAttention(self.num_heads, name='attn')(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    if self.layer_scale is not None:
      x = LayerScale(self.layer_scale, name='scale1')(x)
    tokens = tokens + DropPath()(x, rate=drop_path, train=train)

    x = nn.LayerNorm(epsilon=1e-6, name='norm2')(tokens)
    mlp = Mlp(self.mlp_dim, gelu=self.gelu, dropout=self.dropout, name='mlp')
    x = mlp(x, train=train)
    if self.layer_scale is not None:
      x = LayerScale(self.layer_scale, name='scale2')(x)
    return tokens + DropPath()(x, rate=drop_path, train=train)


class ViT(nn.Module):
  """The encoder, a pooling of its tokens, and a linear head.

  Attributes:
    patch_size: p, in pixels of the image (of the ResNet's map in a hybrid).
    width: d, of the tokens.
    depth: number of blocks.
    mlp_dim: hidden width of the MLPs.
    num_heads: of the attention; must divide the width.
    num_classes: of the head; None for no head.
    pool: 'token' (a class token), 'gap' (average of the patches) or 'map'
      (attention pooling, Scaling ViT, section 3.2).
    pos_embed: 'learned', 'sincos2d' (fixed) or 'none'.
    representation_size: width of a dense layer with tanh before the head; None
      for no such layer.
    head_std: deviation of the head's kernel at the start.
    head_bias: what the head's bias starts from, e.g. -10 for a sigmoid loss.
    gelu: 'tanh', 'erf' or 'quick'.
    dropout: after the positions, the attention, and both layers of each MLP.
    drop_path: rate of the last block, rising linearly from 0; or those of the
      first and the last block.
    layer_scale: what the factors of the branches start from; None for none.
    resnet: units per stage of a ResNet before the patches; None for none.
    scan: whether the blocks share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  patch_size: int | tuple[int, int]
  width: int
  depth: int
  mlp_dim: int
  num_heads: int
  num_classes: int | None = None
  pool: str = 'token'
  pos_embed: str = 'learned'
  representation_size: int | None = None
  head_std: float = 0.0
  head_bias: float = 0.0
  gelu: str = 'tanh'
  dropout: float = 0.0
  drop_path: float | Sequence[float] = 0.0
  layer_scale: float | None = None
  resnet: tuple[int, ...] | None = None
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and one map (b, h/p, w/p, d).

    Raises:
      ValueError: if a field has no meaning or the image is below one patch.
    """
    if self.resnet is not None:
      image = ResNet(tuple(self.resnet), name='resnet')(image)
    x = PatchEmbed(self.width, self.patch_size, name='patch_embed')(image)
    b, h, w, d = x.shape
    tokens = self._prepend(x.reshape(b, h * w, d))  # (B, N, D)
    tokens = self._add_positions(tokens, grid=(h, w))
    tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)
    make_block = functools.partial(
      Block,
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      gelu=self.gelu,
      dropout=self.dropout,
      layer_scale=self.layer_scale,
    )
    tokens = apply_blocks(
      make_block,
      tokens,
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    tokens = nn.LayerNorm(epsilon=1e-6, name='norm')(tokens)
    patches = tokens[:, -h * w :]
    return self._read(tokens)._replace(pyramid=(patches.reshape(b, h, w, d),))

  def _prepend(self, tokens: Array) -> Array:
    """(B, N, D) -> (B, 1 + N, D) with a class token, if it has one."""
    return self._token('cls', tokens) if self.pool == 'token' else tokens

  def _token(self, name: str, tokens: Array) -> Array:
    """Puts a learned token before the others."""
    b, _, d = tokens.shape
    token = self.param(name, nn.initializers.zeros, (1, 1, d))
    token = jnp.broadcast_to(token, (b, 1, d)).astype(tokens.dtype)
    return jnp.concatenate([token, tokens], axis=1)

  def _add_positions(self, tokens: Array, *, grid: tuple[int, int]) -> Array:
    shape = (1, *tokens.shape[1:])
    if self.pos_embed == 'learned':
      init = nn.initializers.normal(0.02)
      return tokens + self.param('pos_embed', init, shape)
    if self.pos_embed == 'sincos2d':
      table = sincos_2d(grid, width=self.width)[None]  # (1, N, D)
      # The class token stands nowhere.
      before = shape[1] - table.shape[1]
      table = jnp.pad(table, ((0, 0), (before, 0), (0, 0)))
      return tokens + table.astype(tokens.dtype)
    if self.pos_embed == 'none':
      return tokens
    known = ('learned', 'sincos2d', 'none')
    raise unknown(self.pos_embed, known=known, kind='pos_embed')

  def _read(self, tokens: Array) -> Output:
    """(B, N, D) -> logits and the features (B, D) that the head reads."""
    pooled = self._pool(tokens)
    return Output(self._head(pooled), pooled)

  def _pool(self, tokens: Array) -> Array:
    if self.pool == 'token':
      pooled = tokens[:, 0]
    elif self.pool == 'gap':
      pooled = tokens.mean(axis=1)
    elif self.pool == 'map':
      head = MAPHead(self.num_heads, self.mlp_dim, gelu=self.gelu, name='pool')
      pooled = head(tokens)
    else:
      raise unknown(self.pool, known=('token', 'gap', 'map'), kind='pool')
    if self.representation_size is not None:
      dense = nn.Dense(self.representation_size, name='pre_logits')
      pooled = nn.tanh(dense(pooled))
    return pooled

  def _head(self, pooled: Array, *, name: str = 'head') -> Array | None:
    if self.num_classes is None:
      return None
    return nn.Dense(
      self.num_classes,
      kernel_init=nn.initializers.normal(self.head_std),
      bias_init=nn.initializers.constant(self.head_bias),
      name=name,
    )(pooled)
