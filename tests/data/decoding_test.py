import io

import numpy as np
import PIL.Image
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_jax.data.decoding import DecodeError, Jpeg, decode, read

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


@pytest.fixture(scope='module')
def photograph():
  return sklearn.datasets.load_sample_images().images[0]  # (427, 640, 3)


def exif(orientation):
  found = PIL.Image.Exif()
  found[0x0112] = orientation
  return found


@settings(max_examples=30, deadline=None)
@given(
  size=st.tuples(st.integers(9, 120), st.integers(9, 120)),
  corners=st.tuples(*[st.floats(0, 1)] * 4),
  subsampling=st.integers(0, 2),
  progressive=st.booleans(),
  orientation=st.integers(0, 9),
  grey=st.booleans(),
)
def test_a_part_of_a_jpeg_is_that_part_of_all_its_pixels(
  photograph, size, corners, subsampling, progressive, orientation, grey
):
  image = PIL.Image.fromarray(photograph[: size[0], : size[1]])
  data = encode(
    image.convert('L') if grey else image,
    'JPEG',
    subsampling=subsampling,
    progressive=progressive,
    exif=exif(orientation),
  )
  whole, lazy = decode(data), read(data)
  assert isinstance(lazy, Jpeg) and lazy.shape == whole.shape
  height, width = whole.shape[:2]
  top, bottom = sorted(round(x * height) for x in corners[:2])
  left, right = sorted(round(x * width) for x in corners[2:])
  part = slice(top, bottom + 1), slice(left, right + 1)
  assert lazy[part].shape == whole[part].shape
  if whole[part].size:
    np.testing.assert_array_equal(np.asarray(lazy[part]), whole[part])
  np.testing.assert_array_equal(np.asarray(lazy), whole)


@pytest.mark.parametrize('progressive', [False, True])
def test_the_last_row_of_a_part_is_right_wherever_it_ends(
  photograph, progressive
):
  image = PIL.Image.fromarray(photograph[200:264, :48])
  data = encode(image, 'JPEG', subsampling=2, progressive=progressive)
  whole, lazy = decode(data), read(data)
  for bottom in range(1, 65):
    np.testing.assert_array_equal(np.asarray(lazy[:bottom, :]), whole[:bottom])


def test_rows_below_a_part_are_not_decoded(photograph):
  data = encode(PIL.Image.fromarray(photograph), 'JPEG')
  # The lower half of the file becomes noise, of which nothing is seen above.
  noise = np.random.default_rng(0).integers(1, 250, len(data) // 2, np.uint8)
  broken = data[: len(data) // 2] + noise.tobytes() + data[-2:]
  part = slice(0, 100), slice(50, 150)
  assert np.any(decode(broken) != decode(data))
  np.testing.assert_array_equal(
    np.asarray(read(broken)[part]), decode(data)[part]
  )


@pytest.mark.parametrize('orientation', [1, 3, 6])
@pytest.mark.parametrize('factor', [1, 2, 4, 8])
def test_a_scaled_jpeg_is_as_large_as_asked_and_about_its_mean(
  photograph, factor, orientation
):
  # Of whole blocks, or turned round it would begin with a part of one.
  image = PIL.Image.fromarray(photograph[:424])
  data = encode(image, 'JPEG', exif=exif(orientation))
  part = slice(40, 360), slice(64, 384)
  lazy = read(data, scaled=True)[part]
  small = lazy.pixels((320 // factor - 1, 320 // factor - 1))
  assert small.shape == (320 // factor, 320 // factor, 3)
  mean = decode(data)[part].reshape(
    320 // factor, factor, 320 // factor, factor, 3
  )
  error = np.abs(small - mean.mean((1, 3)))
  assert error.mean() < 2.5
  # Without leave to do so, nothing is scaled.
  assert read(data)[part].pixels((10, 10)).shape == (320, 320, 3)


@pytest.mark.parametrize(
  ('file_format', 'mode'), [('PNG', 'RGB'), ('JPEG', 'CMYK'), ('GIF', 'P')]
)
def test_what_is_no_ordinary_jpeg_is_decoded_at_once(file_format, mode):
  data = encode(PIL.Image.fromarray(picture()).convert(mode), file_format)
  np.testing.assert_array_equal(read(data), decode(data))
  # Cameras append things to a JPEG.
  jpeg = encode(PIL.Image.fromarray(picture()), 'JPEG') + b'more'
  np.testing.assert_array_equal(read(jpeg), decode(jpeg))


def test_an_undecoded_image_is_refused_for_the_same_reasons():
  with pytest.raises(DecodeError, match='empty'):
    read(b'')
  data = encode(PIL.Image.fromarray(picture()), 'JPEG')
  with pytest.raises(DecodeError, match='the limit is 100'):
    read(data, max_pixels=100)
  with pytest.raises(DecodeError):
    read(data[: len(data) // 2])
  # Its header is right, and nothing else.
  start = data.index(b'\xff\xda')
  with pytest.raises(DecodeError, match='Broken'):
    np.asarray(read(data[: start - 20] + b'\xff\xd9'))


def test_a_jpeg_has_no_steps():
  lazy = read(encode(PIL.Image.fromarray(picture()), 'JPEG'))
  with pytest.raises(ValueError, match='no steps'):
    lazy[::2, :]
