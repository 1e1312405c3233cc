"""Strict settings for every test: eight devices on the CPU, no silent NaN."""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_nans', True)
jax.config.update(
  'jax_compilation_cache_dir',
  str(pathlib.Path(__file__).parent.parent / '.cache' / 'jax'),
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
