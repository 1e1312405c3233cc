import io

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.decoding import DecodeError, decode

HEIGHT, WIDTH = 12, 16


def picture():
  """A smooth picture, so that lossy formats stay close to it."""
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  return np.stack([x * 12, y * 16, 255 - x * 8], axis=-1).astype(np.uint8)


def encode(image, file_format, **options):
  file = io.BytesIO()
  image.save(file, file_format, **options)
  return file.getvalue()


def distance(a, b):
  return np.abs(a.astype(int) - b.astype(int)).max()


@pytest.mark.parametrize(
  'file_format,mode,tolerance',
  [
    ('PNG', 'RGB', 0),
    ('BMP', 'RGB', 0),
    ('PNG', 'RGBA', 0),
    ('JPEG', 'RGB', 24),
    ('JPEG', 'CMYK', 24),
    ('WEBP', 'RGB', 24),
    ('PNG', 'P', 48),
    ('GIF', 'P', 48),
  ],
)
def test_every_mode_of_colour_becomes_rgb(file_format, mode, tolerance):
  data = encode(PIL.Image.fromarray(picture()).convert(mode), file_format)
  image = decode(data)
  assert image.dtype == np.uint8 and image.shape == (HEIGHT, WIDTH, 3)
  assert distance(image, picture()) <= tolerance


@pytest.mark.parametrize('file_format', ['PNG', 'JPEG', 'BMP'])
def test_grey_is_repeated_in_three_channels(file_format):
  grey = PIL.Image.fromarray(picture()).convert('L')
  image = decode(encode(grey, file_format))
  assert (image == image[..., :1]).all()
  assert distance(image[..., 0], np.asarray(grey)) <= 4


def test_sixteen_bits_keep_their_highest_eight():
  values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
  image = decode(encode(PIL.Image.fromarray(values * 300), 'PNG'))
  expected = values * 300 / 257
  assert np.abs(image[..., 0] - expected).max() <= 1


def test_black_and_white_stays_black_and_white():
  one_bit = PIL.Image.fromarray(picture()).convert('1')
  image = decode(encode(one_bit, 'PNG'))
  assert (image[..., 0] == np.where(np.asarray(one_bit), 255, 0)).all()


@pytest.mark.parametrize(
  ('file_format', 'mode'),
  [('PNG', 'RGB'), ('JPEG', 'RGB'), ('WEBP', 'RGB'), ('JPEG', 'CMYK')],
)
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied(file_format, mode, orientation):
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  sideways = PIL.Image.fromarray(picture()).convert(mode)
  image = decode(encode(sideways, file_format, exif=exif))
  turn = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda x: x.transpose(1, 0, 2)[::-1],
  }[orientation]
  assert image.shape == turn(picture()).shape
  assert distance(image, turn(picture())) <= 32


@pytest.mark.parametrize('file_format', ['PNG', 'JPEG', 'WEBP', 'BMP', 'GIF'])
def test_a_truncated_file_is_an_error(file_format):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  data = encode(PIL.Image.fromarray(noise), file_format)
  with pytest.raises(DecodeError):
    decode(data[: len(data) // 2])


@pytest.mark.parametrize(
  'data,message',
  [
    (b'', 'empty'),
    (b'<html>404</html>', "begins with b'<html>40'"),
    (b'\xff\xd8\xff\xe0', 'JPEG|header'),
    (b'\x89PNG\r\n\x1a\n' + b'\0' * 40, 'header|Not an image'),
  ],
)
def test_what_is_not_an_image_is_an_error_that_says_so(data, message):
  with pytest.raises(DecodeError, match=message):
    decode(data)


def test_an_image_that_claims_too_many_pixels_is_refused():
  data = encode(PIL.Image.new('1', (9000, 9000)), 'PNG')
  assert len(data) < 20_000
  with pytest.raises(DecodeError, match='9000 x 9000'):
    decode(data)
  with pytest.raises(DecodeError, match='the limit is 100'):
    decode(encode(PIL.Image.new('L', (11, 10)), 'PNG'), max_pixels=100)
