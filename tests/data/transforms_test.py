import io
import pickle

import numpy as np
import PIL.Image
import pytest

from vit_jax import data
from vit_jax.data import decoding, transforms

OPTIONS = {
  'central_crop': {'size': 8},
  'inception_crop': {'size': 8},
  'random_crop': {'size': 8, 'pad': 2},
  'random_resized_crop': {'size': 8},
  'resize': {'size': 8},
  'resize_small': {'size': 8},
}


def noise(height=20, width=30, channels=3, seed=0):
  shape = height, width, channels
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def rng(seed=0):
  return np.random.default_rng(seed)


def distance(a, b):
  return np.abs(a.astype(float) - b.astype(float)).max()


def test_every_transform_has_options_here():
  assert set(OPTIONS) == set(data.TRANSFORMS)


@pytest.mark.parametrize('name', OPTIONS)
@pytest.mark.parametrize('channels', [1, 3])
def test_a_transform_keeps_type_and_channels(name, channels):
  transform = data.build_transforms([{'name': name, **OPTIONS[name]}])
  image = transform(noise(channels=channels), rng())
  width = 12 if name == 'resize_small' else 8
  assert image.shape == (8, width, channels) and image.dtype == np.uint8


@pytest.mark.parametrize('name', OPTIONS)
def test_a_transform_depends_on_the_generator_alone(name):
  transform = data.build_transforms([{'name': name, **OPTIONS[name]}])
  transform = pickle.loads(pickle.dumps(transform))
  image, before = noise(), noise()
  first = transform(image, rng(3))
  np.testing.assert_array_equal(first, transform(image, rng(3)))
  np.testing.assert_array_equal(image, before)
  if 'random' in name or 'inception' in name:
    others = [transform(image, rng(seed)) for seed in range(5)]
    assert any(distance(first, other) > 0 for other in others)


@pytest.mark.parametrize('name', OPTIONS)
def test_a_transform_makes_the_same_of_a_jpeg_and_of_its_pixels(name):
  file = io.BytesIO()
  PIL.Image.fromarray(noise(60, 90)).save(file, 'JPEG')
  transform = data.build_transforms([{'name': name, **OPTIONS[name]}])
  for seed in range(5):
    np.testing.assert_array_equal(
      np.asarray(transform(decoding.read(file.getvalue()), rng(seed))),
      transform(data.decode(file.getvalue()), rng(seed)),
    )


@pytest.mark.parametrize('method', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(30, 9), (9, 40), (33, 44), (20, 30)])
def test_antialias_is_what_pillow_does_where_a_side_grows(method, size):
  resized = transforms.resize(
    noise(), rng(), size=size, method=method, antialias=True
  )
  pillow = PIL.Image.fromarray(noise()).resize(
    size[::-1], transforms.PIL_METHODS[method]
  )
  assert distance(resized, np.asarray(pillow)) <= 1


@pytest.mark.parametrize('method', ['bilinear', 'bicubic'])
def test_antialias_is_what_pillow_does(method):
  image = noise()
  resized = transforms.resize(
    image, rng(), size=(7, 9), method=method, antialias=True
  )
  filters = PIL.Image.Resampling
  expected = PIL.Image.fromarray(image).resize(
    (9, 7), {'bilinear': filters.BILINEAR, 'bicubic': filters.BICUBIC}[method]
  )
  np.testing.assert_array_equal(resized, np.asarray(expected))


def test_without_antialias_two_neighbours_at_pixel_centres_are_mixed():
  # Shrinking 8 to 2: the centres of the new pixels lie at 1.5 and 5.5.
  row = np.array([0, 10, 20, 200, 40, 50, 100, 0], np.uint8)
  image = np.broadcast_to(row[None, :, None], (8, 8, 3)).copy()
  resized = transforms.resize(image, rng(), size=(8, 2))
  np.testing.assert_array_equal(resized[0, :, 0], [15, 75])


def test_bilinear_follows_the_half_pixel_formula():
  image = noise(11, 17)
  resized = transforms.resize(image, rng(), size=(6, 23))

  def weights(old, new):
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)))

  expected = np.einsum(
    'yh,hwc,xw->yxc', weights(11, 6), image.astype(float), weights(17, 23)
  )
  assert distance(resized, expected) <= 1.0


def test_area_is_the_mean_of_the_covered_pixels():
  image = noise(12, 20)
  resized = transforms.resize(image, rng(), size=(3, 5), method='area')
  expected = image.reshape(3, 4, 5, 4, 3).astype(float).mean(axis=(1, 3))
  assert distance(resized, expected) <= 0.5


@pytest.mark.parametrize('shape', [(20, 30), (30, 20), (20, 20), (7, 8)])
def test_resize_small_sets_the_shorter_side(shape):
  image = transforms.resize_small(noise(*shape), rng(), size=10)
  expected = [round(side * 10 / min(shape)) for side in shape]
  assert list(image.shape[:2]) == expected and min(expected) == 10


def test_central_crop_leaves_equal_margins():
  image = noise(10, 14)
  crop = transforms.central_crop(image, rng(), size=(4, 6))
  np.testing.assert_array_equal(crop, image[3:7, 4:10])


def test_random_crop_reaches_every_place_equally():
  image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1)
  generator = rng()
  corners = [
    transforms.random_crop(image, generator, size=2)[0, 0, 0]
    for _ in range(2000)
  ]
  counts = np.bincount(corners, minlength=9)
  assert counts.nonzero()[0].tolist() == [0, 1, 3, 4]
  assert np.abs(counts[[0, 1, 3, 4]] - 500).max() < 100


def test_random_crop_pads_with_black_or_with_a_reflection():
  image = np.full((4, 4, 3), 9, np.uint8)
  crops = [
    transforms.random_crop(image, rng(seed), size=4, pad=4)
    for seed in range(20)
  ]
  assert {0, 9} == {int(value) for crop in crops for value in crop.flat}
  crop = transforms.random_crop(image, rng(), size=4, pad=3, pad_mode='reflect')
  assert (crop == 9).all()


def drawn_crops(function, **options):
  """Heights and widths of crops of a 100 x 100 image whose pixels tell them."""
  y, x = np.mgrid[:100, :100]
  image = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)
  generator, sizes = rng(), []
  for _ in range(1500):
    crop = function(image, generator, size=100, method='area', **options)
    span = crop.reshape(-1, 3).astype(int)
    sizes.append(np.ptp(span, axis=0)[:2] + 1)
  return np.array(sizes)


@pytest.mark.parametrize(
  'function,mean_area',
  [
    # Computed apart, by drawing a million crops of a square.
    (transforms.inception_crop, 0.375),
    (transforms.random_resized_crop, 0.462),
  ],
)
def test_random_crops_keep_area_and_aspect_in_range(function, mean_area):
  sizes = drawn_crops(function, area=(0.05, 1.0), antialias=False)
  area = sizes.prod(axis=1) / 100**2
  aspect = sizes[:, 1] / sizes[:, 0]
  assert 0.04 < area.min() < 0.08 and 0.85 < area.max() <= 1.0
  assert 0.7 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.42
  assert abs(area.mean() - mean_area) < 0.03


@pytest.mark.parametrize(
  'function', [transforms.inception_crop, transforms.random_resized_crop]
)
def test_a_very_long_image_gives_its_central_square_like_crop(function):
  image = np.zeros((10, 1000, 3), np.uint8)
  image[:, 494:506] = 255
  crop = function(image, rng(), size=12, area=(0.5, 1.0))
  # 10 x 13 pixels out of the middle, 12 of them white.
  assert crop.mean() > 220


def test_the_whole_image_is_cropped_before_it_is_resized(monkeypatch):
  sizes = []
  original = transforms._resize

  def spy(image, *args):
    sizes.append(image.shape)
    return original(image, *args)

  monkeypatch.setattr(transforms, '_resize', spy)
  transforms.inception_crop(noise(200, 200), rng(), size=8, area=(0.05, 0.1))
  assert len(sizes) == 1 and sizes[0][0] * sizes[0][1] < 0.11 * 200**2


@pytest.mark.parametrize(
  'ops,message',
  [
    ([{'name': 'inceptioncrop', 'size': 8}], "mean 'inception_crop'"),
    ([{'name': 'resize', 'sise': 8}], "'sise'.*mean 'size'"),
    ([{'name': 'resize'}], "'resize' needs 'size'"),
    ([{'size': 8}], 'names no transform'),
    ([{'name': 'resize', 'rng': 1, 'size': 8}], "option of .*'resize': 'rng'"),
  ],
)
def test_unknown_settings_are_refused_with_the_nearest_names(ops, message):
  with pytest.raises(ValueError, match=message):
    data.build_transforms(ops)


def test_a_crop_larger_than_the_image_is_refused():
  with pytest.raises(ValueError, match='resize_small'):
    transforms.central_crop(noise(20, 30), rng(), size=25)
  with pytest.raises(ValueError, match='resize_small'):
    transforms.random_crop(noise(20, 30), rng(), size=25, pad=2)


def test_an_unknown_method_or_size_is_refused():
  with pytest.raises(ValueError, match="method='cubic'"):
    transforms.resize(noise(), rng(), size=8, method='cubic')
  with pytest.raises(ValueError, match='positive'):
    transforms.resize(noise(), rng(), size=0)
