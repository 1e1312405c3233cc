import dataclasses
import logging

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_jax import data
from vit_jax.data.pipeline import MAX_BAD_IN_A_ROW

NO_TRANSFORM = data.build_transforms([])


def numbered(count, num_classes=3):
  """Images that hold their own index, twice for the sake of 16 bits."""
  index = np.arange(count)
  image = np.zeros((count, 2, 2, 3), np.uint8)
  image[:, 0, 0, 0], image[:, 0, 0, 1] = index % 256, index // 256
  names = tuple(str(name) for name in range(num_classes))
  return data.Arrays(image, (index % num_classes).astype(np.int32), names)


def indices(batch):
  image = batch['image'].astype(int)
  return (image[:, 0, 0, 0] + 256 * image[:, 0, 0, 1]).tolist()


def jitter(image, rng):
  """Writes a random number into each image, at module level for workers."""
  image = image.copy()
  image[1, 1] = rng.integers(0, 256, 3)
  return image


def train(source, transform=jitter, **options):
  defaults = {'batch_size': 6, 'seed': 0, 'steps': 10, 'num_threads': 2}
  return list(data.pipeline(source, transform, **{**defaults, **options}))


def assert_equal_batches(left, right):
  assert len(left) == len(right) > 0
  for a, b in zip(left, right, strict=True):
    for key in ('image', 'label', 'mask'):
      assert a[key].dtype == b[key].dtype
      np.testing.assert_array_equal(a[key], b[key])


@dataclasses.dataclass(frozen=True)
class Encoded:
  """Encoded images; those of some indices are broken."""

  count: int
  broken: tuple[int, ...] = ()
  class_names: tuple[str, ...] = ('even', 'odd')
  labels: None = None

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    image = np.full((2, 2, 3), 0, np.uint8)
    image[0, 0, 2] = index  # OpenCV writes BGR.
    data_ = cv2.imencode('.png', image)[1].tobytes()
    if index in self.broken:
      data_ = data_[:20]
    return {'image': data_, 'label': index % 2}

  def name(self, index):
    return f'image{index}.png'


def test_a_batch_has_the_types_and_shapes_of_the_contract():
  batch = train(numbered(20), steps=1)[0]
  assert batch['image'].shape == (6, 2, 2, 3)
  assert batch['image'].dtype == np.uint8
  assert batch['label'].shape == (6,) and batch['label'].dtype == np.int32
  assert batch['mask'].dtype == np.float32 and (batch['mask'] == 1).all()
  assert [i % 3 for i in indices(batch)] == batch['label'].tolist()


@pytest.mark.parametrize('threads', [0, 1, 5])
def test_threads_change_nothing(threads):
  source = numbered(20)
  assert_equal_batches(train(source), train(source, num_threads=threads))


def test_workers_change_nothing():
  source = numbered(20)
  options = {'steps': 5, 'num_threads': 1}
  expected = train(source, **options)
  assert_equal_batches(expected, train(source, num_workers=2, **options))


@pytest.mark.parametrize('repeats', [1, 3])
@pytest.mark.parametrize('count', [1, 2, 3, 6])
def test_the_processes_of_a_step_share_out_its_batch(count, repeats):
  source = numbered(20)
  shares = [
    train(source, process_index=index, process_count=count, repeats=repeats)
    for index in range(count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for parts in zip(*shares, strict=True)
  ]
  assert_equal_batches(train(source, repeats=repeats), joined)


@pytest.mark.parametrize('size', [1, 2, 7, 300])
def test_every_epoch_is_another_permutation(size):
  batches = train(
    numbered(size), NO_TRANSFORM, batch_size=size, steps=4, seed=5
  )
  epochs = [indices(batch) for batch in batches]
  assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
  if size > 6:
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_epochs_need_not_be_multiples_of_the_batch():
  batches = train(numbered(10), batch_size=6, steps=5)
  order = [index for batch in batches for index in indices(batch)]
  for epoch in range(3):
    assert sorted(order[epoch * 10 : epoch * 10 + 10]) == list(range(10))


def test_another_seed_is_another_order_and_not_a_later_epoch():
  source = numbered(50)
  first, second = (
    [indices(b) for b in train(source, batch_size=50, steps=3, seed=seed)]
    for seed in (0, 1)
  )
  assert not {tuple(e) for e in first} & {tuple(e) for e in second}


@pytest.mark.parametrize('repeats', [1, 3, 4])
@pytest.mark.parametrize('start', [0, 1, 4, 9])
def test_resuming_equals_never_stopping(start, repeats):
  source = numbered(20)
  resumed = train(source, start=start, steps=10 - start, repeats=repeats)
  assert_equal_batches(train(source, repeats=repeats)[start:], resumed)


@settings(max_examples=30, deadline=None)
@given(
  size=st.integers(1, 40),
  batch_size=st.integers(3, 12),
  copies=st.integers(1, 3),
)
def test_repeated_images_make_an_epoch_of_the_same_length(
  size, batch_size, copies
):
  """As DeiT samples: a permutation, each index so often, cut at the epoch."""
  options = {'batch_size': batch_size, 'repeats': copies, 'num_threads': 0}
  steps = -(-2 * size // batch_size)
  batches = train(numbered(size), NO_TRANSFORM, steps=steps, **options)
  # Back into the order of the positions.
  order = np.empty(steps * batch_size, int)
  for step, batch in enumerate(batches):
    rows = np.argsort(np.arange(batch_size) % copies, kind='stable')
    order[step * batch_size + rows] = indices(batch)
  for epoch in (order[:size], order[size : 2 * size]):
    distinct = epoch[::copies]
    assert len(set(distinct)) == len(distinct)
    assert epoch.tolist() == np.repeat(distinct, copies)[:size].tolist()


def test_the_copies_of_an_image_differ_and_are_no_neighbours():
  batches = train(numbered(90), batch_size=30, steps=3, repeats=3)
  for batch in batches:
    order = indices(batch)
    drawn = {
      (index, tuple(image[1, 1]))
      for index, image in zip(order, batch['image'], strict=True)
    }
    assert len(set(order)) == 10 and len(drawn) == 30
    # Mixup takes the previous row for a partner.
    assert all(a != b for a, b in zip(order, np.roll(order, 1), strict=True))


def test_a_broken_image_is_replaced_in_all_its_copies(caplog):
  (whole,) = train(Encoded(10), NO_TRANSFORM, batch_size=6, steps=1, repeats=2)
  first = indices(whole)[0]
  (batch,) = train(
    Encoded(10, broken=(first,)), NO_TRANSFORM, batch_size=6, steps=1, repeats=2
  )
  a, b, c = indices(whole)[:3]
  assert indices(batch) == [b, b, c, b, b, c]
  assert [a, b, c] == indices(whole)[3:]


def test_the_same_image_is_transformed_anew_in_each_epoch():
  batches = train(numbered(8), batch_size=8, steps=3)
  drawn = {
    (index, tuple(image[1, 1]))
    for batch in batches
    for index, image in zip(indices(batch), batch['image'], strict=True)
  }
  assert len(drawn) == 24


@pytest.mark.parametrize('size', [1, 5, 12, 13])
@pytest.mark.parametrize('count', [1, 2, 3])
@pytest.mark.parametrize('batch_size', [6, 12])
def test_an_evaluation_counts_every_example_once(size, count, batch_size):
  source = numbered(size)
  seen, numbers = [], []
  for index in range(count):
    batches = list(
      data.one_pass(
        source,
        NO_TRANSFORM,
        batch_size=batch_size,
        process_index=index,
        process_count=count,
        num_threads=1,
      )
    )
    numbers.append(len(batches))
    for batch in batches:
      assert batch['image'].shape[0] == batch_size // count
      rows = zip(indices(batch), batch['mask'], strict=True)
      seen += [index for index, mask in rows if mask]
  assert sorted(seen) == list(range(size))
  assert numbers == [-(-size // batch_size)] * count


def test_an_evaluation_can_be_repeated():
  batches = data.one_pass(numbered(7), NO_TRANSFORM, batch_size=4)
  assert_equal_batches(list(batches), list(batches))


@dataclasses.dataclass(frozen=True)
class Photographs:
  """A smooth JPEG of 64 pixels, again and again; some lack their end."""

  broken: tuple[int, ...] = ()
  class_names: tuple[str, ...] = ('even', 'odd')
  labels: None = None

  def __len__(self):
    return 12

  def __getitem__(self, index):
    y, x = np.mgrid[:64, :64]
    image = np.stack([4 * x, 4 * y, 20 * index + 0 * x], -1).astype(np.uint8)
    # All that a decoder would read of its pixels is gone.
    jpeg = cv2.imencode('.jpg', image)[1].tobytes()
    if index in self.broken:
      jpeg = jpeg[: jpeg.index(b'\xff\xda') - 20] + jpeg[-2:]
    return {'image': jpeg, 'label': index % 2}

  def name(self, index):
    return f'photograph{index}.jpg'


SMALL = data.build_transforms([{'name': 'random_resized_crop', 'size': 8}])


@pytest.mark.parametrize('scaled', [False, True])
def test_a_jpeg_that_breaks_while_it_is_cropped_is_skipped(scaled, caplog):
  options = {'scaled_decoding': scaled, 'steps': 4}
  skipped = train(Photographs(broken=(5,)), SMALL, **options)
  assert 'photograph5.jpg' in caplog.text
  assert all((batch['mask'] == 1).all() for batch in skipped)
  assert_equal_batches(
    skipped, train(Photographs(broken=(5,)), SMALL, num_threads=0, **options)
  )
  with pytest.raises(ValueError, match='photograph5.jpg'):
    train(Photographs(broken=(5,)), SMALL, on_bad_image='error', **options)


def test_scaled_decoding_changes_pixels_a_little_and_nothing_else():
  exact = train(Photographs(), SMALL)
  scaled = train(Photographs(), SMALL, scaled_decoding=True)
  differences = []
  for a, b in zip(exact, scaled, strict=True):
    np.testing.assert_array_equal(a['label'], b['label'])
    differences.append(np.abs(a['image'].astype(int) - b['image']).mean())
  # A part may begin up to seven pixels, of four levels each, earlier.
  assert 0.1 < np.mean(differences) < 8


def test_a_broken_image_is_replaced_by_the_next_of_the_order(caplog):
  whole = train(Encoded(10), NO_TRANSFORM, batch_size=10, steps=2)
  with caplog.at_level(logging.WARNING):
    skipped = train(
      Encoded(10, broken=(3,)), NO_TRANSFORM, batch_size=10, steps=2
    )
  order = [index for batch in whole for index in indices(batch)]
  # The position after the last belongs to the third epoch.
  for position, index in enumerate(indices(skipped[0])):
    wanted = order[position]
    assert index == (order[position + 1] if wanted == 3 else wanted)
  assert [
    record.getMessage()
    for record in caplog.records
    if 'image3.png' in record.getMessage()
  ] == [caplog.records[0].getMessage()]
  assert (skipped[0]['mask'] == 1).all()


def test_many_broken_images_are_named_first_and_then_counted(caplog):
  source = Encoded(200, broken=tuple(range(120)))
  with caplog.at_level(logging.WARNING):
    train(source, NO_TRANSFORM, batch_size=200, steps=3, num_threads=0)
  messages = [record.getMessage() for record in caplog.records]
  assert len(messages) == 11
  assert messages[-1].startswith('100 unreadable images')


def test_a_broken_image_can_be_an_error_that_names_it():
  source = Encoded(10, broken=(3,))
  with pytest.raises(ValueError, match='image3.png'):
    train(source, NO_TRANSFORM, steps=2, on_bad_image='error')


def test_a_broken_image_does_not_count_in_an_evaluation(caplog):
  batches = list(
    data.one_pass(Encoded(10, broken=(3, 9)), NO_TRANSFORM, batch_size=4)
  )
  seen = [
    index
    for batch in batches
    for index, mask in zip(indices(batch), batch['mask'], strict=True)
    if mask
  ]
  assert seen == [0, 1, 2, 4, 5, 6, 7, 8] and len(batches) == 3
  assert 'image9.png' in caplog.text


def test_a_vanished_disk_is_an_error():
  source = Encoded(MAX_BAD_IN_A_ROW, tuple(range(MAX_BAD_IN_A_ROW)))
  with pytest.raises(ValueError, match='No readable image among'):
    train(source, NO_TRANSFORM, steps=1)


def ragged(image, rng):
  return image[: 1 + int(rng.integers(2))]


def test_images_of_different_shapes_ask_for_a_transform():
  with pytest.raises(ValueError, match='resize'):
    train(numbered(20), ragged)


@pytest.mark.parametrize('label', [-1, 2])
def test_a_label_out_of_range_is_an_error_that_names_the_example(label):
  class Wrong(Encoded):
    def __getitem__(self, index):
      return {**super().__getitem__(index), 'label': label}

  with pytest.raises(ValueError, match=rf'image\d+.png has the label {label}'):
    train(Wrong(4), NO_TRANSFORM)


@pytest.mark.parametrize(
  'options,message',
  [
    ({'batch_size': 6, 'process_count': 4}, 'multiple of process_count=4'),
    ({'batch_size': 0}, 'batch_size=0'),
    ({'process_index': 2, 'process_count': 2}, 'process_index=2'),
    ({'on_bad_image': 'ignore'}, "'ignore'"),
    ({'seed': -1}, 'seed=-1'),
    ({'start': -1}, 'start=-1'),
    ({'repeats': 0}, 'repeats=0'),
    ({'repeats': 7}, r'repeats=7 is not in \[1, 6\]'),
  ],
)
def test_bad_arguments_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    train(numbered(20), **options)


def test_an_empty_source_is_refused():
  with pytest.raises(ValueError, match='no examples'):
    train(Encoded(0), NO_TRANSFORM)
  with pytest.raises(ValueError, match='no examples'):
    data.one_pass(Encoded(0), NO_TRANSFORM, batch_size=4)
