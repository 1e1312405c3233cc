"""Augmentation on the device, inside the training step.

An augmentation maps (rng, image) to image, uint8 (b, h, w, c), draws anew for
each example, and takes its options as keywords. A new one is a function here
and a line in `AUGMENTS`; configs then name it as `{'name': 'flip'}`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray, UInt8

from vit_jax.lookup import pick


def flip(
  rng: PRNGKeyArray, image: Num[Array, 'b h w c'], *, probability: float = 0.5
) -> Num[Array, 'b h w c']:
  """Mirrors each image, left to right, with a probability."""
  mirrored = jax.random.bernoulli(rng, probability, image.shape[:1])
  return jnp.where(mirrored[:, None, None, None], image[:, :, ::-1], image)


AUGMENTS: dict[str, Callable[..., Array]] = {
  'flip': flip,
}


def pipeline(
  augments: Sequence[Mapping[str, Any]],
) -> Callable[[PRNGKeyArray, UInt8[Array, 'b h w c']], UInt8[Array, 'b h w c']]:
  """Chains augmentations into one function (rng, image) -> image.

  Args:
    augments: `{'name': ..., option: value}`, applied in order; may be empty.

  Raises:
    ValueError: if a name or an option is unknown.
  """
  steps = [pick(AUGMENTS, spec=spec, kind='augmentation') for spec in augments]

  def apply(rng, image):
    for index, step in enumerate(steps):
      image = step(jax.random.fold_in(rng, index), image)
    return image

  return apply


def normalize(
  image: UInt8[Array, 'b h w c'],
  *,
  mean: float | Sequence[float] = 0.5,
  std: float | Sequence[float] = 0.5,
) -> Float[Array, 'b h w c']:
  """Returns (image / 255 - mean) / std in float32.

  Args:
    image: (b, h, w, c), 0 to 255.
    mean: of images in [0, 1], for all channels or for each.
    std: likewise; with 0.5 for both the result lies in [-1, 1].
  """
  mean, std = (
    jnp.asarray(x, jnp.float32).reshape(1, 1, 1, -1) for x in (mean, std)
  )
  return (image.astype(jnp.float32) / 255 - mean) / std
