"""Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of a batch.

Both are one operation: each image is averaged with a partner, under weights
(h, w) that are the same for the whole batch. Mixup's weights are constant,
CutMix's are 0 in a box and 1 outside it, and the labels are mixed by the mean
of the weights: for CutMix, by the area that was pasted.

The partner is the previous example of the batch, the last one for the first.
Labels that are numbers of classes cannot be averaged: a ValueError.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray

from vit_jax.types import Batch

Mixed = tuple[Float[Array, 'b h w c'], Float[Array, 'b k']]


class Examples(NamedTuple):
  """A batch as a loss takes it.

  Attributes:
    image: (b, h, w, c), mixed.
    labels: (b, k), soft.
    mask: (b,), 0 for examples that do not count.
  """

  image: Float[Array, 'b h w c']
  labels: Float[Array, 'b k']
  mask: Float[Array, ' b']


def mix(
  rng: PRNGKeyArray,
  batch: Batch,
  *,
  num_classes: int,
  mixup_alpha: float = 0.0,
  cutmix_alpha: float = 0.0,
) -> Examples:
  """Makes the labels of a batch soft, and mixes its examples.

  With both alphas above 0, one of `mixup` and `cutmix` is drawn, evenly; with
  none, nothing is mixed.

  Args:
    rng: drawn from for the whole batch.
    batch: see `types.Batch`; the image is normalised.
    num_classes: k, of labels that are numbers of classes.
    mixup_alpha: of `mixup`; 0 for none.
    cutmix_alpha: of `cutmix`; 0 for none.
  """
  image, labels = jnp.asarray(batch['image']), jnp.asarray(batch['label'])
  if labels.ndim == 1:
    labels = jax.nn.one_hot(labels, num_classes)  # (B, K)
  labels = labels.astype(jnp.float32)
  mask = jnp.asarray(batch['mask'], jnp.float32)
  if not mixup_alpha and not cutmix_alpha:
    return Examples(image, labels, mask)
  # Nothing of an example that does not count may leak into one that does.
  mask = mask * partner(mask)
  if not cutmix_alpha:
    image, labels = mixup(rng, image, labels, alpha=mixup_alpha)
  elif not mixup_alpha:
    image, labels = cutmix(rng, image, labels, alpha=cutmix_alpha)
  else:
    alphas = dict(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha)
    image, labels = mixup_or_cutmix(rng, image, labels, **alphas)
  return Examples(image, labels, mask)


def mixup(
  rng: PRNGKeyArray,
  image: Float[Array, 'b h w c'],
  labels: Num[Array, 'b *k'],
  *,
  alpha: float,
) -> Mixed:
  """Averages each example with its partner.

  The weight is a ~ Beta(alpha, alpha), or 1 - a if that is larger, so that an
  example keeps at least half of itself (the form of the AugReg recipes).

  Args:
    rng: one weight is drawn for the whole batch.
    image: (b, h, w, c), normalised.
    labels: (b, k), one-hot or soft.
    alpha: above 0.
  """
  return _mix(image, labels, _mixup_weights(rng, image.shape[1:3], alpha))


def cutmix(
  rng: PRNGKeyArray,
  image: Float[Array, 'b h w c'],
  labels: Num[Array, 'b *k'],
  *,
  alpha: float,
) -> Mixed:
  """Pastes a box of the partner into each image, the same box for all.

  The box has sides sqrt(1 - a) of the image's, a ~ Beta(alpha, alpha), around
  a uniform centre, and is cut off at the border (the paper's appendix A).

  Args:
    rng: one box is drawn for the whole batch.
    image: (b, h, w, c), normalised.
    labels: (b, k), one-hot or soft.
    alpha: above 0.
  """
  return _mix(image, labels, _cutmix_weights(rng, image.shape[1:3], alpha))


def mixup_or_cutmix(
  rng: PRNGKeyArray,
  image: Float[Array, 'b h w c'],
  labels: Num[Array, 'b *k'],
  *,
  mixup_alpha: float,
  cutmix_alpha: float,
  cutmix_probability: float = 0.5,
) -> Mixed:
  """Draws one of the two for the whole batch, as the DeiT recipe does."""
  switch_rng, rng = jax.random.split(rng)
  weights = jnp.where(
    jax.random.bernoulli(switch_rng, cutmix_probability),
    _cutmix_weights(rng, image.shape[1:3], cutmix_alpha),
    _mixup_weights(rng, image.shape[1:3], mixup_alpha),
  )
  return _mix(image, labels, weights)


def partner(x: Float[Array, 'b *rest']) -> Float[Array, 'b *rest']:
  """Returns, for each example of the batch, the one it is mixed with."""
  return jnp.roll(x, 1, axis=0)


def _mixup_weights(
  rng: PRNGKeyArray, size: tuple[int, int], alpha: float
) -> Float[Array, 'h w']:
  weight = jax.random.beta(rng, alpha, alpha)
  return jnp.full(size, jnp.maximum(weight, 1 - weight))


def _cutmix_weights(
  rng: PRNGKeyArray, size: tuple[int, int], alpha: float
) -> Float[Array, 'h w']:
  beta_rng, *centre_rngs = jax.random.split(rng, 3)
  side = jnp.sqrt(1 - jax.random.beta(beta_rng, alpha, alpha))
  rows, columns = (
    _inside(jax.random.randint(centre_rng, (), 0, length), side, length)
    for centre_rng, length in zip(centre_rngs, size, strict=True)
  )
  return 1.0 - (rows[:, None] & columns[None, :])  # (H, W)


def _inside(centre: Array, side: Array, length: int) -> Array:
  """Marks the pixels of a line that lie in the box."""
  half = jnp.floor(side * length).astype(jnp.int32) // 2
  pixel = jnp.arange(length)
  return (pixel >= centre - half) & (pixel < centre + half)


def _mix(
  image: Float[Array, 'b h w c'],
  labels: Num[Array, 'b *k'],
  weights: Float[Array, 'h w'],
) -> Mixed:
  if labels.ndim != 2 or not jnp.issubdtype(labels.dtype, jnp.floating):
    raise ValueError(
      f'Labels {labels.shape} of {labels.dtype} cannot be averaged; make them '
      'float (b, k) by jax.nn.one_hot.'
    )
  weight = weights.mean()
  weights = weights.astype(image.dtype)[None, :, :, None]  # (1, H, W, 1)
  image = weights * image + (1 - weights) * partner(image)
  labels = labels.astype(jnp.float32)
  return image, weight * labels + (1 - weight) * partner(labels)
