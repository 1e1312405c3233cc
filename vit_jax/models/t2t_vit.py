"""T2T-ViT.

Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet,
arXiv:2101.11986.

What is different about it:
- tokens are made in steps: a map is cut into patches that overlap, whose
  channels stand in a row (a soft split), and a narrow layer mixes these; three
  splits, with two layers between them, reduce 224 pixels to 14 tokens a side;
- these two layers see 3136 and 784 tokens: they attend with random features,
  at a cost linear in the tokens (Performer), or with a softmax ('t');
- they change the width, so that their residual comes from the value;
- behind them stands a ViT that is deep and narrow, with fixed positions.

Any image will do: as with a convolution, a split leaves out rows and columns at
the bottom and the right that do not fill a patch. No array depends on the size
of the image.

Departures from yitu-opensource/T2T-ViT: the map may be of any shape; positions
are computed for it, and not resampled from those of another size; blocks may be
scanned. `pretrained=True` there, which loads nothing, also divides the products
of the backbone by the root of the width and not of a head's; the published
accuracies are without it, and so is this.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax.layers.attention import DotProduct, MultiHeadAttention
from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.mlp import Mlp
from vit_jax.lookup import choose, unknown
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# The reference cuts this distribution at 100 deviations: that is, not at all.
INIT = nn.initializers.normal(0.02)

norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
mlp = functools.partial(
  Mlp, gelu='erf', kernel_init=INIT, bias_init=nn.initializers.zeros
)


def _size(
  width: int, depth: int, mlp_dim: int, num_heads: int
) -> dict[str, Any]:
  return dict(width=width, depth=depth, mlp_dim=mlp_dim, num_heads=num_heads)


# Table 1; size 10 and the numbers of heads are from the authors' code.
SIZES = {
  '7': _size(256, 7, 512, 4),
  '10': _size(256, 10, 512, 4),
  '12': _size(256, 12, 512, 4),
  '14': _size(384, 14, 1152, 6),
  '19': _size(448, 19, 1344, 7),
  '24': _size(512, 24, 1536, 8),
}
# Those with a t mix the tokens between the splits by a softmax.
VARIANTS = (*SIZES, 't_14', 't_19', 't_24')


def variant(name: str) -> dict[str, Any]:
  """Fields of `T2TViT` for e.g. '14' or 't_14'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  if name not in VARIANTS:
    raise unknown(name, known=VARIANTS, kind='variant')
  tokens = 'transformer' if name.startswith('t_') else 'performer'
  return SIZES[name.removeprefix('t_')] | {'tokens': tokens}


def soft_split(
  x: Float[Array, 'b h w c'], *, side: int, stride: int, padding: int
) -> Float[Array, 'b y x d']:
  """Patches that overlap, each as a row of numbers (section 3.1).

  Args:
    x: the map.
    side: of a patch; d = c * side * side, channel by channel.
    stride: from patch to patch.
    padding: zeros on every edge; y and x as in equation 3.
  """
  edges = (padding, padding)
  x = jnp.pad(x, ((0, 0), edges, edges, (0, 0)))
  h, w = (n - side + 1 for n in x.shape[1:3])
  # Rows first, then columns: no gather, whose gradient adds up in any order.
  x = jnp.stack([x[:, i : i + h : stride] for i in range(side)], axis=-1)
  x = jnp.stack([x[:, :, j : j + w : stride] for j in range(side)], axis=-1)
  *grid, c, _, _ = x.shape  # (B, Y, X, C, side, side)
  return x.reshape(*grid, c * side * side)


def random_feature_attention(
  query: Float[Array, 'b n d'],
  key: Float[Array, 'b n d'],
  value: Float[Array, 'b n e'],
  *,
  features: Float[Array, 'm d'],
) -> Float[Array, 'b n e']:
  """softmax(query key^T) value, estimated at a cost linear in the tokens.

  exp(q k) is the mean over Gaussian f of exp(f q - |q|^2 / 2) exp(f k - |k|^2
  / 2) (Performer, arXiv:2009.14794, equation 7), here over m vectors f: what
  all keys say to a vector is summed once, for all queries (equation 4). It is
  computed in float32.

  Args:
    query: what asks.
    key: what is compared with the query.
    value: what is averaged.
    features: the vectors f.
  """
  features = features.astype(jnp.float32)

  def project(x):
    x = x.astype(jnp.float32)
    half_square = jnp.sum(x * x, axis=-1, keepdims=True) / 2
    x = jnp.exp(jnp.einsum('bnd,md->bnm', x, features) - half_square)
    return x / math.sqrt(len(features))

  query, key = project(query), project(key)
  said = jnp.einsum('bnm,bne->bme', key, value.astype(jnp.float32))
  mixed = jnp.einsum('bnm,bme->bne', query, said)
  total = jnp.einsum('bnm,bm->bn', query, key.sum(axis=1))
  return (mixed / (total[..., None] + 1e-8)).astype(value.dtype)


def sinusoid(n: int, *, width: int) -> Float[Array, 'n d']:
  """Sines and cosines of 0, 1 ... n - 1, in turn (arXiv:1706.03762, 3.5)."""
  wavelength = 10_000 ** (np.arange(0, width, 2) / width)
  angle = np.arange(n)[:, None] / wavelength
  table = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
  return jnp.asarray(table.reshape(n, width), jnp.float32)


class TokenLayer(nn.Module):
  """Attention of one head and an MLP, to another width (equation 1).

  A Performer's random features are orthogonal, drawn once and never learned:
  they are no parameters, but the collection `constants`: features (d / 2, d).

  Attributes:
    width: d, of the tokens that come out.
    performer: whether attention is by random features, or a softmax.
  """

  width: int
  performer: bool

  @nn.compact
  def __call__(
    self, tokens: Float[Array, 'b n c'], *, train: bool
  ) -> Float[Array, 'b n d']:
    """Returns the new tokens."""
    d, c = self.width, tokens.shape[-1]
    qkv = nn.Dense(
      3 * d, use_bias=self.performer, kernel_init=INIT, name='qkv'
    )(norm(name='norm1')(tokens))
    query, key, value = jnp.split(qkv, 3, axis=-1)
    if self.performer:
      mixed = random_feature_attention(
        query, key, value, features=self._features(d // 2, d)
      )
    else:
      # The scale is of the tokens that come in, not of those that are compared.
      mixed = DotProduct()(
        *(x[:, :, None] for x in (query, key, value)), scale=c**-0.5
      )[:, :, 0]
    # The one dropout of the reference, at any setting.
    dropout = nn.Dropout(0.1 * self.performer, deterministic=not train)
    mixed = nn.Dense(d, kernel_init=INIT, name='out')(mixed)
    x = value + dropout(mixed)
    return x + dropout(mlp(d, name='mlp')(norm(name='norm2')(x)))

  def _features(self, m: int, d: int) -> Array:
    # Of length sqrt(m); a Gaussian vector would be about sqrt(d) long.
    init = nn.initializers.orthogonal(scale=math.sqrt(m))
    draw = lambda: init(self.make_rng('params'), (m, d))
    return self.variable('constants', 'features', draw).value


class TokensToTokens(nn.Module):
  """Three soft splits, and a layer between each two (equation 4, figure 4).

  Attributes: as in `T2TViT`.
  """

  width: int
  tokens: str
  token_width: int

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Returns the map of tokens, of stride 16."""
    kinds = {'performer': True, 'transformer': False}
    performer = choose(kinds, word=self.tokens, kind='tokens')
    x = soft_split(image, side=7, stride=4, padding=2)
    for i in (1, 2):
      b, h, w, c = x.shape
      x = TokenLayer(self.token_width, performer, name=f'layer_{i}')(
        x.reshape(b, h * w, c), train=train
      )
      x = x.reshape(b, h, w, self.token_width)
      x = soft_split(x, side=3, stride=2, padding=1)
    return nn.Dense(self.width, kernel_init=INIT, name='project')(x)


class Block(nn.Module):
  """Attention and MLP, each on a norm and added (equation 5).

  Attributes: as in `T2TViT`.
  """

  num_heads: int
  mlp_dim: int

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b n d'],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b n d']:
    """Returns the new tokens; `drop_path` is the rate of both branches."""
    x = MultiHeadAttention(
      self.num_heads, kernel_init=INIT, qkv_bias=False, name='attn'
    )(norm(name='norm1')(tokens))
    tokens = tokens + DropPath()(x, rate=drop_path, train=train)
    x = mlp(self.mlp_dim, name='mlp')(norm(name='norm2')(tokens))
    return tokens + DropPath()(x, rate=drop_path, train=train)


class T2TViT(nn.Module):
  """Tokens, blocks, and a linear head on the class token.

  Attributes:
    width: d, of the tokens.
    depth: number of blocks.
    mlp_dim: hidden width of the MLPs.
    num_heads: of the attention; must divide the width.
    num_classes: of the head; None for no head.
    tokens: what mixes them between the splits: 'performer' or 'transformer'.
    token_width: of the tokens there.
    drop_path: rate of the last block, rising linearly from 0.
    scan: whether the blocks share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  width: int
  depth: int
  mlp_dim: int
  num_heads: int
  num_classes: int | None = None
  tokens: str = 'performer'
  token_width: int = 64
  drop_path: float = 0.0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self, image: Float[Array, 'b h w c'], *, train: bool = False
  ) -> Output:
    """Returns logits (b, k), pooled (b, d) and one map, of stride 16.

    Raises:
      ValueError: if the image has fewer than 3 pixels along an axis.
    """
    if min(image.shape[1:3]) < 3:
      raise ValueError(
        f'an image of {image.shape[1]}x{image.shape[2]} is smaller than a '
        'patch of 7x7 with 2 pixels of padding: enlarge the image'
      )
    x = TokensToTokens(self.width, self.tokens, self.token_width, name='t2t')(
      image, train=train
    )
    b, h, w, d = x.shape
    cls = self.param('cls', INIT, (1, 1, d))
    cls = jnp.broadcast_to(cls, (b, 1, d)).astype(x.dtype)
    tokens = jnp.concatenate([cls, x.reshape(b, h * w, d)], axis=1)
    tokens = tokens + sinusoid(1 + h * w, width=d)[None].astype(x.dtype)
    tokens = apply_blocks(
      functools.partial(Block, num_heads=self.num_heads, mlp_dim=self.mlp_dim),
      tokens,  # (B, 1 + N, D)
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    tokens = norm(name='norm')(tokens)
    pooled = tokens[:, 0]  # (B, D)
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(self.num_classes, kernel_init=INIT, name='head')(pooled)
    return Output(logits, pooled, pyramid=(tokens[:, 1:].reshape(b, h, w, d),))
