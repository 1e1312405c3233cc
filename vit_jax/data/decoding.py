"""Encoded bytes to RGB: the one place that knows the oddities of files.

`decode` gives all pixels. `read` gives the same image, but a JPEG waits until
it is known which part of it is wanted, and how large: see `Jpeg`.
"""

import dataclasses
import io

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import simplejpeg
from jaxtyping import UInt8

# The formats that users have. Pillow knows more, some of which start external
# programs: not for files of unknown origin.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF')
# Below the size of which Pillow itself begins to warn.
MAX_PIXELS = 8192 * 8192

# ITU-T T.81, table B.1: frames that are coded by Huffman, sequential or
# progressive, of 8 or 12 bits; and what ends the header of a file.
FRAMES = (0xC0, 0xC1, 0xC2)
START_OF_SCAN = 0xDA
APP1 = 0xE1
END_OF_IMAGE = b'\xff\xd9'
ORIENTATION = 0x0112  # the EXIF tag
# A row of pixels takes colours from the next row of blocks, at most so far.
MARGIN = 2


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
  _check_size(header.height, header.width, max_pixels)
  try:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
  except cv2.error:
    image = None
  return _decode_slowly(header) if image is None else image


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Jpeg:
  """A JPEG, or a part of one, that is not decoded yet.

  Slicing, `image[top:bottom, left:right]`, gives a part; `np.asarray` its
  pixels, those of `decode`. `pixels` may give them smaller.

  Attributes:
    data: the file's bytes.
    frame: where in them the height and width of the image stand.
    size: (height, width) in the file, before it is turned upright.
    orientation: of EXIF, 1 to 8.
    scaled: whether `pixels` may decode at a lower resolution.
    box: (top, left, height, width) of the part, upright.
  """

  data: bytes = dataclasses.field(repr=False)
  frame: int
  size: tuple[int, int]
  orientation: int
  scaled: bool
  box: tuple[int, int, int, int]

  @property
  def shape(self) -> tuple[int, int, int]:
    """(h, w, 3) of the part."""
    return *self.box[2:], 3

  def __getitem__(self, part: tuple[slice, slice]) -> 'Jpeg':
    top, left, height, width = self.box
    rows, columns = range(height)[part[0]], range(width)[part[1]]
    if rows.step != 1 or columns.step != 1:
      raise ValueError('A JPEG that is not decoded has no steps: np.asarray.')
    box = top + rows.start, left + columns.start, len(rows), len(columns)
    return dataclasses.replace(self, box=box)

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # always new
    return np.asarray(self.pixels(self.shape[:2]), dtype)

  def pixels(self, at_least: tuple[int, int]) -> UInt8[np.ndarray, 'h w 3']:
    """Decodes the part, if `scaled` to 1/2, 1/4 or 1/8 of its size.

    The inverse DCT then yields fewer pixels, each about the mean of those it
    stands for, and the part begins at a multiple of 2, 4 or 8 pixels.

    Args:
      at_least: the (height, width) below which it may not fall by that.

    Raises:
      DecodeError: corrupted.
    """
    top, left, height, width = self.box
    fits = min(height // at_least[0], width // at_least[1])
    factor = next((f for f in (8, 4, 2) if self.scaled and f <= fits), 1)
    rows, columns = self.size
    data = self.data
    if self.orientation == 1 and top + height + MARGIN < rows:
      # A decoder stops after the rows that the header claims.
      rows = top + height + MARGIN
      claim = rows.to_bytes(2, 'big')
      data = b''.join((data[: self.frame], claim, data[self.frame + 2 :]))
    try:
      image = simplejpeg.decode_jpeg(
        data,
        min_height=-(-rows // factor),
        min_width=-(-columns // factor),
        min_factor=factor,
        strict=False,
      )
    except ValueError as error:
      raise DecodeError(f'Broken or truncated image: {error}') from error
    image = _upright(image, self.orientation)
    top, left, height, width = (x // factor for x in self.box)
    return image[top : top + height, left : left + width]


def read(
  data: bytes, *, scaled: bool = False, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, 'h w 3'] | Jpeg:
  """Opens an image file, decoding it only if it is not an ordinary JPEG.

  Args:
    data: the file's bytes.
    scaled: see `Jpeg`.
    max_pixels: see `decode`.

  Raises:
    DecodeError: see `decode`; a JPEG may be found corrupted later.
  """
  found = _frame(data)
  if found is None:
    return decode(data, max_pixels=max_pixels)
  frame, size, has_exif = found
  _check_size(*size, max_pixels)
  orientation = _orientation(data) if has_exif else 1
  height, width = size if orientation < 5 else size[::-1]
  return Jpeg(
    data=data,
    frame=frame,
    size=size,
    orientation=orientation,
    scaled=scaled,
    box=(0, 0, height, width),
  )


def _frame(data: bytes) -> tuple[int, tuple[int, int], bool] | None:
  """Where the size stands, the size, and whether there are EXIF data.

  None for all that is better left to `decode`: other formats, CMYK, files that
  end early.
  """
  if not (data.startswith(b'\xff\xd8\xff') and data.endswith(END_OF_IMAGE)):
    return None
  position, has_exif = 2, False
  # A segment is 0xff, its kind, and its length with these two bytes.
  while position + 9 < len(data) and data[position] == 0xFF:
    kind = data[position + 1]
    if kind in FRAMES:
      precision = data[position + 4]
      height = int.from_bytes(data[position + 5 : position + 7], 'big')
      width = int.from_bytes(data[position + 7 : position + 9], 'big')
      components = data[position + 9]
      if precision != 8 or components not in (1, 3) or not height * width:
        return None
      return position + 5, (height, width), has_exif
    if kind == START_OF_SCAN:
      return None
    has_exif |= kind == APP1 and data[position + 4 : position + 8] == b'Exif'
    position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
  return None


def _orientation(data: bytes) -> int:
  """What EXIF says of how the camera was held; 1, upright, if that is odd."""
  try:
    exif = _read_header(data).getexif()
    found = exif[ORIENTATION] if ORIENTATION in exif else 1
  except Exception:
    # Of a broken header, as OpenCV does, only the pixels count.
    found = 1
  return found if found in range(1, 9) else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
  """Undoes how a camera was held: 1 to 4, and 5 to 8 the same transposed."""
  if orientation > 4:
    image = image.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    image = image[::-1]
  if orientation in (2, 3, 6, 7):
    image = image[:, ::-1]
  return image


def _check_size(height: int, width: int, max_pixels: int) -> None:
  if width * height > max_pixels:
    raise DecodeError(
      f'The image claims {width} x {height} pixels, the limit is {max_pixels}; '
      'shrink the file, or remove it if it is not yours.'
    )


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
