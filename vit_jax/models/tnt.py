"""TNT, Transformer in Transformer.

Transformer in Transformer, arXiv:2103.00112.

What is different about it:
- a patch of 16 x 16 pixels is a sentence, and 4 x 4 pixels of it are a word;
- each block lets the words of a sentence look at each other, adds to every
  sentence what its words say, and lets the sentences look at each other;
- the words of all sentences share one transformer and one set of positions, so
  that they cost little: they are narrow, and there are 16 to a sentence.

Any image of a patch and more will do: rows and columns at the bottom and the
right that do not fill a patch are left out. The positions of the sentences tie
the parameters to the number of patches.

Departures from huawei-noah/Efficient-AI-Backbones: query, key and value share
one kernel; an array `outer_tokens`, which nothing reads, is left out; blocks
may be scanned. As there, and not in the paper, a word also sees the 3 rows
above and the 3 columns to its left within its sentence (a convolution of 7 x 7
replaces equation 5), and norms surround the map from words to sentences.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.attention import MultiHeadAttention
from vit_jax.layers.drop_path import DropPath
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.window import partition
from vit_jax.lookup import choose
from vit_jax.models.scan import apply_blocks
from vit_jax.types import Array, Output

# The reference cuts this distribution at 100 deviations: that is, not at all.
INIT = nn.initializers.normal(0.02)
WORD = 4  # section 2.4: the side of a word in pixels

norm = functools.partial(nn.LayerNorm, epsilon=1e-5)


def _size(
  word_width: int, word_heads: int, width: int, num_heads: int
) -> dict[str, Any]:
  return dict(
    word_width=word_width,
    word_heads=word_heads,
    width=width,
    num_heads=num_heads,
    depth=12,
    patch_size=16,
  )


# Table 1: word_width is c, width is d.
SIZES = {
  'Ti': _size(12, 2, 192, 3),
  'S': _size(24, 4, 384, 6),
  'B': _size(40, 4, 640, 10),
}

VARIANTS = tuple(SIZES)


def variant(name: str) -> dict[str, Any]:
  """Fields of `TNT` for e.g. 'S'.

  Raises:
    ValueError: if the size is not in table 1; it names the nearest variants.
  """
  return choose(SIZES, word=name, kind='variant')


class Transformer(nn.Module):
  """Attention and MLP, each on a norm and added (equations 6 and 7, 9 and 10).

  Attributes:
    num_heads: of the attention; must divide the width.
  """

  num_heads: int

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
    x = Mlp(
      4 * tokens.shape[-1],
      gelu='erf',
      kernel_init=INIT,
      bias_init=nn.initializers.zeros,
      name='mlp',
    )(norm(name='norm2')(tokens))
    return tokens + DropPath()(x, rate=drop_path, train=train)


class WordsToSentences(nn.Module):
  """What the words of each sentence say (equation 8, between two norms).

  Attributes:
    width: d, of the sentences.
    use_bias: whether the map has a bias.
  """

  width: int
  use_bias: bool = False

  @nn.compact
  def __call__(
    self, words: Float[Array, 'bn m c'], *, batch: int
  ) -> Float[Array, 'b n d']:
    """Joins the words of each sentence, for so many examples."""
    x = norm(name='norm1')(words.reshape(batch, -1, words[0].size))
    x = nn.Dense(
      self.width, use_bias=self.use_bias, kernel_init=INIT, name='proj'
    )(x)  # (B, N, D)
    return norm(name='norm2')(x)


class Block(nn.Module):
  """Words, then sentences (equation 11).

  Attributes: as in `TNT`.
  """

  word_heads: int
  num_heads: int

  @nn.compact
  def __call__(
    self,
    tokens: tuple[Float[Array, 'bn m c'], Float[Array, 'b s d']],
    *,
    drop_path: float | Float[Array, ''] | None = None,
    train: bool = False,
  ) -> tuple[Float[Array, 'bn m c'], Float[Array, 'b s d']]:
    """Returns new words and sentences; a sentence drops its words by itself."""
    words, sentences = tokens
    words = Transformer(self.word_heads, name='inner')(
      words, drop_path=drop_path, train=train
    )
    said = WordsToSentences(sentences.shape[-1], name='said')(
      words, batch=len(sentences)
    )
    said = jnp.pad(said, ((0, 0), (1, 0), (0, 0)))  # the class token: no words
    sentences = sentences + said
    sentences = Transformer(self.num_heads, name='outer')(
      sentences, drop_path=drop_path, train=train
    )
    return words, sentences


class TNT(nn.Module):
  """Words and sentences, blocks, and a linear head on the class token.

  Attributes:
    patch_size: p, of a sentence, in pixels.
    word_width: c, of the words.
    word_heads: of the attention of words; must divide their width.
    width: d, of the sentences.
    num_heads: of the attention of sentences; must divide their width.
    depth: number of blocks.
    num_classes: of the head; None for no head.
    drop_path: rate of the last block, rising linearly from 0.
    scan: whether the blocks share one program; see `models/scan.py`.
    remat: what of a block the backward pass computes again; see there.
  """

  patch_size: int
  word_width: int
  word_heads: int
  width: int
  num_heads: int
  depth: int
  num_classes: int | None = None
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
    p = self.patch_size
    b, h, w = len(image), image.shape[1] // p, image.shape[2] // p
    if not (h and w):
      raise ValueError(
        f'an image of {image.shape[1]}x{image.shape[2]} is smaller than a '
        f'patch of {p}x{p}: enlarge the image or choose a smaller patch_size'
      )
    words = self._words(image[:, : p * h, : p * w])
    sentences = WordsToSentences(self.width, use_bias=True, name='said')(
      words, batch=b
    )
    cls = self.param('cls', INIT, (1, 1, self.width))
    cls = jnp.broadcast_to(cls, (b, 1, self.width)).astype(image.dtype)
    sentences = jnp.concatenate([cls, sentences], axis=1)  # (B, 1 + N, D)
    sentences = sentences + self.param(
      'pos_embed', INIT, (1, *sentences.shape[1:])
    )
    _, sentences = apply_blocks(
      functools.partial(
        Block, word_heads=self.word_heads, num_heads=self.num_heads
      ),
      (words, sentences),
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      remat=self.remat,
      train=train,
    )
    sentences = norm(name='norm')(sentences)
    pooled = sentences[:, 0]  # (B, D)
    logits = None
    if self.num_classes is not None:
      logits = nn.Dense(self.num_classes, kernel_init=INIT, name='head')(pooled)
    patches = sentences[:, 1:].reshape(b, h, w, self.width)
    return Output(logits, pooled, pyramid=(patches,))

  def _words(self, image: Array) -> Array:
    """(B, H, W, C) -> (B * N, M, C), example by example, row by row."""
    p = self.patch_size
    pixels = partition(image, window=(p, p))  # (B * N, P * P, C)
    words = nn.Conv(
      self.word_width,
      (7, 7),
      strides=(WORD, WORD),
      padding=3,
      name='word_embed',
    )(pixels.reshape(-1, p, p, image.shape[-1]))
    words = words.reshape(len(words), -1, self.word_width)
    return words + self.param('word_pos', INIT, (1, *words.shape[1:]))
