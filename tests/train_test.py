import functools
import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_jax import checkpoint, experiment, metrics, pretrained
from vit_jax import train as train_module
from vit_jax.train import train
from vit_jax.trained import load


def assert_trees_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_reports_evaluates_and_explains_itself(tiny_config, tmp_path):
  result = train(tiny_config, tmp_path)
  assert 0 <= result['test/accuracy'] <= 1
  rows = runs.without_times(tmp_path)
  assert [r['step'] for r in rows if 'train/loss' in r] == [1, 2, 3, 4, 5, 6]
  assert [r['step'] for r in rows if 'test/loss' in r] == [3, 6]
  assert {r['test/examples'] for r in rows if 'test/loss' in r} == {50}
  run = json.loads((tmp_path / 'run.json').read_text())
  assert run['class_names'] == [str(digit) for digit in range(10)]
  assert run['config']['preprocess'] == [{'name': 'resize', 'size': 16}]
  assert run['image_shape'] == [16, 16, 3]
  assert run['versions']['jax'] == jax.__version__
  assert list(tmp_path.glob('events.out.tfevents.*'))
  assert 'tensorflow' not in sys.modules


def test_the_loss_goes_down(tiny_config, tmp_path):
  tiny_config.duration = '60 steps'
  tiny_config.batch_size = 64
  tiny_config.objective.mixup = 0.0
  tiny_config.transforms = tiny_config.preprocess
  tiny_config.optim.learning_rate = 1e-2
  train(tiny_config, tmp_path)
  losses = [
    r['train/loss'] for r in runs.without_times(tmp_path) if 'train/loss' in r
  ]
  assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize('evaluation', [1, 2])
def test_a_run_that_was_stopped_resumes_bit_identically(
  tiny_config, tmp_path, monkeypatch, evaluation
):
  train(tiny_config, tmp_path / 'whole')
  runs.stop(
    tiny_config, tmp_path / 'stopped', monkeypatch, evaluation=evaluation
  )
  train(tiny_config, tmp_path / 'stopped')
  assert runs.without_times(tmp_path / 'whole') == runs.without_times(
    tmp_path / 'stopped'
  )
  assert_trees_equal(
    checkpoint.read_model(tmp_path / 'whole'),
    checkpoint.read_model(tmp_path / 'stopped'),
  )


def test_a_run_may_go_on_scanned_where_it_was_unrolled(
  tiny_config, tmp_path, monkeypatch
):
  train(tiny_config, tmp_path / 'whole')
  with monkeypatch.context() as patch:
    patch.setattr(train_module, 'evaluate', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      train(tiny_config, tmp_path / 'switched')
  assert checkpoint.steps(tmp_path / 'switched') == [2]
  tiny_config.model.scan = True
  train(tiny_config, tmp_path / 'switched')
  (_, whole), (_, switched) = (
    checkpoint.read_model(tmp_path / name) for name in ('whole', 'switched')
  )
  # Drop path draws other numbers in a scan, so the values may only be close.
  assert jax.tree.structure(whole) == jax.tree.structure(switched)
  assert 'block_1' in switched['params']


@pytest.fixture
def trunk(tiny_config, tmp_path):
  """A run of 6 steps at one rate, with checkpoints of the steps 2, 4 and 6."""
  tiny_config.checkpoint.keep = 3
  tiny_config.optim.schedule = {'name': 'wsd', 'cooldown': '0 steps'}
  train(tiny_config, tmp_path / 'trunk')
  return tmp_path / 'trunk'


def test_a_branch_goes_on_as_the_other_run_did(trunk, tiny_config, tmp_path):
  tiny_config.init.run = f'{trunk}@4'
  branch = tmp_path / 'branch'
  train(tiny_config, branch)
  assert [row['step'] for row in runs.without_times(branch)] == [5, 6, 6]
  assert runs.without_times(branch) == runs.without_times(trunk)[-3:]
  assert_trees_equal(
    checkpoint.read_model(trunk), checkpoint.read_model(branch)
  )
  # From now on it stands alone.
  shutil.rmtree(trunk)
  train(tiny_config, branch)


def test_a_branch_cools_down_to_zero_at_its_own_end(
  trunk, tiny_config, tmp_path
):
  tiny_config.init.run = str(trunk)
  tiny_config.duration = '10 steps'
  tiny_config.optim.schedule.cooldown = '4 steps'
  train(tiny_config, tmp_path / 'branch')
  rates = {
    row['step']: row['train/learning_rate']
    for row in runs.without_times(tmp_path / 'branch')
    if 'train/learning_rate' in row
  }
  peak = tiny_config.optim.learning_rate
  # That of step s is applied by the step that leads from s to s + 1.
  expected = {7: peak, 8: 3 / 4 * peak, 9: 2 / 4 * peak, 10: peak / 4}
  assert rates == pytest.approx(expected)


def test_a_finished_run_stays_as_it_is(tiny_config, tmp_path):
  first = train(tiny_config, tmp_path)
  rows = metrics.read_rows(tmp_path / 'metrics.jsonl')
  assert train(tiny_config, tmp_path) == first
  assert metrics.read_rows(tmp_path / 'metrics.jsonl') == rows


def test_a_mesh_that_does_not_split_the_model_is_refused_before_the_first_step(
  tiny_config, tmp_path
):
  tiny_config.mesh.tensor = 8
  with pytest.raises(ValueError, match='tensor=8 does not divide the 2 heads'):
    train(tiny_config, tmp_path)
  assert not metrics.read_rows(tmp_path / 'metrics.jsonl')


def test_a_run_of_another_config_is_shown_as_a_diff(tiny_config, tmp_path):
  train(tiny_config, tmp_path)
  tiny_config.optim.learning_rate = 0.5
  tiny_config.log_every = '2 steps'  # may change
  with pytest.raises(ValueError) as error:
    train(tiny_config, tmp_path)
  assert '- config.optim.learning_rate: 0.004' in str(error.value)
  assert '+ config.optim.learning_rate: 0.5' in str(error.value)
  assert 'log_every' not in str(error.value)


@pytest.mark.parametrize(
  ('section', 'key', 'value', 'message'),
  [
    ('init', 'params', 'no_such_file.npz', 'no file no_such_file.npz'),
    ('data', 'repeats', 0, 'repeats=0'),
    ('', 'augment', [{'name': 'randaugment', 'magnitude': -1}], 'magnitude=-1'),
  ],
)
def test_a_mistake_leaves_the_directory_free(
  tiny_config, tmp_path, section, key, value, message
):
  tiny_config.duration = '1 steps'
  options = tiny_config[section] if section else tiny_config
  right = options[key]
  options[key] = value
  with pytest.raises(ValueError, match=message):
    train(tiny_config, tmp_path / 'run')
  options[key] = right
  assert 'train/loss' in train(tiny_config, tmp_path / 'run')


def test_a_loss_that_is_not_finite_stops_the_run(tiny_config, tmp_path):
  tiny_config.duration = '30 steps'
  tiny_config.optim.learning_rate = 1e30
  tiny_config.optim.schedule = {'name': 'constant', 'warmup': '10 steps'}
  tiny_config.optim.clip_norm = None
  with jax.debug_nans(False), pytest.raises(ValueError, match=r'at step \d+'):
    train(tiny_config, tmp_path)
  _, model = checkpoint.read_model(tmp_path)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(model))


def test_the_best_checkpoint_is_kept(tiny_config, tmp_path, monkeypatch):
  scores = iter([0.1, 0.9, 0.5, 0.2, 0.3, 0.4])
  monkeypatch.setattr(
    train_module, 'evaluate', lambda *_: {'test/accuracy': next(scores)}
  )
  tiny_config.eval_every = '1 steps'
  tiny_config.checkpoint.every = '1 steps'
  train(tiny_config, tmp_path)
  assert checkpoint.steps(tmp_path) == [2, 5, 6]


@pytest.fixture
def schedule_free_config(tiny_config):
  tiny_config.ema = 0.0
  tiny_config.optim.schedule = {'name': 'constant', 'warmup': '2 steps'}
  tiny_config.optim.schedule_free = 0.9
  return tiny_config


def test_a_schedule_free_run_is_loaded_by_its_average(
  schedule_free_config, tmp_path
):
  schedule_free_config.duration = '3 steps'
  train(schedule_free_config, tmp_path)
  _, model = checkpoint.read_model(tmp_path)
  kernel = lambda params: params['head']['kernel']
  average = model['ema']['params']
  assert np.any(kernel(average) != kernel(model['params']))
  assert_trees_equal(load(tmp_path).params, average)


def test_a_schedule_free_run_starts_from_the_checkpoint_throughout(
  schedule_free_config, monkeypatch
):
  schedule_free_config.init.params = 'ones.npz'
  built = experiment.build(schedule_free_config.to_dict())
  ts = train_module.make_init(built)()
  monkeypatch.setattr(
    pretrained,
    'initialize',
    lambda variables, **_: jax.tree.map(np.ones_like, variables),
  )
  ts = train_module.initialize(built, ts)
  for tree in (ts.params, ts.ema['params'], ts.opt_state.z):
    assert all(np.all(x == 1) for x in jax.tree.leaves(tree))


def test_bfloat16_leaves_the_parameters_in_float32(tiny_config, tmp_path):
  tiny_config.dtype = 'bfloat16'
  tiny_config.duration = '1 steps'
  train(tiny_config, tmp_path)
  trained = load(tmp_path)
  assert {x.dtype for x in jax.tree.leaves(trained.params)} == {
    jnp.dtype('float32')
  }
  batch = experiment.dummy_batch((16, 16, 3))
  logits = trained.predict(trained.params, trained.state, batch).logits
  assert logits.dtype == jnp.float32
  # Rounded to bfloat16 on the way.
  np.testing.assert_array_equal(logits, logits.astype(jnp.bfloat16))


def test_no_training_data_is_an_error_that_says_how_to_name_it(tiny_config):
  tiny_config.data.train = ''
  with pytest.raises(ValueError, match='--config.data.train=/my/images'):
    experiment.build(tiny_config.to_dict())


def test_an_evaluation_without_data_takes_what_is_held_out(tiny_config):
  tiny_config.evals.test.data = ''
  tiny_config.data.held_out = 0.25
  built = experiment.build(tiny_config.to_dict())
  assert len(built.source) == 48


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('dtype', 'bf16', "dtype: 'bf16'. Did you mean 'bfloat16'"),
    ('ema', 1.5, 'config.ema=1.5'),
    ('batch_sise', 3, "'batch_sise'. Did you mean 'batch_size'"),
    ('checkpoint.best', 'val/accuracy', "'val'.*Known: test"),
    ('mesh.tensr', 2, "config.mesh: 'tensr'. Did you mean 'tensor'"),
    ('preprocess', (), r'\(16, 16, 3\).*\(8, 8, 3\)'),
    ('optim.schedule.warmup', '9 steps', 'warmup=9 .*do not fit into'),
    ('init', {'run': 'a', 'params': 'b'}, 'init.run brings its own parameters'),
    ('evals.test', {'name': 'classification'}, 'no "data"'),
  ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
  tiny_config, key, value, message
):
  *sections, name = key.split('.')
  node = functools.reduce(getattr, sections, tiny_config)
  with tiny_config.unlocked():
    node[name] = value
  with pytest.raises(ValueError, match=message):
    experiment.build(tiny_config.to_dict())
