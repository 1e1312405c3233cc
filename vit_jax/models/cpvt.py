"""CPVT, Conditional Position Encoding Vision Transformer.

Conditional Positional Encodings for Vision Transformers, arXiv:2102.10882.

What is different about it:
- a ViT without positions of its own: they follow from the neighbours of each
  patch, by a depthwise convolution (section 3.2), and so fit an image of any
  size;
- the convolution stands after the first block, where each token has already
  seen all others, or after each of the first five (the models marked with a
  double dagger);
- the class token stands nowhere: the convolution passes it by. With an average
  in its place the model is, but for the edges, as good as invariant to shifts.

Rows and columns at the bottom and the right that do not fill a patch are left
out.

No code was published. What the paper leaves open is as in DeiT, from which it
takes the sizes, and in Meituan-AutoML/Twins, by the same authors.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.layers.peg import PEG
from vit_jax.lookup import choose, unknown
from vit_jax.models import vit
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# Those of DeiT; the patches are of 16 x 16 pixels.
VARIANTS = ('Ti/16', 'S/16', 'B/16')


def variant(name: str) -> dict[str, Any]:
  """Fields of `CPVT` for e.g. 'S/16'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  return choose(
    {known: vit.variant(known) for known in VARIANTS}, word=name, kind='variant'
  )


class PositionedBlock(vit.Block, kw_only=True):
  """A block, and positions after it.

  Attributes:
    grid: (h, w) of the patches, which are the last of the tokens.
  """

  grid: tuple[int, int]

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b n d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b n d']:
    """Returns the new tokens; `drop_path` is the rate of both branches."""
    tokens = super().__call__(tokens, drop_path=drop_path, train=train)
    b, n, d = tokens.shape
    before, patches = jnp.split(tokens, [n - math.prod(self.grid)], axis=1)
    patches = PEG(name='peg')(patches.reshape(b, *self.grid, d))
    return jnp.concatenate([before, patches.reshape(b, -1, d)], axis=1)


class CPVT(nn.Module):
  """The encoder, its class token or an average, and a linear head.

  Attributes:
    patch_size: in pixels.
    width: of the tokens.
    depth: number of blocks.
    mlp_dim: hidden width of the MLPs.
    num_heads: of the attention; must divide the width.
    num_classes: of the head; None for no head.
    pool: 'token' (a class token) or 'gap' (average of the patches).
    num_pegs: how many blocks, from the first on, are followed by positions.
    drop_path: rate of the last block, rising linearly from 0; or those of the
      first and the last block.
    scan: whether the blocks without positions share one program; see
      `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  patch_size: int | tuple[int, int]
  width: int
  depth: int
  mlp_dim: int
  num_heads: int
  num_classes: int | None = None
  pool: str = 'token'
  num_pegs: int = 1
  drop_path: float | Sequence[float] = 0.0
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
    if self.pool not in ('token', 'gap'):
      raise unknown(self.pool, known=('token', 'gap'), kind='pool')
    if not 0 <= self.num_pegs <= self.depth:
      raise ValueError(
        f'num_pegs={self.num_pegs} must lie between 0 and depth={self.depth}'
      )
    x = PatchEmbed(self.width, self.patch_size, name='patch_embed')(image)
    b, h, w, d = x.shape
    tokens = x.reshape(b, h * w, d)  # (B, N, D)
    if self.pool == 'token':
      cls = self.param('cls', nn.initializers.normal(0.02), (1, 1, d))
      cls = jnp.broadcast_to(cls, (b, 1, d)).astype(tokens.dtype)
      tokens = jnp.concatenate([cls, tokens], axis=1)  # (B, 1 + N, D)
    fields = dict(num_heads=self.num_heads, mlp_dim=self.mlp_dim, gelu='erf')
    positioned = functools.partial(PositionedBlock, grid=(h, w), **fields)
    tokens = apply_blocks(
      functools.partial(vit.Block, **fields),
      tokens,
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
      first=[positioned] * self.num_pegs,
    )
    tokens = nn.LayerNorm(epsilon=1e-6, name='norm')(tokens)
    patches = tokens[:, -h * w :]
    pooled = tokens[:, 0] if self.pool == 'token' else tokens.mean(axis=1)
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(
        self.num_classes, kernel_init=nn.initializers.normal(0.02), name='head'
      )(pooled)
    return Output(logits, pooled, pyramid=(patches.reshape(b, h, w, d),))
