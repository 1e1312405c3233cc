"""A run that is killed and started again equals one that never stopped."""

import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vit_jax import metrics

STEPS = 60
COMMAND = (
  *(sys.executable, '-m', 'vit_jax.main', '--config=configs/quickstart.py'),
  f'--config.duration={STEPS} steps',
  '--config.batch_size=16',
  '--config.log_every=5 steps',
  '--config.eval_every=10 steps',
  '--config.checkpoint.every=7 steps',
  '--noreport',
)
TIMES = {
  *('images_per_second', 'step_seconds', 'data_seconds', 'compute_seconds'),
}


def start(workdir):
  return subprocess.Popen(
    [*COMMAND, f'--workdir={workdir}'],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
  )


def finish(workdir):
  process = start(workdir)
  _, errors = process.communicate()
  assert process.returncode == 0, errors.decode()


def arrays(workdir):
  """Everything of the last checkpoint: model, optimiser and step."""
  path = workdir / 'checkpoints' / str(STEPS)
  with ocp.StandardCheckpointer() as reader:
    trees = [reader.restore(path / item) for item in ('model', 'optimizer')]
  return jax.tree_util.tree_leaves_with_path(trees)


def rows(workdir):
  """All reports, without what a clock says."""
  return [
    {name: value for name, value in row.items() if name not in TIMES}
    for row in metrics.read_rows(workdir / 'metrics.jsonl')
  ]


def assert_equal_runs(one, other):
  for (path, a), (same_path, b) in zip(arrays(one), arrays(other), strict=True):
    assert path == same_path
    np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
  assert rows(one) == rows(other)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('uninterrupted')
  finish(workdir)
  return workdir


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_bit_identical(
  uninterrupted, tmp_path
):
  """Five times SIGKILL, from the start of a process to its last step."""
  seed = random.randrange(2**32)
  print(f'{seed=}')  # shown when the test fails
  draw = random.Random(seed)
  kills = []
  while len(kills) < 5:
    process = start(tmp_path)
    log = tmp_path / 'metrics.jsonl'
    known = len(metrics.read_rows(log))
    # Waits for the first report, or the kills would all hit the compilation.
    while process.poll() is None and len(metrics.read_rows(log)) <= known:
      time.sleep(0.05)
    time.sleep(draw.uniform(0, 0.6))
    if process.poll() is not None:
      break
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = metrics.read_rows(log)
    kills.append(last[-1]['step'] if last else 0)
  print(f'killed after the reports of steps {kills}')
  assert len(kills) >= 3
  finish(tmp_path)
  assert_equal_runs(uninterrupted, tmp_path)
