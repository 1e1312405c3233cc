"""Runs that start from another run: as its like, or as its student."""

import shutil

import jax
import numpy as np
import pytest

from configs import common, quickstart
from vit_jax import checkpoint, experiment, metrics, train, trained
from vit_jax.tools import evaluate, export, predict

NORMALIZE = {'mean': (0.2, 0.2, 0.2), 'std': (0.4, 0.4, 0.4)}


def assert_trees_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def small_config(**model):
  """4 steps of 16 digits with a checkpoint on the way."""
  config = quickstart.get_config()
  config.duration = '4 steps'
  config.batch_size = 16
  config.eval_batch_size = 64
  config.eval_every = config.checkpoint.every = '2 steps'
  config.log_every = '1 steps'
  config.checkpoint.best = ''
  config.model.update({'width': 16, 'depth': 2, 'mlp_dim': 16, 'num_heads': 2})
  config.model.update({'head_std': 0.02, **model})
  config.data.train = 'digits:train[:64]'
  config.evals.test.data = 'digits:test[:50]'
  return config


@pytest.fixture(scope='module', autouse=True)
def compile_fast():
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
  """A run of a scanned ViT on images of a normalisation of its own."""
  workdir = tmp_path_factory.mktemp('teacher')
  config = small_config(depth=3, scan=True)
  config.normalize = NORMALIZE
  train.train(config, workdir)
  return workdir


def student_config(teacher, **model):
  config = small_config(name='deit', pool='token', **model)
  common.use_teacher(config, str(teacher))
  return config


@pytest.fixture(scope='module')
def student(teacher, tmp_path_factory):
  """A run of a DeiT that learns from the teacher."""
  workdir = tmp_path_factory.mktemp('student')
  train.train(student_config(teacher), workdir)
  return workdir


def test_a_teacher_is_the_average_of_its_run_and_stays_so(teacher, student):
  judged = trained.load(teacher)
  for step in (2, 4):
    _, model = checkpoint.read_model(student, step=step)
    assert_trees_equal(model['state']['teacher'], {'params': judged.params})
  _, raw = checkpoint.read_model(teacher)
  kernel = lambda params: params['head']['kernel']
  assert np.any(kernel(raw['params']) != kernel(judged.params))


def test_the_teacher_is_neither_averaged_nor_part_of_the_student(student):
  _, model = checkpoint.read_model(student)
  assert set(model['state']) == {'teacher'} and model['ema']['state'] == {}
  loaded = trained.load(student)
  assert loaded.state == {}
  assert_trees_equal(loaded.params, model['ema']['params'])


def test_a_teacher_learns_from_one_of_the_checkpoints_of_its_run(
  teacher, tmp_path
):
  config = student_config(f'{teacher}@2')
  built = experiment.build(config.to_dict())
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    ts = train.restore_or_init(built, checkpoints)
  earlier = trained.load(teacher, step=2).params
  assert_trees_equal(ts.state['teacher']['params'], earlier)


def test_a_scanned_student_has_its_teacher_scanned(teacher, student, tmp_path):
  built = experiment.build(student_config(teacher, scan=True).to_dict())
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    ts = train.restore_or_init(built, checkpoints)
    params = ts.state['teacher']['params']
    assert params['blocks']['norm1']['scale'].shape == (3, 16)
    train.save(checkpoints, ts, {})
  _, model = checkpoint.read_model(tmp_path)
  expected = trained.load(teacher).params
  assert_trees_equal(model['state']['teacher']['params'], expected)
  # And back: what was saved one by one is restored in a stack.
  shutil.copytree(student / 'checkpoints', tmp_path / 'other' / 'checkpoints')
  with checkpoint.Checkpoints(tmp_path / 'other') as checkpoints:
    restored = train.restore_or_init(built, checkpoints)
  assert int(restored.step) == 4
  assert_trees_equal(restored.state, ts.state)


def test_a_student_that_was_stopped_resumes_bit_identically(
  teacher, student, tmp_path, monkeypatch
):
  copy = shutil.copytree(teacher, tmp_path / 'teacher')
  config = student_config(teacher)
  # The teacher of a run that goes on need no longer be there.
  config.init.teacher = str(copy)
  with monkeypatch.context() as patch:
    patch.setattr(train.divergence, 'check_step', stop_at(3))
    with pytest.raises(KeyboardInterrupt):
      train.train(config, tmp_path / 'stopped')
  assert checkpoint.steps(tmp_path / 'stopped') == [2]
  shutil.rmtree(copy)
  train.train(config, tmp_path / 'stopped')
  assert_trees_equal(
    checkpoint.read_model(student), checkpoint.read_model(tmp_path / 'stopped')
  )
  losses = lambda path: [
    {k: row[k] for k in row if k.endswith('loss')}
    for row in metrics.read_rows(path / 'metrics.jsonl')
  ]
  assert losses(student) == losses(tmp_path / 'stopped')


def stop_at(last):
  def check(scalars, *, step, policy):
    if step == last:
      raise KeyboardInterrupt
    return ''

  return check


def test_a_branch_may_not_change_its_teacher(teacher, student, tmp_path):
  config = student_config(teacher)
  config.init.run = str(student)
  run = checkpoint.read_run(student) | {'config': config.to_dict()}
  del run['versions']
  other = run | {'config': student_config(f'{teacher}@2').to_dict()}
  with pytest.raises(ValueError, match=r'\+ config.init.teacher: .*@2'):
    checkpoint.branch(tmp_path, str(student), total_steps=6, **other)
  checkpoint.branch(tmp_path, str(student), total_steps=6, **run)
  assert checkpoint.steps(tmp_path) == [4]


def test_the_tools_take_a_student_for_what_it_is(student, tmp_path, capsys):
  which = f'--workdir={student}'
  assert predict.main([which, '--json', 'digits:test[:2]']) == 0
  assert evaluate.main([which, '--json']) == 0
  assert '"examples": 50' in capsys.readouterr().out
  assert export.main([which, '--to=timm', f'--output={tmp_path}']) == 0
  assert 'the same logits' in capsys.readouterr().out
  size = (tmp_path / 'model.safetensors').stat().st_size
  count = sum(x.size for x in jax.tree.leaves(trained.load(student).params))
  assert size < 4 * count + 20_000


def test_a_run_starts_a_model_of_another_head_and_size(teacher, tmp_path):
  config = small_config(depth=3, num_classes=7)
  config.transforms = config.preprocess = (common.op('resize', size=24),)
  config.init.params = str(teacher)
  config.evals = {}
  built = experiment.build(config.to_dict())
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    ts = train.restore_or_init(built, checkpoints)
  other = trained.load(teacher).params
  assert ts.params['pos_embed'].shape == (1, 36, 16)
  assert_trees_equal(ts.params['block_2'], other['block_2'])
  assert_trees_equal(ts.ema['params'], ts.params)
  assert ts.params['head']['kernel'].shape == (16, 7)


def restart(config, tmp_path):
  built = experiment.build(config.to_dict())
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    return train.restore_or_init(built, checkpoints)


def test_a_teacher_must_be_named(teacher, tmp_path):
  config = student_config(teacher)
  config.init.teacher = ''
  with pytest.raises(ValueError, match="init.teacher='' goes together with"):
    restart(config, tmp_path)
  config.init.teacher = 'random'
  ts = restart(config, tmp_path)
  assert np.any(ts.state['teacher']['params']['head']['kernel'])
  plain = small_config()
  plain.init.teacher = str(teacher)
  with pytest.raises(ValueError, match='config.objective.teacher: give both'):
    restart(plain, tmp_path)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'teacher.normalize.mean': (0.5,)}, r'mean \[0.2.* some of \[0.5\]'),
    ({'teacher.width': 24}, r'- block_0/attn.*\n\+ block_0/attn'),
    ({'teacher.num_classes': 5}, 'teacher has 5 classes and the student 10'),
    ({'teacher.scan': True}, 'teacher.scan is that of config.model'),
    ({'teacher.name': 'vitt'}, "model: 'vitt'. Did you mean 'vit'"),
    ({'temprature': 2.0}, "'temprature'. Did you mean 'temperature'"),
  ],
)
def test_a_teacher_that_does_not_fit_is_an_error(
  teacher, tmp_path, change, words
):
  config = student_config(teacher)
  with config.unlocked():
    config.objective.update_from_flattened_dict(change)
  with pytest.raises(ValueError, match=words):
    restart(config, tmp_path)


@pytest.mark.parametrize(
  ('source', 'words'),
  [
    ('runs/nobody', "Unknown checkpoint: 'runs/nobody'"),
    ('resnet/resnet18.a1_in1k', '1000 classes, n01440764.*the data 10, 0, 1'),
  ],
)
def test_another_teacher_than_the_config_says_is_an_error(
  teacher, tmp_path, source, words
):
  config = student_config(teacher)
  config.init.teacher = source
  with pytest.raises(ValueError, match=words):
    restart(config, tmp_path)


def test_a_teacher_without_a_record_is_an_error():
  with pytest.raises(ValueError, match="No run lies in 'runs/nobody'"):
    student_config('runs/nobody')


def test_a_teacher_of_the_catalogue_brings_its_model_and_images():
  config = student_config('efficientnet/tf_efficientnet_b2.ap_in1k')
  teacher = config.objective.teacher
  assert (teacher.name, teacher.variant) == ('efficientnet', 'B2')
  assert teacher.normalize.mean == (0.5, 0.5, 0.5)
  assert config.init.teacher.endswith('b2.ap_in1k')
