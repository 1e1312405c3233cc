"""What several tests of runs and of their checkpoints share."""

import jax.numpy as jnp
import pytest

from vit_jax import metrics, train

TIMES = {
  *('images_per_second', 'step_seconds', 'data_seconds', 'compute_seconds'),
}


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
