"""The batches of a run, as global arrays: from the host, or on the devices.

With `config.loader.on_device` all examples are transformed once and put onto
every device, and a step gathers its rows there: for small images (CIFAR-10
takes 154 MB). The host only says which examples come next. The batches are
those that the host would load, to the bit, so a run may go on with or without.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from vit_jax import data, sharding
from vit_jax.experiment import Experiment
from vit_jax.types import Batch


def batches(
  experiment: Experiment, *, first_step: int, left_out: int = 0
) -> Iterator[Batch]:
  """Yields the batches of the steps that are left.

  Args:
    experiment: the data, the batch size and the mesh.
    first_step: how many steps were taken.
    left_out: how many batches of the data came in none of them.

  Raises:
    ValueError: see `data.pipeline`.
  """
  config, mesh = experiment.config, experiment.mesh
  loader = dict(config['loader'])
  on_device = loader.pop('on_device')
  index, count = sharding.share(mesh)
  order = {
    'batch_size': config['batch_size'],
    'seed': config['seed'],
    'start': first_step + left_out,
    'steps': experiment.total_steps - first_step,
    'repeats': config['data']['repeats'],
    'process_index': index,
    'process_count': count,
  }
  transform = data.build_transforms(config['transforms'])
  if on_device:
    del loader['scaled_decoding']  # only once, so at full quality
    examples = data.all_of(experiment.source, transform, **loader)
    return _gathered(examples, order, mesh)
  found = data.pipeline(experiment.source, transform, **loader, **order)
  return (sharding.put(batch, mesh) for batch in found)


def _gathered(
  examples: dict[str, np.ndarray], order: dict[str, Any], mesh: Any
) -> Iterator[Batch]:
  """Yields batches of examples that are on every device."""
  steps = data.indices(examples.pop('mask') > 0, **order)
  examples = sharding.replicate(examples, mesh)
  # Arguments, not constants of the program; each device takes its own rows.
  gather = jax.jit(
    lambda examples, index: jax.tree.map(lambda x: x[index], examples)
  )
  for index in steps:
    mask = np.ones(len(index), np.float32)
    rows = sharding.put({'index': index, 'mask': mask}, mesh)
    yield {**gather(examples, rows['index']), 'mask': rows['mask']}
