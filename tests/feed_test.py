import numpy as np
import pytest

from configs.common import op
from vit_jax import data, experiment, feed


@pytest.fixture
def config(tiny_config):
  tiny_config.transforms = tiny_config.preprocess = (op('resize', size=8),)
  tiny_config.augment = (op('random_crop', pad=1),)
  return tiny_config


def batches(config, *, on_device, first_step=0, source=None):
  config.loader.on_device = on_device
  built = experiment.build(config.to_dict())
  if source is not None:
    built = built._replace(source=source)
  return list(feed.batches(built, first_step=first_step))


def assert_equal(left, right):
  assert len(left) == len(right) > 0
  for a, b in zip(left, right, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      assert a[key].dtype == b[key].dtype
      assert a[key].sharding.is_equivalent_to(b[key].sharding, a[key].ndim)
      np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize('repeats', [1, 2])
def test_on_the_devices_are_the_batches_of_the_host(config, repeats):
  config.data.repeats = repeats
  expected = batches(config, on_device=False)
  found = batches(config, on_device=True)
  assert_equal(found, expected)
  assert len(found[0]['image'].sharding.device_set) == 8
  assert_equal(batches(config, on_device=True, first_step=4), expected[4:])


class Broken:
  """Digits of which some cannot be read."""

  class_names = tuple('0123456789')
  labels = None

  def __init__(self, source, broken):
    self.source, self.broken = source, broken

  def __len__(self):
    return len(self.source)

  def __getitem__(self, index):
    example = self.source[index]
    return {**example, 'image': b''} if index in self.broken else example

  def name(self, index):
    return f'image{index}'


def test_bad_images_are_skipped_as_on_the_host(config, caplog):
  source = Broken(data.open(config.data.train), broken=(3, 4, 60))
  expected = batches(config, on_device=False, source=source)
  caplog.clear()
  assert_equal(batches(config, on_device=True, source=source), expected)
  assert 'image60' in caplog.text


@pytest.mark.parametrize(
  'transform,message',
  [
    (op('random_crop', size=8, pad=1), 'first into config.augment'),
    (op('random_resized_crop', size=8), 'none on the device'),
  ],
)
def test_random_transforms_are_refused(config, transform, message):
  config.transforms = (transform,)
  config.loader.on_device = True
  with pytest.raises(ValueError, match=message):
    experiment.build(config.to_dict())


def test_images_of_several_shapes_are_refused():
  image = [
    np.zeros((side, 4, 3), np.uint8) for side in (4, 5) for _ in range(300)
  ]

  class Ragged(Broken):
    def __getitem__(self, index):
      return {'image': image[index], 'label': 0}

  with pytest.raises(ValueError, match='differ in shape'):
    data.all_of(Ragged(image, ()), data.build_transforms([]), num_threads=1)
