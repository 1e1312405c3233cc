import pickle

import numpy as np
import pytest

from vit_jax import data
from vit_jax.data import packed

SHAPES = [(4, 6, 3), (5, 4, 3), (4, 4, 3), (9, 4, 3)]
NAMES = ('even', 'odd')


def examples():
  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, shape, np.uint8) for shape in SHAPES]
  return [(image, index % 2) for index, image in enumerate(images)]


@pytest.fixture
def folder(tmp_path):
  for split in ('train', 'val'):
    written = packed.write(tmp_path / split, examples(), class_names=NAMES)
    assert written == 4
  return tmp_path


def assert_same(source):
  assert len(source) == 4 and source.class_names == NAMES
  assert source.labels.tolist() == [0, 1, 0, 1]
  for index, (image, label) in enumerate(examples()):
    np.testing.assert_array_equal(source[index]['image'], image)
    assert source[index]['label'] == label


def test_what_is_packed_comes_back(folder):
  source = data.open(str(folder))
  assert_same(source)
  source.check()
  # It goes to a worker process by name, not by content.
  sent = pickle.dumps(source)
  assert len(sent) < 300
  assert_same(pickle.loads(sent))


def test_a_packed_folder_has_splits_and_slices(folder):
  assert data.splits(str(folder)) == ('train', 'val')
  pair = data.open_pair(str(folder))
  assert 'train' in pair.train.name(0) and 'val' in pair.validation.name(0)
  assert len(data.open(f'{folder}:val[:50%]')) == 2
  assert 'val' in data.open(f'{folder}:validation').name(0)
  with pytest.raises(ValueError, match="no split 'test'; there are .*:train"):
    data.open(f'{folder}:test')
  with pytest.raises(ValueError, match='has the classes'):
    data.open(str(folder), class_names=('cat', 'dog'))


def test_several_labels_of_an_image_are_kept(tmp_path):
  label = np.array([1, 0, 1], np.float32)
  packed.write(
    tmp_path / 'train', [(examples()[0][0], label)], class_names=('a', 'b', 'c')
  )
  source = data.open(str(tmp_path))
  assert source.labels is None
  np.testing.assert_array_equal(source[0]['label'], label)


def test_a_file_that_is_not_whole_is_an_error(folder):
  path = folder / 'train' / packed.PIXELS
  whole = path.read_bytes()
  path.write_bytes(whole[:-1])
  with pytest.raises(ValueError, match='not wholly copied'):
    data.open(str(folder))
  path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  with pytest.raises(ValueError, match=r'train\[3\] is damaged'):
    data.open(str(folder)).check()


def test_a_damaged_index_is_an_error(folder):
  path = folder / 'train' / packed.INDEX
  path.write_bytes(path.read_bytes()[:-30])
  with pytest.raises(ValueError, match='index.npz is damaged'):
    data.open(str(folder))


def test_nothing_is_written_over(folder):
  with pytest.raises(ValueError, match='train exists; remove it'):
    packed.write(folder / 'train', examples(), class_names=NAMES)
  (folder / 'new.unfinished').mkdir()
  with pytest.raises(ValueError, match='broke off or goes on'):
    packed.write(folder / 'new', examples(), class_names=NAMES)


def test_a_run_that_fails_leaves_nothing(tmp_path):
  def failing():
    yield examples()[0]
    # Nothing can be opened before the end.
    assert not packed.split_folders(str(tmp_path))
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    packed.write(tmp_path / 'train', failing(), class_names=NAMES)
  with pytest.raises(ValueError, match='None of the images'):
    packed.write(tmp_path / 'train', [], class_names=NAMES)
  assert not list(tmp_path.iterdir())
