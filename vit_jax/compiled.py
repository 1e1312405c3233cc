"""Compiled programs are kept on disk, so that the next start is a warm one.

The cache itself is jax's: https://docs.jax.dev/en/latest/persistent_compilation_cache.html
"""

import hashlib
import pathlib

import jax

CACHE = pathlib.Path('~/.cache/vit_jax/compiled').expanduser()
# The oldest programs go first; a large model has some tens of MB.
MAX_BYTES = 5 << 30


def keep(cache: pathlib.Path = CACHE) -> None:
  """Keeps from now on what takes more than a second to compile.

  Wherever the user has told jax another directory, as by
  JAX_COMPILATION_CACHE_DIR, or JAX_ENABLE_COMPILATION_CACHE=false, that holds.

  Args:
    cache: the directory; each kind of machine has one of its own in it.
  """
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(cache / _machine()))
    jax.config.update('jax_compilation_cache_max_size', MAX_BYTES)


def _machine() -> str:
  """A name of this kind of CPU: jax takes programs of any other for its own."""
  lines = ()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    lines = {
      line
      for line in info.read_text().splitlines()
      if line.startswith(('model name', 'flags', 'Features', 'CPU part'))
    }
  return hashlib.sha256('\n'.join(sorted(lines)).encode()).hexdigest()[:12]
