"""Strict settings for every test: eight devices on the CPU, no silent NaN."""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# By the environment, so that the processes that tests start have them as well.
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(
  pathlib.Path(__file__).parent.parent / '.cache' / 'jax'
)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_nans', True)


@pytest.fixture
def tiny_config():
  """The quickstart, shrunk: 6 steps of 16 digits through one narrow block."""
  from configs import quickstart

  config = quickstart.get_config()
  config.duration = '6 steps'
  config.batch_size = 16
  config.model.width = 16
  config.model.depth = 2
  config.model.mlp_dim = 16
  config.model.num_heads = 2
  config.eval_batch_size = 64
  config.eval_every = '3 steps'
  config.log_every = '1 steps'
  config.checkpoint.every = '2 steps'
  config.data.train = 'digits:train[:64]'
  config.evals.test.data = 'digits:test[:50]'
  return config
