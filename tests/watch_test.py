"""What TensorBoard's own reader finds in the events of a run."""

import io
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing import event_accumulator

from configs import common
from tests import multiprocess_test, runs
from vit_jax import checkpoint, keys, metrics, watch
from vit_jax.train import train
from vit_jax.watch import histogram


def events(workdir):
  """All that was written, none of it left out to save memory."""
  found = event_accumulator.EventAccumulator(
    str(workdir),
    size_guidance={'images': 0, 'histograms': 0, 'scalars': 0},
  )
  return found.Reload()


def test_a_histogram_counts_what_numpy_counts():
  x = np.random.default_rng(0).normal(size=(8, 50)).astype(np.float32)
  found = jax.jit(histogram)(x)
  edges = np.append(found.least, found.limits)
  counts, _ = np.histogram(x, edges[1:-1])
  np.testing.assert_array_equal(found.counts[1:-1], counts)
  assert found.counts.sum() == x.size and found.counts[0] > 0
  assert found.least == x.min() and found.largest == x.max()
  np.testing.assert_allclose(found.sum, x.sum(), rtol=1e-4)
  np.testing.assert_allclose(found.sum_of_squares, (x**2).sum(), rtol=1e-5)
  np.testing.assert_allclose(found.limits[-1], x.max(), rtol=1e-5)


def test_a_histogram_of_one_value_is_one_bucket():
  found = histogram(jnp.zeros((3, 4)))
  assert found.counts[0] == 12 and found.counts.sum() == 12
  assert np.all(np.diff(found.limits) > 0)


def test_tensorboard_reads_what_the_writer_was_given(tmp_path):
  image = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
  counted = jax.device_get(histogram(jnp.arange(60.0)))
  with metrics.Writer(tmp_path, first_step=0, total_steps=9) as writer:
    writer.scalars(3, {'train/loss': 0.5, 'train/learning_rate': 0.1})
    writer.images(3, {'watch/batch': image})
    writer.histograms(3, {'params/kernel': counted})
  found = events(tmp_path)
  assert [(x.step, x.value) for x in found.Scalars('train/loss')] == [(3, 0.5)]
  (rate,) = found.Scalars('train/learning_rate')
  assert rate.value == pytest.approx(0.1)
  (picture,) = found.Images('watch/batch')
  np.testing.assert_array_equal(shown(picture), image)
  assert (picture.step, picture.width, picture.height) == (3, 7, 5)
  (read,) = found.Histograms('params/kernel')
  value = read.histogram_value
  assert (read.step, value.min, value.max, value.num) == (3, 0.0, 59.0, 60)
  assert value.sum == 59 * 30
  np.testing.assert_array_equal(value.bucket_limit, counted.limits)
  np.testing.assert_array_equal(value.bucket, counted.counts)


ALL = 'histograms, batch,attention'
PICTURES = ['watch/attention_0', 'watch/attention_1', 'watch/batch']


def test_a_run_that_is_watched_shows_all_and_learns_the_same(
  tiny_config, tmp_path
):
  for name, views in (('plain', ''), ('watched', ALL)):
    tiny_config.watch = views
    train(tiny_config, tmp_path / name)
  assert runs.without_times(tmp_path / 'plain') == runs.without_times(
    tmp_path / 'watched'
  )
  (_, plain), (_, model) = (
    checkpoint.read_model(tmp_path / name) for name in ('plain', 'watched')
  )
  jax.tree.map(np.testing.assert_array_equal, plain, model)
  tags = events(tmp_path / 'plain').Tags()
  assert tags['scalars'] and not tags['images'] and not tags['histograms']
  found = events(tmp_path / 'watched')
  assert sorted(found.Tags()['images']) == PICTURES
  for tag in PICTURES:
    pair = found.Images(tag)
    assert [x.step for x in pair] == [3, 6]
    one, other = map(shown, pair)
    assert one.std() > 10 and np.any(one != other)
  assert_counted(found, model['params'])


def shown(event):
  return np.array(PIL.Image.open(io.BytesIO(event.encoded_image_string)))


def assert_counted(found, params):
  """The last histograms are those of the parameters, which are all there."""
  arrays = {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(x)
    for path, x in jax.tree_util.tree_leaves_with_path(params)
  }
  tags = {f'{kind}/{x}' for kind in ('params', 'gradients') for x in arrays}
  assert set(found.Tags()['histograms']) == tags
  for name, x in arrays.items():
    first, last = found.Histograms(f'params/{name}')
    assert (first.step, last.step) == (3, 6)
    value = last.histogram_value
    assert (value.min, value.max, value.num) == (x.min(), x.max(), x.size)
    assert value.sum == pytest.approx(x.sum(dtype=float), abs=1e-3)
    _, gradient = found.Histograms(f'gradients/{name}')
    assert gradient.histogram_value.max > gradient.histogram_value.min


@pytest.mark.slow
def test_several_processes_are_watched_and_one_writes(tmp_path):
  """Parameters are split over the processes, and blocks are scanned."""
  multiprocess_test.main(
    f'--config.watch={ALL}',
    '--config.mesh.fsdp=2',
    '--config.model.scan=True',
    f'--workdir={tmp_path}',
    count=2,
  )
  assert len(list(tmp_path.glob('events.out.tfevents.*'))) == 1
  found = events(tmp_path)
  assert sorted(found.Tags()['images']) == PICTURES
  _, model = checkpoint.read_model(tmp_path)
  assert_counted(found, model['params'])


@pytest.mark.slow
def test_a_model_without_attention_is_said_before_the_run(
  tiny_config, tmp_path
):
  tiny_config.model = {'name': 'mlp_mixer', 'variant': 'S/16', 'patch_size': 8}
  tiny_config.watch = 'attention'
  with pytest.raises(ValueError, match='mlp_mixer has no attention'):
    train(tiny_config, tmp_path)
  assert not (tmp_path / 'run.json').exists()


def test_an_unknown_view_is_said_at_once(tiny_config):
  tiny_config.watch = 'histograms, batches'
  with pytest.raises(ValueError, match="'batches'. Did you mean 'batch'"):
    keys.check_keys(tiny_config.to_dict())


def test_every_view_is_known_where_the_key_is():
  assert set(keys.VIEWS) == set(watch.VIEWS)
  text = pathlib.Path(common.__file__).read_text()
  assert all(name in text for name in watch.VIEWS)
