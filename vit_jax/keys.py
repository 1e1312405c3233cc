"""Every key that a config has, and what can be wrong with one by itself.

What `model`, `objective`, `optim`, `transforms`, `augment` and `evals` hold is
checked where they are built.
"""

from collections.abc import Mapping
from typing import Any

from vit_jax import data, divergence, sharding
from vit_jax.lookup import unknown

# For `accumulate`: as many micro-batches as the memory asks for.
AUTO = -1

# Every key that a config has; configs/common.py says what they mean.
KEYS = (
  *('seed', 'duration', 'batch_size', 'accumulate', 'dtype', 'ema', 'model'),
  *('objective', 'optim', 'init', 'data', 'loader', 'transforms', 'preprocess'),
  *('augment', 'normalize', 'evals', 'eval_batch_size', 'eval_every'),
  *('log_every', 'checkpoint', 'on_divergence', 'mesh', 'memory_gib', 'wandb'),
  'watch',
)
# What `watch` may name, see vit_jax/watch.py.
VIEWS = ('attention', 'batch', 'histograms')
DTYPES = ('bfloat16', 'float16', 'float32')
SECTIONS = {
  'checkpoint': ('every', 'keep', 'best', 'best_mode'),
  'data': ('train', 'validation', 'held_out', 'seed', 'data_dir', 'repeats'),
  'init': (
    *('run', 'params', 'head', 'classes', 'resample', 'loaded_grid'),
    *('cache_dir', 'teacher'),
  ),
  'loader': (
    *('num_threads', 'num_workers', 'on_bad_image', 'scaled_decoding'),
    *('on_device', 'timeout'),
  ),
  'mesh': sharding.AXES,
  'normalize': ('mean', 'std'),
}


def check_keys(config: Mapping[str, Any]) -> None:
  """Raises a ValueError if a key of the config is unknown or missing."""
  for key in config:
    if key not in KEYS:
      raise unknown(key, known=KEYS, kind='config key')
  for key in KEYS:
    if key not in config:
      raise ValueError(
        f'The config lacks {key!r}; start from configs.common.get_config().'
      )
  for section, known in SECTIONS.items():
    for key in config[section]:
      if key not in known:
        raise unknown(key, known=known, kind=f'key of config.{section}')
  if config['dtype'] not in DTYPES:
    raise unknown(config['dtype'], known=DTYPES, kind='dtype')
  parts = config['accumulate']
  if parts != AUTO and parts < 1:
    raise ValueError(
      f'config.accumulate={parts} is no number of micro-batches: give 1 or '
      f'more, or {AUTO} for as many as the memory asks for.'
    )
  for view in views(config):
    if view not in VIEWS:
      raise unknown(view, known=VIEWS, kind='name in config.watch')
  policy = config['on_divergence']
  if policy not in divergence.POLICIES:
    raise unknown(policy, known=divergence.POLICIES, kind='on_divergence')
  if not 0 <= config['ema'] < 1:
    raise ValueError(f'config.ema={config["ema"]} is not in [0, 1).')
  if config['init']['run'] and config['init']['params']:
    raise ValueError(
      'config.init.run brings its own parameters: leave config.init.params '
      'empty, or give it alone.'
    )
  given = {'teacher': '', **config['init']}['teacher']
  if ('teacher' in config['objective']) != bool(given):
    raise ValueError(
      f'config.init.teacher={given!r} goes together with '
      'config.objective.teacher: give both, a run directory, a name, a path or '
      "an address ('random' for an untrained one), and the model that it is."
    )
  best, _, _ = config['checkpoint']['best'].partition('/')
  if best and best not in config['evals']:
    raise unknown(best, known=config['evals'], kind='eval in checkpoint.best')
  if best and is_optional(config['evals'][best]):
    raise ValueError(f'checkpoint.best={best!r} must not be an optional eval.')
  if config['loader']['on_device']:
    data.check_fixed(config['transforms'])
  for name, options in config['evals'].items():
    if 'name' not in options:
      raise ValueError(f'config.evals.{name} has no "name", of an evaluator.')
    if 'data' not in options:
      raise ValueError(
        f'config.evals.{name} has no "data": give an address, or "" for what '
        'is held out of the training data.'
      )


def views(config: Mapping[str, Any]) -> list[str]:
  """The names in config.watch."""
  return [name.strip() for name in config['watch'].split(',') if name.strip()]


def is_optional(options: Mapping[str, Any]) -> bool:
  """Whether an evaluation is left out where its data are absent."""
  return bool('optional' in options and options['optional'])
