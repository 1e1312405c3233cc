"""What several tests of runs and of their checkpoints share."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vit_jax import metrics, sharding, train

TIMES = {
  *('images_per_second', 'step_seconds', 'data_seconds', 'compute_seconds'),
}
ROOT = pathlib.Path(__file__).parent.parent
SECONDS = 240  # no process lives longer, on however busy a machine
# The fixture `tiny_config` as flags of the command.
TINY = (
  *('--config=configs/quickstart.py', '--config.duration=6 steps'),
  '--noreport',
  *('--config.batch_size=16', '--config.eval_batch_size=64'),
  *('--config.model.width=16', '--config.model.depth=2'),
  *('--config.model.mlp_dim=16', '--config.model.num_heads=2'),
  *('--config.eval_every=3 steps', '--config.log_every=1 steps'),
  '--config.checkpoint.every=2 steps',
  '--config.data.train=digits:train[:64]',
  '--config.evals.test.data=digits:test[:50]',
)


def state(value=0.0):
  return {
    'step': jnp.int32(value),
    'params': {'kernel': value + jnp.arange(16.0).reshape(8, 2)},
    'state': {},
    'opt_state': (jnp.full(8, value), None),
    'ema': None,
  }


def without_times(workdir):
  """The rows of a run, without what a clock says."""
  rows = metrics.read_rows(workdir / 'metrics.jsonl')
  return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def stop(config, workdir, monkeypatch, *, evaluation):
  """Trains until an evaluation, counted from 1, is interrupted."""
  calls = []

  def interrupted(*args):
    calls.append(args)
    if len(calls) == evaluation:
      raise KeyboardInterrupt
    return evaluate(*args)

  evaluate = train.evaluate
  with monkeypatch.context() as patch:
    patch.setattr(train, 'evaluate', interrupted)
    with pytest.raises(KeyboardInterrupt):
      train.train(config, workdir)


def free_port():
  """A port that nobody has; the kernel does not give it again for a while."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


@contextlib.contextmanager
def started(command, *, count, devices=1, ids=None, output=subprocess.PIPE):
  """Starts the processes of one run; afterwards none of them is left."""
  meeting = (
    f'--coordinator=127.0.0.1:{free_port()}',
    f'--num_processes={count}',
  )
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': str(devices),
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # for a fast compilation
    'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  running = []
  try:
    for i in range(count) if ids is None else ids:
      running.append(
        subprocess.Popen(
          [sys.executable, *command, *meeting, f'--process_id={i}'],
          cwd=ROOT,
          env=environment,
          text=True,
          stdout=output,
          stderr=subprocess.STDOUT,
          start_new_session=True,
        )
      )
    yield running
  finally:
    for process in running:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.communicate()


def ends(running):
  """Waits for all; returns their exit codes and what they said."""
  until = time.monotonic() + SECONDS
  said = [p.communicate(timeout=until - time.monotonic())[0] for p in running]
  return [p.returncode for p in running], said


def arrays(workdir, step):
  """Everything of a checkpoint: model, optimiser and step."""
  trees = []
  with ocp.StandardCheckpointer() as reader:
    for item in ('model', 'optimizer'):
      path = workdir / 'checkpoints' / str(step) / item
      # Not where they were: those devices are not here.
      shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
          x.shape, x.dtype, sharding=sharding.first_device()
        ),
        reader.metadata(path).item_metadata.tree,
      )
      trees.append(reader.restore(path, shapes))
  return jax.tree.leaves_with_path(trees)


def assert_same_checkpoint(one, other, *, step):
  for (path, a), (same_path, b) in zip(
    arrays(one, step), arrays(other, step), strict=True
  ):
    assert path == same_path
    np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
