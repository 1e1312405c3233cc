"""Pictures as `data:` addresses, which stand in a page by themselves."""

import base64
import io

import cv2
import matplotlib
import matplotlib.figure
import numpy as np
from jaxtyping import UInt8

# Pixels of the longer side of a picture that is so small that they are shown as
# they are, and kept as they are.
SMALL = 64


def svg(figure: matplotlib.figure.Figure, *, alike: str) -> str:
  """A figure; the same one under the same name is the same text."""
  file = io.BytesIO()
  with matplotlib.rc_context({'svg.hashsalt': alike}):
    figure.savefig(file, format='svg', metadata={'Date': None})
  return _address(file.getvalue(), kind='svg+xml')


def png(figure: matplotlib.figure.Figure, *, dpi: int) -> str:
  """A figure, in pixels."""
  file = io.BytesIO()
  figure.savefig(file, format='png', dpi=dpi)
  return _address(file.getvalue(), kind='png')


def picture(image: UInt8[np.ndarray, 'h w c'], *, longer: int) -> str:
  """An image in RGB or grey.

  Args:
    image: the pixels.
    longer: side, at most, in pixels; a larger image is shrunk.
  """
  side = max(image.shape[:2])
  if side > longer:
    height, width = (max(1, x * longer // side) for x in image.shape[:2])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
  kind = 'png' if side <= SMALL else 'jpeg'
  # OpenCV's order of colours is blue, green, red.
  pixels = image[..., ::-1] if image.ndim == 3 else image
  _, encoded = cv2.imencode(f'.{kind}', pixels)
  return _address(encoded.tobytes(), kind=kind)


def _address(content: bytes, *, kind: str) -> str:
  return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
