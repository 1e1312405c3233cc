"""Encoded bytes to RGB: the one place that knows the oddities of files."""

import io

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

# The formats that users have. Pillow knows more, some of which start external
# programs: not for files of unknown origin.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF')
# Below the size of which Pillow itself begins to warn.
MAX_PIXELS = 8192 * 8192


class DecodeError(ValueError):
  """The bytes of an image cannot be turned into pixels."""


def decode(
  data: bytes, *, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, 'h w 3']:
  """Decodes an image file to upright 8-bit RGB.

  Grey, palette, CMYK and 16-bit images become RGB, an EXIF orientation is
  applied, an alpha channel is dropped, an animation gives its first frame.

  Args:
    data: the file's bytes: JPEG, PNG, WebP, BMP or GIF.
    max_pixels: refuse images that claim more pixels than this, before any
      memory is spent on them (a small file can claim gigabytes).

  Raises:
    DecodeError: empty, unknown, truncated, corrupted or too large.
  """
  if not data:
    raise DecodeError('The file is empty.')
  header = _read_header(data)
  if header.width * header.height > max_pixels:
    raise DecodeError(
      f'The image claims {header.width} x {header.height} pixels, the limit '
      f'is {max_pixels}; shrink the file, or remove it if it is not yours.'
    )
  try:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
  except cv2.error:
    image = None
  return _decode_slowly(header) if image is None else image


def _read_header(data: bytes) -> PIL.Image.Image:
  """Opens without decoding: format, size, and nothing else."""
  try:
    return PIL.Image.open(io.BytesIO(data), formats=FORMATS)
  except PIL.UnidentifiedImageError:
    raise DecodeError(
      f'Not an image in {", ".join(FORMATS)}: it begins with {data[:8]!r}.'
    ) from None
  except Exception as error:
    # A broken header makes Pillow raise whatever it stumbles upon.
    raise DecodeError(f'Broken header: {error}') from error


def _decode_slowly(header: PIL.Image.Image) -> np.ndarray:
  """Pillow reads some files that OpenCV refuses; if not, it says why."""
  try:
    return np.array(PIL.ImageOps.exif_transpose(header).convert('RGB'))
  except Exception as error:
    # As in the header: the kinds of exception are as many as the plugins.
    raise DecodeError(f'Broken or truncated image: {error}') from error
