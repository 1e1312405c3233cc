"""Crops and resizes on the host: image uint8 (h, w, c) -> uint8 (h, w, c).

The image may be a `Jpeg`, of which only the part that a crop leaves is decoded,
and at a lower resolution if it may be.

Everything that can wait for a batch (flips, colours, normalisation) happens on
the device. Each transform takes `image` and a numpy `rng`, then keywords that
come from the config; `size` is an int, or (height, width).

All resizing transforms take two options:
  method: 'bilinear'; 'bicubic'; or 'area', the mean of the covered pixels.
  antialias: False samples at pixel centres and skips pixels when shrinking
    (`tf.image.resize`; torch's `interpolate`, whose bicubic kernel, a = -0.75,
    this is). True widens the kernel when shrinking, as Pillow does, and with it
    timm and torchvision. 'area' covers every pixel in either case.
Choose what the weights were trained with: the two differ by a few tenths of a
per cent in accuracy.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import PIL.Image
from jaxtyping import UInt8

from vit_jax.data.decoding import Jpeg

CV2_METHODS = {
  'bilinear': cv2.INTER_LINEAR,
  'bicubic': cv2.INTER_CUBIC,
  'area': cv2.INTER_AREA,
}
PIL_METHODS = {
  'bilinear': PIL.Image.Resampling.BILINEAR,
  'bicubic': PIL.Image.Resampling.BICUBIC,
}

Image = UInt8[np.ndarray, 'h w c'] | Jpeg
Crop = UInt8[np.ndarray, 'new_h new_w c'] | Jpeg
Size = int | Sequence[int]
Range = Sequence[float]


def resize(
  image: Image,
  rng: np.random.Generator,
  *,
  size: Size,
  method: str = 'bilinear',
  antialias: bool = False,
) -> UInt8[np.ndarray, 'new_h new_w c']:
  """Resizes to exactly `size`, whatever the aspect ratio was."""
  del rng
  return _resize(image, _pair(size), method, antialias)


def resize_small(
  image: Image,
  rng: np.random.Generator,
  *,
  size: int,
  method: str = 'bilinear',
  antialias: bool = False,
) -> UInt8[np.ndarray, 'new_h new_w c']:
  """Resizes so that the shorter side is `size`; keeps the aspect ratio."""
  del rng
  height, width = image.shape[:2]
  scale = size / min(height, width)
  new_size = round(height * scale), round(width * scale)
  return _resize(image, new_size, method, antialias)


def central_crop(image: Image, rng: np.random.Generator, *, size: Size) -> Crop:
  """Cuts `size` out of the middle.

  Raises:
    ValueError: the image is smaller than the crop.
  """
  del rng
  height, width = _pair(size)
  _check_fits(image, height, width)
  top = (image.shape[0] - height) // 2
  left = (image.shape[1] - width) // 2
  return image[top : top + height, left : left + width]


def random_crop(
  image: Image,
  rng: np.random.Generator,
  *,
  size: Size,
  pad: int = 0,
  pad_mode: str = 'constant',
) -> Crop:
  """Cuts `size` out of a random place, all places being equally likely.

  Args:
    image: what to crop.
    rng: draws the place.
    size: of the crop.
    pad: widen the image by so many pixels on each side first; 4 is customary
      for CIFAR.
    pad_mode: of `numpy.pad`: 'constant' is black; DeiT III has 'reflect'.

  Raises:
    ValueError: the padded image is smaller than the crop.
  """
  if pad:
    image = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=pad_mode)
  height, width = _pair(size)
  _check_fits(image, height, width)
  top = int(rng.integers(image.shape[0] - height + 1))
  left = int(rng.integers(image.shape[1] - width + 1))
  return image[top : top + height, left : left + width]


def inception_crop(
  image: Image,
  rng: np.random.Generator,
  *,
  size: Size,
  area: Range = (0.05, 1.0),
  aspect: Range = (3 / 4, 4 / 3),
  attempts: int = 10,
  method: str = 'bilinear',
  antialias: bool = False,
) -> UInt8[np.ndarray, 'new_h new_w c']:
  """Resizes a random part of the image to `size`, as Google's codebases do.

  The scheme of arXiv:1409.4842, section 6, as TensorFlow draws it (and ViT,
  AugReg, Mixer with it): the aspect ratio (width / height) uniformly, then the
  height uniformly among those that keep the area in its range. Small crops
  are more frequent than in `random_resized_crop`: their mean area is 0.38 of a
  square image, against 0.46 (both for areas from 5 to 100 %).

  Args:
    image: what to crop.
    rng: draws the part.
    size: of the result.
    area: smallest and largest part of the image's area.
    aspect: smallest and largest ratio of width to height.
    attempts: after so many ratios for which no crop is large enough (very long
      images only) the largest central crop of admissible aspect is taken.
    method: see the module.
    antialias: see the module.
  """
  height, width = image.shape[:2]
  for _ in range(attempts):
    ratio = rng.uniform(aspect[0], aspect[1])
    smallest, largest = (
      round(math.sqrt(part * height * width / ratio)) for part in area
    )
    largest = min(largest, height, math.floor(width / ratio))
    if smallest <= largest:
      crop_height = int(rng.integers(smallest, largest + 1))
      crop_size = max(crop_height, 1), max(round(crop_height * ratio), 1)
      crop = random_crop(image, rng, size=crop_size)
      break
  else:
    crop = _central_crop_of_aspect(image, aspect)
  return _resize(crop, _pair(size), method, antialias)


def random_resized_crop(
  image: Image,
  rng: np.random.Generator,
  *,
  size: Size,
  area: Range = (0.08, 1.0),
  aspect: Range = (3 / 4, 4 / 3),
  attempts: int = 10,
  method: str = 'bilinear',
  antialias: bool = True,
) -> UInt8[np.ndarray, 'new_h new_w c']:
  """Resizes a random part of the image to `size`, as torchvision and timm do.

  The scheme of arXiv:1409.4842, section 6, as DeiT, MAE and DINO draw it: the
  area uniformly, the logarithm of the aspect ratio uniformly, until the crop
  fits. Arguments as in `inception_crop`, other defaults.
  """
  height, width = image.shape[:2]
  for _ in range(attempts):
    crop_area = rng.uniform(area[0], area[1]) * height * width
    ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
    crop_height = round(math.sqrt(crop_area / ratio))
    crop_width = round(math.sqrt(crop_area * ratio))
    if 0 < crop_height <= height and 0 < crop_width <= width:
      crop = random_crop(image, rng, size=(crop_height, crop_width))
      break
  else:
    crop = _central_crop_of_aspect(image, aspect)
  return _resize(crop, _pair(size), method, antialias)


def _central_crop_of_aspect(image: Image, aspect: Range) -> Crop:
  """The largest central crop with width / height in the range `aspect`."""
  height, width = image.shape[:2]
  crop_height = min(height, max(round(width / aspect[0]), 1))
  crop_width = min(width, max(round(height * aspect[1]), 1))
  top, left = (height - crop_height) // 2, (width - crop_width) // 2
  return image[top : top + crop_height, left : left + crop_width]


def _resize(
  image: Image, size: tuple[int, int], method: str, antialias: bool
) -> np.ndarray:
  if method not in CV2_METHODS:
    raise ValueError(f'{method=} is not one of {", ".join(CV2_METHODS)}.')
  if isinstance(image, Jpeg):
    image = image.pixels(at_least=size)
  height, width = size
  channels = image.shape[2]
  if image.shape[:2] == size:
    return image
  if method == 'bilinear' and image.shape[0] <= height:
    # Nothing to smooth where both sides grow, and OpenCV is faster.
    antialias = antialias and image.shape[1] > width
  if antialias and method in PIL_METHODS:
    # Pillow has no trailing channel of one.
    plane = image[:, :, 0] if channels == 1 else image
    resized = np.asarray(
      PIL.Image.fromarray(plane).resize((width, height), PIL_METHODS[method])
    )
  else:
    resized = cv2.resize(
      image, (width, height), interpolation=CV2_METHODS[method]
    )
  return resized.reshape(height, width, channels)


def _pair(size: Size) -> tuple[int, int]:
  height, width = (size, size) if isinstance(size, int) else size
  if height < 1 or width < 1:
    raise ValueError(f'{size=} must be positive, in pixels.')
  return height, width


def _check_fits(image: Image, height: int, width: int) -> None:
  if image.shape[0] < height or image.shape[1] < width:
    raise ValueError(
      f'A crop of {height} x {width} does not fit into an image of '
      f'{image.shape[0]} x {image.shape[1]}: put resize_small before it.'
    )
