"""DeiT with a distillation token.

Training data-efficient image transformers & distillation through attention,
arXiv:2012.12877. Without distillation, DeiT is a ViT.

What is different about it:
- beside the class token stands a second one, which learns from a teacher what
  the class token learns from the labels (section 3, figure 2);
- each has a head of its own; the prediction is their mean ("joint classifiers",
  section 3).

As in facebookresearch/deit, logits are averaged; the paper adds probabilities.
Departures from it: the model returns the mean in training, too, and the logits
of both heads beside it, in `Output.heads`, for an objective with a teacher.
"""

from typing import Any

from vit_jax.lookup import choose
from vit_jax.models import vit
from vit_jax.types import Array, Output

# Table 1; the patches are of 16 x 16 pixels.
VARIANTS = ('Ti/16', 'S/16', 'B/16')


def variant(name: str) -> dict[str, Any]:
  """Fields of `DeiT` for e.g. 'S/16'.

  Raises:
    ValueError: if it was not published; it names the nearest variants.
  """
  known = {word: vit.variant(word) | {'gelu': 'erf'} for word in VARIANTS}
  return choose(known, word=name, kind='variant')


class DeiT(vit.ViT):
  """A ViT with a class token, a distillation token, and a head for each."""

  def _prepend(self, tokens: Array) -> Array:
    """(B, N, D) -> (B, 2 + N, D), the class token first."""
    if self.pool != 'token' or self.representation_size is not None:
      raise ValueError(
        f'DeiT reads its two tokens: pool={self.pool!r} and '
        f'representation_size={self.representation_size} have no meaning; '
        "leave them at 'token' and None, or take a 'vit'."
      )
    return self._token('cls', self._token('dist', tokens))

  def _read(self, tokens: Array) -> Output:
    """(B, N, D) -> logits, the mean of both tokens (B, D), and the heads."""
    pooled = tokens[:, :2].mean(axis=1)
    if self.num_classes is None:
      return Output(None, pooled)
    heads = (
      self._head(tokens[:, 0]),
      self._head(tokens[:, 1], name='head_dist'),
    )
    return Output((heads[0] + heads[1]) / 2, pooled, heads=heads)
