"""Augmentation on the device, inside the training step.

An augmentation maps (rng, image) to image, (b, h, w, c), draws anew for each
example, and takes its options as keywords. Nearly all work on bytes; those of
`NORMALIZED` take the normalised image, and come last. A new one is a function
and a line in one of the two tables; configs then name it, `{'name': 'flip'}`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray, UInt8

from vit_jax.lookup import pick
from vit_jax.ops import autoaugment, color, erasing, randaugment
from vit_jax.ops.distort import chance


def flip(
  rng: PRNGKeyArray, image: Num[Array, 'b h w c'], *, probability: float = 0.5
) -> Num[Array, 'b h w c']:
  """Mirrors each image, left to right, with a probability."""
  mirrored = chance(rng, probability, len(image))
  return jnp.where(mirrored[:, None, None, None], image[:, :, ::-1], image)


def random_crop(
  rng: PRNGKeyArray,
  image: Num[Array, 'b h w c'],
  *,
  pad: int = 4,
  pad_mode: str = 'constant',
) -> Num[Array, 'b h w c']:
  """Shifts each image by up to `pad` pixels, all places being equally likely.

  What `random_crop` of the host's transforms does where its size is that of the
  image.

  Args:
    rng: draws the places.
    image: (b, h, w, c).
    pad: widen the image by so many pixels on each side first; 4 is customary
      for CIFAR.
    pad_mode: of `jnp.pad`: 'constant' is black; DeiT III has 'reflect'.
  """
  sides = ((0, 0), (pad, pad), (pad, pad), (0, 0))
  padded = jnp.pad(image, sides, mode=pad_mode)
  places = jax.random.randint(rng, (len(image), 2), 0, 2 * pad + 1)
  return jax.vmap(
    lambda x, place: jax.lax.dynamic_slice(x, (*place, 0), image.shape[1:])
  )(padded, places)


AUGMENTS: dict[str, Callable[..., Array]] = {
  'autoaugment': autoaugment.autoaugment,
  'color_jitter': color.color_jitter,
  'flip': flip,
  'gaussian_blur': color.gaussian_blur,
  'grayscale': color.grayscale,
  'randaugment': randaugment.randaugment,
  'randaugment_timm': randaugment.randaugment_timm,
  'random_crop': random_crop,
  'solarize': color.solarize,
  'three_augment': color.three_augment,
  'trivial_augment': autoaugment.trivial_augment,
}
NORMALIZED: dict[str, Callable[..., Array]] = {
  'random_erasing': erasing.random_erasing,
}


def pipeline(
  augments: Sequence[Mapping[str, Any]],
  *,
  mean: float | Sequence[float] = 0.5,
  std: float | Sequence[float] = 0.5,
) -> Callable[[PRNGKeyArray, UInt8[Array, 'b h w c']], Float[Array, 'b h w c']]:
  """Chains augmentations and `normalize` to one function (rng, image) -> image.

  Args:
    augments: `{'name': ..., option: value}`, applied in order; may be empty.
    mean: see `normalize`.
    std: likewise.

  Raises:
    ValueError: if a name or an option is unknown, or one that takes bytes comes
      after one that takes the normalised image. An option out of range is found
      when the function is traced.
  """
  table = AUGMENTS | NORMALIZED
  steps = [pick(table, spec=spec, kind='augmentation') for spec in augments]
  late = [spec['name'] in NORMALIZED for spec in augments]
  if late != sorted(late):
    names = [spec['name'] for spec in augments]
    raise ValueError(
      f'The augmentations {names} are out of order: {sorted(NORMALIZED)} take '
      'normalised images, and come last.'
    )
  steps.insert(
    late.count(False), lambda rng, x: normalize(x, mean=mean, std=std)
  )

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
  mean, std = map(_by_channel, (mean, std))
  return (image.astype(jnp.float32) / 255 - mean) / std


def renormalize(
  image: Float[Array, 'b h w c'],
  *,
  old: Mapping[str, float | Sequence[float]],
  new: Mapping[str, float | Sequence[float]],
) -> Float[Array, 'b h w c']:
  """Returns what another normalisation would have made of the same pixels.

  Args:
    image: (b, h, w, c), of any floating type, which is kept.
    old: the `mean` and `std` that it was normalised with, see `normalize`.
    new: those that it is to be normalised with.
  """
  mean, std = (
    [_by_channel(which[key]) for which in (old, new)] for key in ('mean', 'std')
  )
  pixels = image.astype(jnp.float32) * std[0] + mean[0]
  return ((pixels - mean[1]) / std[1]).astype(image.dtype)


def _by_channel(x: float | Sequence[float]) -> Float[Array, '1 1 1 c']:
  return jnp.asarray(x, jnp.float32).reshape(1, 1, 1, -1)
