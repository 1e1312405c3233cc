"""Damaged and hostile input: an answer or a clear error, never anything else.

  python -m pytest -m slow tests/fuzz_test.py

Each target sees 10,000 inputs: valid ones that were changed at random, the same
in every run. `ValueError` and `OSError` are what the tools turn into a message.
"""

import contextlib
import io

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from configs import common
from vit_jax import data, durations
from vit_jax.data import arrays, decoding
from vit_jax.data import files as tables
from vit_jax.pretrained import files

CLEAR = (ValueError, OSError)
slow = pytest.mark.slow
fuzzed = settings(
  max_examples=10_000,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(HealthCheck),
)


def image_seeds():
  """Small images in every format, and with every oddity, that is read."""
  rng = np.random.default_rng(0)
  rgb = PIL.Image.fromarray(rng.integers(256, size=(24, 17, 3), dtype=np.uint8))
  exif = PIL.Image.Exif()
  exif[decoding.ORIENTATION] = 6
  deep = PIL.Image.fromarray(rng.integers(2**16, size=(9, 9), dtype=np.uint16))
  variants = [
    (rgb, 'JPEG', {}),
    (rgb, 'JPEG', {'progressive': True, 'exif': exif}),
    (rgb.convert('L'), 'JPEG', {'restart_marker_blocks': 1}),
    (rgb.convert('CMYK'), 'JPEG', {}),
    (rgb.convert('P'), 'PNG', {}),
    (rgb.convert('RGBA'), 'PNG', {}),
    (deep, 'PNG', {}),
    (rgb, 'WEBP', {}),
    (rgb, 'BMP', {}),
    (rgb, 'GIF', {'save_all': True, 'append_images': [rgb]}),
  ]
  return [encode(*variant) for variant in variants]


def encode(image, kind, options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def npz_seeds():
  image = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
  names = np.array(['cat', 'dog'])
  seeds = []
  for save in (np.savez, np.savez_compressed):
    file = io.BytesIO()
    save(file, image=image, label=np.array([0, 1]), class_names=names)
    seeds.append(file.getvalue())
  return seeds


def safetensors_seeds():
  tensors = {'a': np.ones((2, 3), np.float32), 'b.c': np.arange(4)}
  return [safetensors.numpy.save(tensors)]


CSV_SEEDS = [
  b'path,label\na.png,cat\nb.png,dog\n',
  b'\xef\xbb\xbflabel;path\r\n"a ""x"".png",1\r\n',
  'path,label\nü.png,Ω\n"a,b.png",2\n'.encode(),
]


@st.composite
def damaged(draw, seeds):
  """A seed with a few bytes changed, cut out, repeated or put in."""
  text = bytearray(draw(st.sampled_from(seeds)))
  for _ in range(draw(st.integers(0, 4))):
    at = draw(st.integers(0, len(text)))
    kind = draw(st.sampled_from(('set', 'cut', 'end', 'repeat', 'insert')))
    if kind == 'set' and at < len(text):
      text[at] = draw(st.integers(0, 255))
    elif kind == 'cut':
      del text[at : at + draw(st.integers(1, 16))]
    elif kind == 'end':
      del text[at:]
    elif kind == 'repeat':
      text[at:at] = text[at : at + draw(st.integers(1, 64))]
    else:
      text[at:at] = draw(st.binary(max_size=8))
  return bytes(text)


def survives(function, *args, **keywords):
  """What the function answers; None for a clear error."""
  try:
    return function(*args, **keywords)
  except CLEAR as error:
    assert str(error).strip()
    return None


@slow
@fuzzed
@given(damaged(image_seeds()))
def test_images(content):
  whole = survives(decoding.decode, content, max_pixels=2**16)
  if whole is not None:
    assert whole.dtype == np.uint8 and whole.ndim == 3 and whole.shape[2] == 3
  found = survives(decoding.read, content, scaled=True, max_pixels=2**16)
  if isinstance(found, decoding.Jpeg):
    survives(found[: 1 + found.shape[0] // 2, :].pixels, (4, 4))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('fuzz')
  for name in ('a.png', 'b.png'):
    (folder / name).write_bytes(b'')
  return folder


@slow
@fuzzed
@given(content=damaged(npz_seeds()))
def test_npz_files_of_images(content, folder):
  path = folder / 'images.npz'
  path.write_bytes(content)
  source = survives(arrays.npz, str(path), class_names=None)
  if source is not None and len(source):
    assert source[0]['image'].ndim == 3


@slow
@fuzzed
@given(content=damaged(CSV_SEEDS))
def test_tables(content, folder):
  path = folder / 'table.csv'
  path.write_bytes(content)
  survives(tables.labels_csv, str(path))


@slow
@pytest.mark.parametrize('kind', ['npz', 'safetensors'])
def test_checkpoints(kind, folder):
  seeds = npz_seeds() if kind == 'npz' else safetensors_seeds()
  path = folder / f'model.{kind}'

  @fuzzed
  @given(content=damaged(seeds))
  def run(content):
    path.write_bytes(content)
    survives(files.read, path)

  run()


@slow
@fuzzed
@given(
  text=st.one_of(
    st.text(max_size=30),
    st.from_regex(r'(tfds:)?[a-z./]*(:\w+)?(\[\d*%?:\d*%?\])?', fullmatch=True),
  )
)
def test_addresses(text, folder):
  # Not the disk of whoever runs this, which would be searched for images.
  assume('..' not in text and not text.startswith(('/', '~')))
  with contextlib.chdir(folder):
    survives(data.open, text)


@slow
@fuzzed
@given(
  st.one_of(
    st.text(max_size=20),
    st.from_regex(
      r'\d[\d_.e]{0,12} ?(steps|epochs|examples|%)?', fullmatch=True
    ),
  )
)
def test_durations(text):
  steps = survives(
    durations.steps, text, batch_size=8, num_examples=100, total_steps=50
  )
  assert steps is None or steps >= 0


@slow
@fuzzed
@given(
  st.one_of(st.text(max_size=30), st.from_regex(r'([a-z]*=?[\d.]*,?){0,4}'))
)
def test_arguments_of_configs(text):
  survives(common.parse, text, 'model', size=224, rate=0.5, data='')
