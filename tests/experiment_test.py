"""Evaluations of a config: which data they get, and which are left out."""

import logging

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from vit_jax import data, evaluators, experiment
from vit_jax.evaluators import corruption
from vit_jax.ops import kernels


def folder(root, names, *, count=4):
  """A folder for each class; the brightness of an image is its class."""
  rng = np.random.default_rng(0)
  for position, name in enumerate(names):
    (root / name).mkdir(parents=True)
    for index in range(count):
      image = rng.integers(20, size=(12, 12, 3)) + 200 * position / len(names)
      cv2.imwrite(str(root / name / f'{index}.png'), image.astype(np.uint8))
  return str(root)


@pytest.fixture
def config(tiny_config):
  tiny_config.duration = '1 steps'
  tiny_config.eval_batch_size = 16
  tiny_config.checkpoint.best = ''
  tiny_config.loader.num_threads = 0
  tiny_config.evals = {}
  return tiny_config


def results(config, name):
  """What the untrained model of a config gets in one evaluation."""
  built = experiment.build(config.to_dict())
  params, state = jax.jit(built.objective.init)(
    jax.random.key(0), experiment.dummy_batch(built.image_shape, 'float32')
  )
  return built.evals[name](params, state)


def test_attention_is_told_how_the_mesh_splits_an_evaluation(
  config, monkeypatch
):
  config.evals.test = {'name': 'classification', 'data': 'digits:test[:16]'}
  config.mesh.data, config.mesh.tensor = 8, 1
  seen = set()

  def spy(*_, place, **__):
    seen.add(place.shards)
    return 'xla'

  monkeypatch.setattr(kernels, 'choose_kernel', spy)
  results(config, 'test')
  assert (8, 1) in seen


def test_features_are_compared_with_those_of_the_run(config):
  config.evals.probe = {'name': 'few_shot', 'train': '', 'shots': (5,)}
  config.evals.probe.data = 'digits:test[:30]'
  own = results(config, 'probe')
  assert own['examples'] == 30
  config.evals.probe.train = config.data.train
  assert results(config, 'probe') == own
  config.evals.probe.train = 'digits:train[64:128]'
  assert results(config, 'probe') != own


def test_the_nearest_of_a_training_image_is_itself_without_augmentation(config):
  config.evals.probe = {'name': 'knn', 'train': '', 'k': (1,)}
  config.evals.probe.data = config.data.train
  assert results(config, 'probe') == {'1nn': 1, 'examples': 64}


def test_examples_of_other_classes_bring_their_own(config, tmp_path):
  names = ('apple', 'pear', 'plum')
  config.evals.fruit = {
    'name': 'few_shot',
    'train': folder(tmp_path / 'train', names),
    'data': folder(tmp_path / 'test', names, count=3),
    'shots': (4,),
  }
  assert results(config, 'fruit') == {'4shot': 1, 'examples': 9}
  config.evals.fruit.data = 'digits:test'
  with pytest.raises(ValueError, match='has the classes'):
    results(config, 'fruit')
  config.evals.fruit.data = ''
  with pytest.raises(ValueError, match='needs "data" as well'):
    results(config, 'fruit')


def test_every_corruption_and_severity_is_read(config, tmp_path, monkeypatch):
  fields = {'corruption': ('fog', 'snow'), 'severity': (1, 2)}
  monkeypatch.setattr(corruption, 'ALEXNET', {'fog': 0.5, 'snow': 0.8})
  monkeypatch.setitem(corruption.FIELDS, 'corruption', fields['corruption'])
  monkeypatch.setitem(corruption.FIELDS, 'severity', fields['severity'])
  names = tuple('0123456789')
  for name in fields['corruption']:
    for severity in fields['severity']:
      folder(tmp_path / name / str(severity), names, count=1)
  config.evals.c = {
    'name': 'corruption',
    'data': f'{tmp_path}/{{corruption}}/{{severity}}',
  }
  result = results(config, 'c')
  # The same images everywhere: only AlexNet differs.
  assert result['ce_fog'] * 0.5 == pytest.approx(result['ce_snow'] * 0.8)
  assert result['mce'] > result['ce_snow']


def test_an_evaluation_may_have_its_own_preprocessing(config):
  config.evals.test = {
    'name': 'few_shot',
    'train': '',
    'data': 'digits:test[:30]',
    'preprocess': [{'name': 'resize', 'size': 8}],
  }
  with pytest.raises(ValueError, match=r'evals.test.preprocess \(8, 8, 3\)'):
    results(config, 'test')
  config.evals.test.preprocess = [
    {'name': 'resize', 'size': 2},
    {'name': 'resize', 'size': 16},
  ]
  blurred = results(config, 'test')
  del config.evals.test.preprocess
  assert results(config, 'test') != blurred


def test_an_optional_evaluation_is_left_out_with_one_warning(
  config, tmp_path, caplog
):
  absent = {'name': 'classification', 'data': f'{tmp_path}/imagenet-a'}
  config.evals.here = {'name': 'classification', 'data': 'digits:test[:20]'}
  config.evals.absent = {**absent, 'optional': True}
  with caplog.at_level(logging.WARNING, logger='vit_jax'):
    built = experiment.build(config.to_dict())
  assert built.evals.keys() == {'here'}
  said = [x for x in caplog.messages if 'absent' in x]
  assert len(said) == 1 and 'imagenet-a does not exist' in said[0]


def test_what_is_not_optional_must_be_there(config, tmp_path):
  config.evals.absent = {'name': 'classification', 'data': f'{tmp_path}/no'}
  with pytest.raises(data.AbsentError, match='does not exist'):
    experiment.build(config.to_dict())
  config.evals.absent.optional = False
  with pytest.raises(data.AbsentError, match='does not exist'):
    experiment.build(config.to_dict())


def test_a_mistake_in_an_optional_evaluation_stays_an_error(config):
  spec = {'name': 'classification', 'optional': True}
  config.evals.wrong = {**spec, 'data': 'tfds:imagenet_b:test'}
  with pytest.raises(ValueError, match="no data set 'imagenet_b'"):
    experiment.build(config.to_dict())


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    ({'data': ''}, 'config.evals.x has no "name"'),
    ({'name': 'knn'}, 'config.evals.x has no "data"'),
    ({'name': 'knn', 'data': 'digits'}, "'knn' needs 'train'"),
    (
      {'name': 'classification', 'data': 'digits', 'train': ''},
      "Unknown option of evaluator 'classification': 'train'",
    ),
  ],
)
def test_an_incomplete_evaluation_is_an_error(config, spec, message):
  config.evals.x = spec
  with pytest.raises(ValueError, match=message):
    experiment.build(config.to_dict())


def test_the_best_checkpoint_needs_a_certain_evaluation(config):
  spec = {'name': 'classification', 'data': 'digits:test', 'optional': True}
  config.evals.test = spec
  config.checkpoint.best = 'test/accuracy'
  with pytest.raises(ValueError, match="best='test' must not be an optional"):
    experiment.build(config.to_dict())


def prepare(name, data_dir, examples):
  """Prepares a data set of TFDS with its own features and a few images."""
  builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
  split = 'validation' if '2012' in name else 'test'
  builder._split_generators = lambda _: {split: enumerate(examples)}
  type(builder).url_infos = {}  # There is nothing to download.
  builder.download_and_prepare()


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """ImageNet-V2, -ReaL and -A, 12 images each, of 3, 2 and 2 classes."""
  data_dir = tmp_path_factory.mktemp('tfds')
  rng = np.random.default_rng(0)
  image = rng.integers(256, size=(12, 20, 20, 3), dtype=np.uint8)
  encoded = [cv2.imencode('.jpg', x)[1].tobytes() for x in image]
  rows = [{'image': x, 'file_name': str(i)} for i, x in enumerate(encoded)]
  for name, classes in ROBUSTNESS.items():
    prepare(
      name,
      data_dir,
      [
        row | {'label': classes[i % len(classes)]} for i, row in enumerate(rows)
      ],
    )
  real = [[], [1], [0, 999]]
  prepare(
    'imagenet2012_real',
    data_dir,
    [
      row | {'original_label': 0, 'real_label': real[i % 3]}
      for i, row in enumerate(rows)
    ],
  )
  return str(data_dir)


ROBUSTNESS = {
  'imagenet_v2/matched-frequency': [0, 1, 999],
  'imagenet_a': [6, 11],
}


def test_the_robustness_sets_that_tfds_prepared_are_judged(
  config, data_dir, caplog
):
  config.data.data_dir = data_dir
  config.data.train = 'tfds:imagenet_v2/matched-frequency:test'
  config.evals = evaluators.SUITES['robustness'](loss='softmax', size=16)
  with caplog.at_level(logging.WARNING, logger='vit_jax'):
    built = experiment.build(config.to_dict())
  absent = {'imagenet_r', 'imagenet_sketch', 'imagenet_c'}
  assert {message.split()[0] for message in caplog.messages} == absent
  params, state = jax.jit(built.objective.init)(
    jax.random.key(0), experiment.dummy_batch(built.image_shape, 'float32')
  )
  result = {name: run(params, state) for name, run in built.evals.items()}
  # A head of zeros prefers class 0, or the first of those that are present.
  assert result['imagenet_v2']['accuracy'] == pytest.approx(1 / 3)
  assert result['imagenet_a']['accuracy'] == pytest.approx(1 / 2)
  assert result['imagenet_real'] == {'accuracy': 0.5, 'examples': 8}
  assert result['imagenet_v2']['loss'] == pytest.approx(np.log(1000))
  assert result['imagenet_a']['loss'] == pytest.approx(np.log(2))


def test_the_robustness_sets_need_the_classes_of_imagenet(config, data_dir):
  config.data.data_dir = data_dir
  config.evals.v2 = {'name': 'classification', 'optional': True}
  config.evals.v2.data = 'tfds:imagenet_v2/matched-frequency:test'
  with pytest.raises(ValueError, match='other classes than the training data'):
    experiment.build(config.to_dict())
