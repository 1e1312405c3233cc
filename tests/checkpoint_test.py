import json
import os

import jax
import numpy as np
import pytest

from tests.runs import state
from vit_jax import checkpoint, integrity, sharding

CONFIG = {
  'seed': 0,
  'model': {'name': 'vit', 'scan': False},
  'mesh': {'data': -1},
  'loader': {'num_threads': None},
  'checkpoint': {'keep': 2, 'best': ''},
  'log_every': '1 steps',
  'normalize': {'mean': (0.5, 0.5)},
}


def save(workdir, scores, **options):
  """Saves steps 1, 2, ... with these accuracies, None where none was taken."""
  with checkpoint.Checkpoints(workdir, **options) as checkpoints:
    for step, score in enumerate(scores, start=1):
      metrics = {} if score is None else {'test/accuracy': score, 'loss': 1.0}
      checkpoints.save(step, state(step), metrics=metrics)


def write(workdir, config, *, class_names=('cat', 'dog')):
  run = dict(config=config, class_names=class_names, image_shape=(8, 8, 3))
  checkpoint.check_run(workdir, **run)
  checkpoint.write_run(workdir, **run)


def test_a_run_is_written_once_and_then_only_compared(tmp_path):
  workdir = tmp_path / 'deep' / 'run'
  write(workdir, CONFIG)
  text = (workdir / 'run.json').read_text()
  write(workdir, CONFIG)
  assert (workdir / 'run.json').read_text() == text
  assert [path.name for path in workdir.iterdir()] == ['run.json']
  run = checkpoint.read_run(workdir)
  assert run['class_names'] == ['cat', 'dog']
  assert run['config'] == json.loads(json.dumps(CONFIG))
  assert set(checkpoint.VERSIONS) < set(run['versions'])


def test_another_run_is_shown_as_a_diff(tmp_path):
  write(tmp_path, CONFIG)
  other = CONFIG | {'seed': 1, 'model': {'name': 'vit', 'dropout': 0.1}}
  with pytest.raises(ValueError) as error:
    write(tmp_path, other, class_names=('cat', 'cow'))
  lines = str(error.value).splitlines()
  assert lines[1:-1] == [
    '  + config.model.dropout: 0.1',
    '  - config.seed: 0',
    '  + config.seed: 1',
    "  - class_names: ['cat', 'dog']",
    "  + class_names: ['cat', 'cow']",
  ]
  assert lines[-1].startswith('Give another --workdir')


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('checkpoint', {'keep': 5, 'best': ''}),
    ('model', {'name': 'vit', 'scan': True}),
    ('mesh', {'data': 1, 'fsdp': -1}),
    ('loader', {'num_threads': 4}),
    ('log_every', '9 steps'),
  ],
)
def test_what_alters_how_but_not_what_it_learns_may_change(
  tmp_path, key, value
):
  write(tmp_path, CONFIG)
  write(tmp_path, CONFIG | {key: value})


def test_a_free_key_does_not_free_the_keys_that_begin_like_it(tmp_path):
  write(tmp_path, CONFIG)
  for change in (
    {'log_every_other': 1},
    {'model': CONFIG['model'] | {'scan_twice': True}},
    {'checkpoint': CONFIG['checkpoint'] | {'best': 'test/accuracy'}},
  ):
    with pytest.raises(ValueError, match='another run'):
      write(tmp_path, CONFIG | change)


def test_a_directory_without_a_run_is_named(tmp_path):
  with pytest.raises(ValueError, match='no run directory.*--workdir'):
    checkpoint.read_run(tmp_path)


def test_the_latest_checkpoints_are_kept(tmp_path):
  save(tmp_path, [None] * 5, keep=2)
  assert checkpoint.steps(tmp_path) == [4, 5]


def test_a_kill_during_a_deletion_leaves_no_half_of_a_checkpoint(
  tmp_path, monkeypatch, caplog
):
  with monkeypatch.context() as patch:
    patch.setattr(integrity, 'sweep', lambda _: None)
    save(tmp_path, [None] * 3)
  checkpoints = tmp_path / 'checkpoints'
  assert sorted(os.listdir(checkpoints)) == ['2', '3', 'deleted']
  (checkpoints / 'deleted' / '1' / integrity.SUMS).unlink()
  with checkpoint.Checkpoints(tmp_path):
    assert sorted(os.listdir(checkpoints)) == ['2', '3']
  assert 'damaged' not in caplog.text


@pytest.mark.parametrize(('mode', 'best'), [('max', 3), ('min', 1)])
def test_the_best_checkpoint_outlives_the_latest(tmp_path, mode, best):
  scores = [0.2, 0.4, 0.8, None, 0.3, 0.5]
  save(tmp_path, scores, keep=2, best='test/accuracy', best_mode=mode)
  assert checkpoint.steps(tmp_path) == [best, 5, 6]


def test_the_best_of_an_earlier_part_of_the_run_is_still_known(tmp_path):
  save(tmp_path, [0.2, 0.9, 0.1], keep=1, best='test/accuracy')
  with checkpoint.Checkpoints(
    tmp_path, keep=1, best='test/accuracy'
  ) as checkpoints:
    assert checkpoints.latest() == 3
    for step in (4, 5):
      checkpoints.save(step, state(step), metrics={'test/accuracy': 0.3})
  assert checkpoint.steps(tmp_path) == [2, 5]


def test_what_is_saved_is_restored(tmp_path):
  save(tmp_path, [None] * 3)
  mesh = sharding.make_mesh()
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest() == 3
    shapes = sharding.annotate(jax.eval_shape(state), mesh)
    restored = checkpoints.restore(2, shapes)
  expected = state(2)
  assert jax.tree.structure(restored) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_a_run_without_checkpoints_has_no_latest(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest() is None
  assert checkpoint.steps(tmp_path) == []


def test_a_checkpoint_moves_between_any_numbers_of_devices(tmp_path):
  devices = jax.devices()
  meshes = [
    sharding.make_mesh(devices=devices),
    sharding.make_mesh(data=1, fsdp=8, devices=devices),
    sharding.make_mesh(devices=devices[:1]),
  ]
  tree = jax.device_put(state(7), sharding.infer(state(), meshes[0]))
  for step, mesh in enumerate(meshes, start=1):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
      checkpoints.save(step, tree, metrics={})
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
      shapes = sharding.annotate(jax.eval_shape(state), mesh)
      tree = checkpoints.restore(step, shapes)
    expected = sharding.infer(state(), mesh)['params']['kernel']
    assert tree['params']['kernel'].sharding == expected
    jax.tree.map(np.testing.assert_array_equal, tree, state(7))
  assert len(tree['params']['kernel'].devices()) == 1


def test_a_model_is_read_without_its_optimiser(tmp_path):
  save(tmp_path, [None] * 2)
  step, model = checkpoint.read_model(tmp_path)
  assert step == 2 and model.keys() == set(checkpoint.MODEL)
  kernel = model['params']['kernel']
  np.testing.assert_array_equal(kernel, state(2)['params']['kernel'])
  assert kernel.devices() == {jax.devices()[0]}
  step, model = checkpoint.read_model(tmp_path, step=1)
  assert step == 1 and model['params']['kernel'][0, 0] == 1


def test_a_step_that_is_not_there_is_answered_by_those_that_are(tmp_path):
  with pytest.raises(ValueError, match='has no checkpoint yet'):
    checkpoint.read_model(tmp_path)
  save(tmp_path, [None] * 2)
  with pytest.raises(ValueError, match=r'no checkpoint of step 7.*\[1, 2\]'):
    checkpoint.read_model(tmp_path, step=7)


def test_a_checkpoint_that_was_never_completed_does_not_count(tmp_path):
  save(tmp_path, [None] * 2)
  (tmp_path / 'checkpoints' / '3.orbax-checkpoint-tmp-1').mkdir()
  assert checkpoint.steps(tmp_path) == [1, 2]


def branch(workdir, origin, config, *, total_steps=9):
  checkpoint.branch(
    workdir,
    str(origin),
    total_steps=total_steps,
    config=config,
    class_names=('cat', 'dog'),
    image_shape=(8, 8, 3),
  )


@pytest.fixture
def other(tmp_path):
  """A run with the checkpoints 1, 2 and 3."""
  config = CONFIG | {'duration': '3 steps', 'init': {'run': ''}}
  write(tmp_path / 'other', config)
  save(tmp_path / 'other', [None] * 3, keep=3)
  return tmp_path / 'other', config


@pytest.mark.parametrize(('at', 'step'), [('', 3), ('@2', 2)])
def test_a_branch_starts_with_a_checkpoint_of_another_run(
  other, tmp_path, at, step
):
  workdir, config = other
  new = config | {'duration': '9 steps', 'init': {'run': 'other'}}
  for _ in range(2):
    branch(tmp_path / 'new', f'{workdir}{at}', new)
  assert checkpoint.steps(tmp_path / 'new') == [step]
  _, model = checkpoint.read_model(tmp_path / 'new')
  kernel = model['params']['kernel']
  np.testing.assert_array_equal(kernel, state(step)['params']['kernel'])


def test_a_branch_that_has_gone_on_stays_where_it_is(other, tmp_path):
  workdir, config = other
  save(tmp_path / 'new', [None] * 5)
  branch(tmp_path / 'new', f'{workdir}@1', config)
  assert checkpoint.steps(tmp_path / 'new') == [4, 5]


@pytest.mark.parametrize(
  ('at', 'change', 'total_steps', 'message'),
  [
    ('@7', {}, 9, r'no checkpoint of step 7.*\[1, 2, 3\]'),
    ('', {}, 3, 'at step 3, but config.duration ends at 3'),
    (
      '',
      {'seed': 1},
      9,
      r'(?s)- config.seed: 0.*\+ config.seed: 1.*init.params',
    ),
  ],
)
def test_a_branch_that_does_not_fit_leaves_no_trace(
  other, tmp_path, at, change, total_steps, message
):
  workdir, config = other
  with pytest.raises(ValueError, match=message):
    branch(
      tmp_path / 'new',
      f'{workdir}{at}',
      config | change,
      total_steps=total_steps,
    )
  assert not (tmp_path / 'new').exists()
