import pickle

import cv2
import numpy as np
import pytest

from vit_jax import data
from vit_jax.data import files

# The labels of the first test digits.
DIGITS = [4, 5, 6, 9, 4, 7, 8, 9, 9, 6]
IMAGE = cv2.imencode('.png', np.zeros((2, 2, 3), np.uint8))[1].tobytes()


def write(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(IMAGE)
  return str(root)


def class_folders(root, count=10, classes=('cat', 'dog')):
  names = [f'{name}/{i:02}.png' for name in classes for i in range(count)]
  return write(root, *names)


def names(source):
  return [source.name(index) for index in range(len(source))]


def labels(source):
  return [source[index]['label'] for index in range(len(source))]


def test_digits_are_rgb_in_a_fixed_stratified_split():
  train, test = data.open('digits:train'), data.open('digits:test')
  assert (len(train), len(test)) == (1437, 360)
  assert train.class_names == test.class_names == tuple('0123456789')
  example = train[0]['image']
  assert example.shape == (8, 8, 3) and example.dtype == np.uint8
  assert train.image.max() == 255 and train.image.min() == 0
  counts = np.bincount(test.labels)
  assert counts.min() >= 34 and counts.max() <= 37
  # Pinned: a test set that moves leaks into what was trained before.
  assert labels(test)[:10] == DIGITS
  train_images = {image.tobytes() for image in train.image}
  assert not any(image.tobytes() in train_images for image in test.image)


def test_every_source_is_a_source_and_travels_to_workers(tmp_path):
  folder = data.open(class_folders(tmp_path))
  for source in (folder, data.open('digits'), data.open(f'{tmp_path}[:50%]')):
    assert isinstance(source, data.Source)
    copy = pickle.loads(pickle.dumps(source))
    assert names(copy) == names(source) and labels(copy) == labels(source)


def test_class_folders_of_any_suffix_and_depth_are_read(tmp_path):
  root = write(
    tmp_path,
    'cat/a.JPG',
    'cat/deep/b.jpeg',
    'dog/c.PNG',
    'dog/d.webp',
    'dog/e.bmp',
    'dog/notes.txt',
    'dog/._c.png',
    '.cache/x/f.png',
    'empty/readme.md',
  )
  source = data.open(root)
  assert source.class_names == ('cat', 'dog')
  assert labels(source) == [0, 0, 1, 1, 1]
  assert source[0]['image'] == IMAGE


@pytest.mark.parametrize('folder', ['val', 'valid', 'validation', 'Val'])
@pytest.mark.parametrize('split', ['val', 'valid', 'validation'])
def test_split_folders_go_by_their_usual_names(tmp_path, folder, split):
  class_folders(tmp_path / 'train', 3)
  class_folders(tmp_path / folder, 2)
  assert len(data.open(str(tmp_path))) == 6
  assert len(data.open(f'{tmp_path}:train')) == 6
  assert len(data.open(f'{tmp_path}:{split}')) == 4


def test_a_validation_folder_numbers_classes_as_the_training_folder(tmp_path):
  class_folders(tmp_path / 'train', 2, ('cat', 'dog', 'eel'))
  class_folders(tmp_path / 'val', 2, ('dog', 'eel'))
  source = data.open(f'{tmp_path}:val')
  assert source.class_names == ('cat', 'dog', 'eel')
  assert labels(source) == [1, 1, 2, 2]


def test_a_class_that_training_lacks_is_an_error(tmp_path):
  class_folders(tmp_path / 'train', 2)
  class_folders(tmp_path / 'val', 2, ('cat', 'fox'))
  with pytest.raises(ValueError, match='lacks: fox'):
    data.open(f'{tmp_path}:val')


def test_a_class_may_be_called_train(tmp_path):
  source = data.open(class_folders(tmp_path, 2, ('plane', 'train')))
  assert source.class_names == ('plane', 'train')


def test_a_folder_of_other_splits_alone_asks_which(tmp_path):
  class_folders(tmp_path / 'val', 2)
  class_folders(tmp_path / 'test', 2)
  assert len(data.open(f'{tmp_path}:test')) == 4
  with pytest.raises(ValueError, match=f'{tmp_path}:val'):
    data.open(str(tmp_path))


def test_a_split_that_does_not_exist_lists_those_that_do(tmp_path):
  class_folders(tmp_path / 'train', 2)
  with pytest.raises(ValueError, match=f"'test'; there are {tmp_path}:train"):
    data.open(f'{tmp_path}:test')
  with pytest.raises(ValueError, match='digits:train, digits:test'):
    data.open('digits:val')


def test_a_directory_that_does_not_exist_names_the_nearest(tmp_path):
  class_folders(tmp_path / 'flowers')
  with pytest.raises(data.AbsentError, match='holds flowers'):
    data.open(str(tmp_path / 'flower'))
  with pytest.raises(ValueError, match='holds flowers'):
    data.open(str(tmp_path / 'flower' / 'deep'))
  with pytest.raises(ValueError, match='tfds:NAME'):
    data.open('cifar10')


def test_a_directory_without_images_says_what_it_holds(tmp_path):
  write(tmp_path, 'a/1.gif', 'a/2.gif', 'b/3.txt', 'loose.png')
  with pytest.raises(ValueError, match='2 .gif, 1 .txt; loose images: 1'):
    data.open(str(tmp_path))


def test_a_single_class_is_an_error(tmp_path):
  with pytest.raises(ValueError, match="single class 'cat'"):
    data.open(class_folders(tmp_path, classes=('cat',)))


def test_slices_are_disjoint_complete_and_hold_all_classes(tmp_path):
  root = class_folders(tmp_path, 10)
  first, second = data.open(f'{root}[:70%]'), data.open(f'{root}[70%:]')
  assert sorted(names(first) + names(second)) == names(data.open(root))
  assert np.bincount(first.labels).tolist() == [7, 7]
  assert sorted(labels(data.open(f'{root}[:2]'))) == [0, 1]
  assert len(data.open(f'{root}[25%:50%]')) == 5
  assert names(data.open(f'{root}[:70%]')) == names(first)


def test_a_slice_of_a_split_is_a_slice_of_that_split(tmp_path):
  class_folders(tmp_path / 'train', 5)
  class_folders(tmp_path / 'val', 3)
  source = data.open(f'{tmp_path}:val[:50%]')
  assert len(source) == 3 and all('/val/' in name for name in names(source))


@pytest.mark.parametrize(
  'part,message',
  [
    ('[90%]', 'Malformed slice'),
    ('[a:b]', 'Malformed slice'),
    ('[:-1]', 'Malformed slice'),
    ('[5:5]', 'selects none'),
    ('[:21]', '21 is more than all 20'),
    ('[:110%]', '110% is more'),
    ('[:5', 'does not exist'),
  ],
)
def test_a_malformed_slice_is_an_error(tmp_path, part, message):
  with pytest.raises(ValueError, match=message):
    data.open(class_folders(tmp_path) + part)


def test_a_csv_numbers_its_labels_in_alphabetical_order(tmp_path):
  write(tmp_path, 'x/1.png', '2.png', '3.png')
  (tmp_path / 'l.csv').write_text(
    'path, label,extra\nx/1.png,dog,1\n 2.png ,cat,2\n3.png,dog,3\n',
    encoding='utf-8-sig',
  )
  source = data.open(f'{tmp_path}/l.csv')
  assert source.class_names == ('cat', 'dog')
  assert labels(source) == [1, 0, 1]
  assert source.name(0) == str(tmp_path / 'x/1.png')
  other = data.open(f'{tmp_path}/l.csv', class_names=('ant', 'cat', 'dog'))
  assert labels(other) == [2, 1, 2]
  with pytest.raises(ValueError, match='lacks: cat'):
    data.open(f'{tmp_path}/l.csv', class_names=('ant', 'dog'))


def test_integer_labels_of_a_csv_are_ordered_by_value(tmp_path):
  write(tmp_path, '1.png')
  (tmp_path / 'l.csv').write_text('label,path\n10,1.png\n9,1.png\n')
  source = data.open(f'{tmp_path}/l.csv')
  assert source.class_names == ('9', '10') and labels(source) == [1, 0]


@pytest.mark.parametrize(
  'text,message',
  [
    ('1.png,cat\n', "header 'path,label'"),
    ('', "header 'path,label'"),
    ('path,label\n', 'holds no images'),
    ('path,label\n1.png,\n', 'row 1 lacks'),
    ('path,label\n1.png\n', 'row 1 lacks'),
    ('path,label\n1.png,a\n1.png,a\n', "single class 'a'"),
    ('path,label\n1.png,a\n7.png,b\n8.png,b\n', '2 of 3 rows.*7.png'),
  ],
)
def test_a_bad_csv_says_what_is_wrong(tmp_path, text, message):
  write(tmp_path, '1.png')
  (tmp_path / 'l.csv').write_text(text)
  with pytest.raises(ValueError, match=message):
    data.open(f'{tmp_path}/l.csv')


def test_a_csv_has_no_splits(tmp_path):
  with pytest.raises(ValueError, match='no splits'):
    data.open(f'{tmp_path}/l.csv:val')
  with pytest.raises(ValueError, match='holds l.csv'):
    write(tmp_path, 'l.csv')
    data.open(f'{tmp_path}/k.csv')


def test_an_npz_file_holds_images_labels_and_perhaps_names(tmp_path):
  path = f'{tmp_path}/d.npz'
  image, label = np.zeros((4, 2, 3), np.uint8), np.array([0, 2, 1, 1])
  np.savez(path, image=image, label=label)
  source = data.open(path)
  assert source.class_names == ('0', '1', '2') and labels(source) == [
    0,
    2,
    1,
    1,
  ]
  assert source[0]['image'].shape == (2, 3, 1)
  np.savez(path, image=image, label=label, class_names=['x', 'y', 'z'])
  assert data.open(path).class_names == ('x', 'y', 'z')
  with pytest.raises(ValueError, match='classes'):
    data.open(path, class_names=('x', 'y', 'w'))
  np.savez(path, images=image, label=label)
  with pytest.raises(ValueError, match="'image' and 'label'.*'images'"):
    data.open(path)


def test_a_damaged_npz_file_is_a_clear_error(tmp_path):
  path = tmp_path / 'd.npz'
  np.savez(path, image=np.zeros((2, 4, 4), np.uint8), label=[0, 2**40])
  with pytest.raises(ValueError, match="label 1099511627776.*'class_names'"):
    data.open(str(path))
  whole = path.read_bytes()
  for content in (
    whole[:-30],
    b'PK\x03\x04',
    whole.replace(b'NUMPY', b'NUMBY'),
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError):
      data.open(str(path))
  np.save(path.with_suffix('.npy'), np.zeros(3))
  path.with_suffix('.npy').rename(path)
  with pytest.raises(ValueError, match='and this is none'):
    data.open(str(path))


@pytest.mark.parametrize(
  'content', [b'path,label\n"' + b'x' * 200_000, b'path,label\n\xff\xfe,1\n']
)
def test_what_is_no_table_is_a_clear_error(tmp_path, content):
  path = tmp_path / 'l.csv'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='no CSV file in UTF-8'):
    data.open(str(path))


@pytest.mark.parametrize(
  'image,label,message',
  [
    (np.zeros((2, 4, 4, 3)), [0, 1], 'uint8'),
    (np.zeros((2, 4), np.uint8), [0, 1], 'uint8'),
    (np.zeros((2, 4, 4), np.uint8), [0, 1, 1], '2 images need'),
    (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0], 'integers'),
    (np.zeros((2, 4, 4), np.uint8), [0, 2], 'label 2 of example 1'),
    (np.zeros((2, 4, 4), np.uint8), [-1, 0], 'label -1 of example 0'),
  ],
)
def test_bad_arrays_say_what_is_wrong(image, label, message):
  with pytest.raises(ValueError, match=message):
    data.Arrays(image, np.array(label), ('a', 'b'))


def test_a_pair_takes_the_validation_split_then_the_test_split(tmp_path):
  class_folders(tmp_path / 'train', 3)
  class_folders(tmp_path / 'test', 1)
  pair = data.open_pair(str(tmp_path))
  assert (len(pair.train), len(pair.validation)) == (6, 2)
  class_folders(tmp_path / 'valid', 2)
  assert len(data.open_pair(str(tmp_path)).validation) == 4
  digits = data.open_pair('digits')
  assert (len(digits.train), len(digits.validation)) == (1437, 360)


def test_a_pair_without_splits_holds_out_a_part_of_each_class(tmp_path):
  root = class_folders(tmp_path, 10)
  pair = data.open_pair(root, held_out=0.2)
  assert np.bincount(pair.validation.labels).tolist() == [2, 2]
  both = names(pair.train) + names(pair.validation)
  assert sorted(both) == names(data.open(root))
  assert pair.train.class_names == pair.validation.class_names
  again = data.open_pair(root, held_out=0.2)
  assert names(again.validation) == names(pair.validation)
  other = data.open_pair(root, held_out=0.2, seed=1)
  assert names(other.validation) != names(pair.validation)


def test_a_pair_of_a_named_split_leaves_the_others_alone(tmp_path):
  pair = data.open_pair('digits:train', held_out=0.1)
  assert len(pair.train) + len(pair.validation) == 1437
  class_folders(tmp_path / 'train', 10)
  class_folders(tmp_path / 'test', 10)
  pair = data.open_pair(f'{tmp_path}:train')
  assert all('/train/' in name for name in names(pair.validation))


def test_a_pair_of_addresses_shares_the_numbering_of_classes(tmp_path):
  class_folders(tmp_path / 'a', 2, ('cat', 'dog', 'eel'))
  class_folders(tmp_path / 'b', 2, ('dog', 'eel'))
  pair = data.open_pair(str(tmp_path / 'a'), str(tmp_path / 'b'))
  assert pair.validation.class_names == ('cat', 'dog', 'eel')
  assert labels(pair.validation) == [1, 1, 2, 2]


@pytest.mark.parametrize('held_out', [0.0, 1.0, 0.001])
def test_a_pair_needs_examples_on_both_sides(tmp_path, held_out):
  with pytest.raises(ValueError, match='held_out'):
    data.open_pair(class_folders(tmp_path), held_out=held_out)


def test_a_file_of_another_kind_is_an_error(tmp_path):
  write(tmp_path, 'data.zip')
  with pytest.raises(ValueError, match='neither a directory'):
    files.image_folder(str(tmp_path / 'data.zip'))


def test_an_image_folder_flows_through_the_pipeline(tmp_path):
  source = data.open(class_folders(tmp_path))
  transform = data.build_transforms([{'name': 'resize', 'size': 4}])
  batch = next(
    iter(data.pipeline(source, transform, batch_size=4, seed=0, steps=1))
  )
  assert batch['image'].shape == (4, 4, 4, 3)
