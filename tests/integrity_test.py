"""What happens to a checkpoint between its writing and its reading."""

import errno
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from tests.runs import state
from vit_jax import checkpoint, divergence, integrity, metrics, sharding
from vit_jax.train import train
from vit_jax.trained import load

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'run.tar.gz'


def save(workdir, steps, **options):
  with checkpoint.Checkpoints(workdir, **options) as checkpoints:
    for step in steps:
      checkpoints.save(step, state(step), metrics={'loss': 1.0})


def restore(workdir):
  """The newest checkpoint, as a run that goes on reads it."""
  with checkpoint.Checkpoints(workdir, keep=9) as checkpoints:
    step = checkpoints.latest()
    shapes = sharding.annotate(jax.eval_shape(state), sharding.make_mesh())
    return step, checkpoints.restore(step, shapes)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A run with the checkpoints 1, 2 and 3; not to be changed."""
  workdir = tmp_path_factory.mktemp('saved')
  save(workdir, [1, 2, 3], keep=3, best='loss')
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  shutil.copytree(saved, tmp_path / 'run')
  return tmp_path / 'run'


def warnings(caplog):
  """Those of the house."""
  return [x.getMessage() for x in caplog.records if 'vit_jax' in x.name]


def path_of(workdir, step):
  return workdir / 'checkpoints' / str(step)


def files(directory):
  return sorted(p for p in directory.rglob('*') if p.is_file())


def halve(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, *, at=0.5):
  """Flips one bit."""
  data = bytearray(path.read_bytes())
  data[int(at * len(data))] ^= 16
  path.write_bytes(data)


DAMAGES = {
  'truncated': halve,
  'emptied': lambda path: path.write_bytes(b''),
  'flipped at the start': lambda path: flip(path, at=0),
  'flipped inside': flip,
  'flipped at the end': lambda path: flip(path, at=0.9999),
  'deleted': lambda path: path.unlink(),
}


@pytest.mark.parametrize('kind', DAMAGES)
def test_every_damage_to_every_file_is_noticed(workdir, kind):
  whole = path_of(workdir, 3)
  assert integrity.damage(whole) == ''
  names = [path.relative_to(whole) for path in files(whole)]
  assert len(names) >= 20 and pathlib.Path('metrics/metrics') in names
  for name in names:
    copy = whole.with_name('copy')
    shutil.copytree(whole, copy)
    DAMAGES[kind](copy / name)
    wrong = integrity.damage(copy)
    if name.name != integrity.SUMS:
      assert wrong.startswith(f'{name} '), (name, wrong)
    assert wrong, name
    shutil.rmtree(copy)


def test_a_checkpoint_that_lost_any_half_of_its_files_is_noticed(workdir):
  """As when its deletion was interrupted."""
  draw = np.random.default_rng(0)
  whole = path_of(workdir, 3)
  for _ in range(20):
    copy = whole.with_name('copy')
    shutil.copytree(whole, copy)
    there = files(copy)
    for i in draw.permutation(len(there))[: len(there) // 2]:
      there[i].unlink()
    assert integrity.damage(copy)
    shutil.rmtree(copy)


def test_a_file_that_was_not_written_is_noticed_unless_it_is_hidden(workdir):
  (path_of(workdir, 3) / 'model' / '.nfs0001').touch()
  assert not integrity.damage(path_of(workdir, 3))
  (path_of(workdir, 3) / 'model' / 'other').touch()
  wrong = integrity.damage(path_of(workdir, 3))
  assert wrong == f'model/other is not in {integrity.SUMS}'


def test_the_sums_are_those_of_sha256sum(workdir):
  command = ['sha256sum', '--check', '--strict', integrity.SUMS]
  subprocess.run(command, cwd=path_of(workdir, 3), check=True)


@pytest.mark.parametrize(
  'name', ['model/manifest.ocdbt', '_CHECKPOINT_METADATA']
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
  workdir, caplog, name
):
  flip(path_of(workdir, 3) / name)
  before = [p.read_bytes() for p in files(path_of(workdir, 3))]
  step, tree = restore(workdir)
  assert step == 2
  jax.tree.map(np.testing.assert_array_equal, tree, state(2))
  (said,) = warnings(caplog)
  assert f'{path_of(workdir, 3)} is damaged: {name} has changed.' in said
  assert said.endswith('It is set aside as 3.damaged.')
  aside = workdir / 'checkpoints' / '3.damaged'
  assert [p.read_bytes() for p in files(aside)] == before
  # The run comes by there again, and again something happens.
  save(workdir, [3], keep=9)
  assert checkpoint.steps(workdir) == [1, 2, 3]
  halve(path_of(workdir, 3) / name)
  assert restore(workdir)[0] == 2
  assert (workdir / 'checkpoints' / '3.damaged-2').is_dir()
  assert [p.read_bytes() for p in files(aside)] == before


def test_of_older_checkpoints_the_large_files_are_not_read(
  workdir, monkeypatch
):
  """But those that say what it is, which orbax reads as well."""
  monkeypatch.setattr(integrity, 'SMALL', 200)
  large = path_of(workdir, 1) / 'model' / '_METADATA'
  assert large.stat().st_size > 200
  flip(large)
  flip(path_of(workdir, 2) / 'metrics' / 'metrics')
  assert restore(workdir)[0] == 3
  assert checkpoint.steps(workdir) == [1, 3]
  # It is when somebody asks for it.
  with pytest.raises(ValueError, match=r'model/_METADATA has changed.*\[3\]'):
    checkpoint.read_model(workdir, step=1)


def test_a_run_of_which_nothing_is_whole_does_not_start_over(workdir):
  for step in (1, 2, 3):
    flip(path_of(workdir, step) / 'model' / '_METADATA')
  for _ in range(2):
    with pytest.raises(ValueError, match=r'only 1.damaged, 2.damaged, 3.dam'):
      restore(workdir)
  (workdir / 'checkpoints' / '2.damaged').rename(path_of(workdir, 2))
  flip(path_of(workdir, 2) / 'model' / '_METADATA')  # mended
  assert restore(workdir)[0] == 2


def test_of_damaged_checkpoints_the_newest_stay(workdir, monkeypatch, caplog):
  monkeypatch.setattr(integrity, 'KEPT_ASIDE', 2)
  checkpoints = workdir / 'checkpoints'
  for age, name in enumerate(('9.damaged', '8.damaged', '9.damaged-2')):
    (checkpoints / name).mkdir()
    os.utime(checkpoints / name, (0, 1000 - age))
  integrity.keep_whole(checkpoints)
  left = {path.name for path in checkpoints.glob('*.damaged*')}
  assert left == {'9.damaged', '8.damaged'}
  assert '9.damaged-2 was set aside' in warnings(caplog)[0]


def test_tools_refuse_a_damaged_model_and_change_nothing(workdir):
  flip(path_of(workdir, 3) / 'optimizer' / '_METADATA')
  checkpoint.read_model(workdir)  # it does not need that
  halve(path_of(workdir, 3) / 'model' / '_METADATA')
  run = {'config': {}, 'class_names': [], 'image_shape': []}
  (workdir / 'run.json').write_text(json.dumps(run))
  with pytest.raises(ValueError) as error:
    load(workdir)
  said = str(error.value)
  assert 'is damaged: model/_METADATA has changed. There are others' in said
  assert '[1, 2]' in said and '\n' not in said
  assert checkpoint.steps(workdir) == [1, 2, 3]
  with pytest.raises(ValueError, match='is damaged'):
    checkpoint.branch(
      workdir.parent / 'new',
      str(workdir),
      total_steps=9,
      **run,
    )


def test_hashing_does_not_hold_up_the_training(tmp_path, monkeypatch):
  threads = []

  def seal(directory):
    threads.append(threading.current_thread())
    original(directory)

  original = integrity.seal
  monkeypatch.setattr(integrity, 'seal', seal)
  save(tmp_path, [1])
  assert len(threads) == 1 and threads[0] is not threading.main_thread()


@pytest.mark.parametrize('when', ['before', 'after'])
def test_a_full_disk_is_one_line_and_what_was_there_stays(
  tmp_path, monkeypatch, when
):
  """Here only the last file finds no room; then, room is made."""

  def no_room(directory):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with pytest.raises(OSError, match='No space left on device. ') as error:
    with checkpoint.Checkpoints(tmp_path, keep=1) as checkpoints:
      if when == 'after':
        checkpoints.save(1, state(1), metrics={})
        checkpoints.latest()
      monkeypatch.setattr(integrity, 'seal', no_room)
      checkpoints.save(2, state(2), metrics={})
      checkpoints.save(3, state(3), metrics={})
  there = [1] if when == 'after' else []
  text = str(error.value)
  assert '\n' not in text and 'the same command again' in text
  assert ('steps [1] are whole' if there else 'there is none') in text
  assert checkpoint.steps(tmp_path) == there
  monkeypatch.undo()
  save(tmp_path, [3], keep=1)
  assert os.listdir(tmp_path / 'checkpoints') == ['3']
  assert restore(tmp_path)[0] == 3


def test_a_write_that_failed_is_told_before_the_next_one(tmp_path, monkeypatch):
  """By whoever asks first: the steps in between, or the end."""

  def no_room(directory):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(integrity, 'seal', no_room)
  with (
    pytest.raises(integrity.WriteError),
    checkpoint.Checkpoints(tmp_path) as checkpoints,
  ):
    checkpoints.save(1, state(1), metrics={})
    while checkpoints._manager.is_saving_in_progress():
      checkpoints.check()
    checkpoints.check()
    pytest.fail('It is silent.')
  with (
    pytest.raises(integrity.WriteError),
    checkpoint.Checkpoints(tmp_path) as checkpoints,
  ):
    checkpoints.save(1, state(1), metrics={})


def test_what_is_not_finite_is_neither_written_nor_read(tmp_path, monkeypatch):
  save(tmp_path, [1], keep=9)
  bad = state(2) | {'params': {'kernel': jnp.full((8, 2), jnp.inf)}}
  with checkpoint.Checkpoints(tmp_path, keep=9) as checkpoints:
    with pytest.raises(
      divergence.Diverged, match='params/kernel is not finite'
    ):
      checkpoints.save(2, bad, metrics={})
    assert checkpoints.latest() == 1
    # As an earlier version would have.
    with monkeypatch.context() as patch:
      patch.setattr(divergence, 'not_finite', lambda _: [])
      checkpoints.save(2, bad, metrics={})
  message = r'checkpoints/2 is of a run that diverged: params/kernel.*\[1\]'
  with pytest.raises(ValueError, match=message):
    checkpoint.read_model(tmp_path)
  with pytest.raises(ValueError, match=message):
    restore(tmp_path)
  shutil.move(path_of(tmp_path, 2), tmp_path)
  assert restore(tmp_path)[0] == 1


def test_a_run_of_an_earlier_version_goes_on(tmp_path, caplog):
  """Its losses too; see tests/golden/make_run.py for what is in the file."""
  with tarfile.open(GOLDEN) as archive:
    archive.extractall(tmp_path, filter='data')
  log = tmp_path / 'metrics.jsonl'
  expected = metrics.read_rows(log)
  assert not (path_of(tmp_path, 4) / integrity.SUMS).exists()
  log.write_text(log.read_text().partition('{"step": 5')[0])
  run = json.loads((tmp_path / 'run.json').read_text())
  config = ml_collections.ConfigDict(run['config'])
  config.on_divergence = 'stop'  # these three are younger than that run
  config.memory_gib = None
  config.watch = ''
  train(config, tmp_path)
  found = metrics.read_rows(log)
  assert [row['step'] for row in found] == [row['step'] for row in expected]
  for row, before in zip(found, expected, strict=True):
    for name in ('train/loss', 'train/learning_rate', 'test/loss'):
      if name in before:
        assert row[name] == pytest.approx(before[name], rel=1e-4), row['step']
  assert not warnings(caplog)
  # And from then on as any other.
  assert checkpoint.steps(tmp_path) == [4, 6]
  assert (path_of(tmp_path, 6) / integrity.SUMS).exists()


@pytest.mark.slow
def test_a_run_on_a_full_disk_stops_and_goes_on_when_there_is_room(tmp_path):
  """On a file system of 1 MiB, in a name space of its own."""
  options = (
    *('--config=configs/quickstart.py', f'--workdir={tmp_path}/run'),
    *('--config.duration=40 steps', '--config.log_every=1 steps'),
    *('--config.checkpoint.every=2 steps', '--config.checkpoint.keep=99'),
    *('--config.model.depth=1', '--config.model.width=16'),
    *('--config.model.mlp_dim=16', '--config.model.num_heads=2'),
    *('--config.batch_size=8', '--config.data.train=digits:train[:64]'),
    *('--config.evals={}', '--config.checkpoint.best='),
  )
  train = shlex.join([sys.executable, '-m', 'vit_jax.main', *options])
  script = f"""
    mount -t tmpfs -o size=1m none {tmp_path} || exit 77
    {train}; echo "first $?"; ls {tmp_path}/run/checkpoints
    mount -o remount,size=200m {tmp_path}
    {train}; ls {tmp_path}/run/checkpoints
  """
  done = subprocess.run(
    ['unshare', '-rm', 'bash', '-c', script],
    cwd=ROOT,
    env=os.environ
    | {
      'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # for a fast compilation
      'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
    },
    capture_output=True,
    text=True,
  )
  if done.returncode == 77:
    pytest.skip('No file system may be mounted here.')
  (error,) = [x for x in done.stderr.splitlines() if x.startswith('Error: ')]
  assert 'could not be written' in error
  assert 'No space left on device. ' in error
  assert 'the same command again' in error
  before, after = done.stdout.split('first 1\n')
  whole = [x for x in after.splitlines() if x.isdigit()]
  assert len(whole) > 20 and whole.count('2') == 2  # before, and at the end
  assert 'Done: ' in after and 'Done: ' not in before
