"""Programs are kept on disk between processes, where the user wants them."""

import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = """
import pathlib, sys
import jax
from vit_jax import compiled
compiled.keep(pathlib.Path(sys.argv[1]))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
counts = {'hits': 0}
def listen(event, **_):
  counts['hits'] += event == '/jax/compilation_cache/cache_hits'
jax.monitoring.register_event_listener(listen)
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((8, 8)))
print(counts['hits'])
"""


def hits(cache, **variables):
  """How many programs a new process finds."""
  env = {k: v for k, v in os.environ.items() if 'CACHE' not in k}
  out = subprocess.run(
    [sys.executable, '-c', PROGRAM, str(cache)],
    check=True,
    capture_output=True,
    text=True,
    env=env | variables,
  )
  return int(out.stdout)


def test_the_second_process_finds_what_the_first_compiled(tmp_path):
  assert hits(tmp_path) == 0
  assert hits(tmp_path) > 0


@pytest.mark.parametrize(
  'variable', ['JAX_COMPILATION_CACHE_DIR', 'JAX_ENABLE_COMPILATION_CACHE']
)
def test_what_the_user_told_jax_holds(tmp_path, variable):
  other = tmp_path / 'other'
  values = {
    'JAX_COMPILATION_CACHE_DIR': str(other),
    'JAX_ENABLE_COMPILATION_CACHE': 'false',
  }
  ours = tmp_path / 'ours'
  hits(ours, **{variable: values[variable]})
  assert not list(pathlib.Path(ours).rglob('*-cache'))
  assert bool(list(other.rglob('*-cache'))) == (variable in list(values)[:1])
