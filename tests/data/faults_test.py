"""Folders as users have them: every fault of a file, on a real one."""

import io
import os

import cv2
import numpy as np
import PIL.Image
import pytest

from vit_jax import data

HEIGHT, WIDTH = 12, 16
TRANSFORM = data.build_transforms([{'name': 'resize', 'size': 4}])


def picture():
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  return np.stack([x * 12, y * 16, 255 - x * 8], axis=-1).astype(np.uint8)


RGB = PIL.Image.fromarray(picture())
FRAMES = {'save_all': True, 'append_images': [PIL.Image.new('RGB', RGB.size)]}


def encoded(image, kind, **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def sideways():
  """Turned by a quarter, and EXIF says so."""
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  turned = RGB.transpose(PIL.Image.Transpose.ROTATE_90)
  return encoded(turned, 'JPEG', exif=exif, quality=95)


def deep():
  bgr = picture()[..., ::-1].astype(np.uint16) * 257
  return cv2.imencode('.png', bgr)[1].tobytes()


JPEG, PNG = encoded(RGB, 'JPEG', quality=95), encoded(RGB, 'PNG')
READABLE = {
  'cmyk.jpg': encoded(RGB.convert('CMYK'), 'JPEG', quality=95),
  'sixteen_bits.png': deep(),
  'palette.png': encoded(RGB.convert('P', palette=1), 'PNG'),
  'alpha.png': encoded(RGB.convert('RGBA'), 'PNG'),
  'see_through.png': encoded(
    RGB.convert('P', palette=1), 'PNG', transparency=0
  ),
  'rotated.jpg': sideways(),
  'animated.webp': encoded(RGB, 'WEBP', lossless=True, **FRAMES),
  'animated.png': encoded(RGB, 'PNG', **FRAMES),
  'a_gif.jpg': encoded(RGB.convert('P', palette=1), 'GIF', **FRAMES),
  'a_jpeg.png': JPEG,
  'a_png.jpg': PNG,
  b'not\xffutf8.png': PNG,
  'ünï 图\n.png': PNG,
}
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
UNREADABLE = {
  'empty.jpg': b'',
  'truncated.jpg': encoded(PIL.Image.fromarray(NOISE), 'JPEG')[:2000],
  'truncated.png': encoded(PIL.Image.fromarray(NOISE), 'PNG')[:2000],
  'broken.png': PNG[:30] + b'\0' * 30 + PNG[60:],
  'page.jpg': b'<html>404</html>',
  'huge.png': encoded(PIL.Image.new('1', (30_000, 30_000)), 'PNG'),
}


@pytest.fixture
def folder(tmp_path):
  for name in ('cat', 'dog'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'plain.png').write_bytes(PNG)
  return tmp_path


def put(folder, name, content):
  path = os.path.join(os.fsencode(folder), b'cat', os.fsencode(name))
  with open(path, 'wb') as file:
    file.write(content)
  return os.fsdecode(path)


@pytest.mark.parametrize('name', READABLE, ids=repr)
def test_an_odd_file_is_the_same_image(folder, name):
  path = put(folder, name, READABLE[name])
  source = data.open(str(folder))
  (index,) = (i for i in range(len(source)) if source.name(i) == path)
  image = np.asarray(data.decoding.read(source[index]['image']))
  assert image.shape == picture().shape
  assert np.abs(image.astype(int) - picture()).mean() < 12


@pytest.mark.parametrize('name', UNREADABLE)
@pytest.mark.parametrize('passes', ['training', 'evaluation'])
def test_an_unreadable_file_is_named_and_left_out(folder, name, passes, caplog):
  put(folder, name, UNREADABLE[name])
  source = data.open(str(folder))
  assert len(source) == 3
  if passes == 'training':
    batches = data.pipeline(source, TRANSFORM, batch_size=3, seed=0, steps=1)
  else:
    batches = data.one_pass(source, TRANSFORM, batch_size=3)
  (batch,) = batches
  assert batch['mask'].sum() == (3 if passes == 'training' else 2)
  assert name in caplog.text


def test_an_image_that_vanished_is_no_bad_image(folder):
  source = data.open(str(folder))
  (folder / 'cat' / 'plain.png').unlink()
  with pytest.raises(ValueError, match='plain.png was there when this began'):
    list(data.one_pass(source, TRANSFORM, batch_size=2, on_bad_image='skip'))


def test_links_that_lead_round_in_circles_are_followed_once(folder):
  cat, dog = folder / 'cat', folder / 'dog'
  (cat / 'itself').symlink_to(cat)
  (cat / 'deep').mkdir()
  (cat / 'deep' / 'above').symlink_to(cat)
  (dog / 'gone.png').symlink_to(folder / 'nowhere.png')
  (dog / 'round.png').symlink_to(dog / 'round.png')
  source = data.open(str(folder))
  assert [
    os.path.relpath(source.name(index), folder) for index in range(len(source))
  ] == ['cat/plain.png', 'dog/gone.png', 'dog/plain.png', 'dog/round.png']
  (batch,) = data.one_pass(source, TRANSFORM, batch_size=4)
  assert batch['mask'].tolist() == [1, 0, 1, 0]
