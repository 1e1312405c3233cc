"""How much memory a step takes, known before it runs, and how to make it fit.

The compiler lays out every array of a step, so that the program itself says
what it needs. `config.accumulate = -1` leaves the number of micro-batches to
`settle`: it compiles the step with more and more of them and takes the first
that fits. The number is written into the run's record in place of the -1, and a
run that is resumed, or branches off, keeps it: another number would sum in
another order, and draw other random numbers.
"""

import logging
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax import checkpoint, optim, sharding
from vit_jax.experiment import Experiment, first_batch
from vit_jax.keys import AUTO
from vit_jax.step import Step, TrainState, jit_step, make_init
from vit_jax.types import Batch

logger = logging.getLogger(__name__)

GIB = 2**30
# Of what a device says that it has: the rest is for batches that wait, and for
# gaps between arrays.
SHARE = 0.95


class TooLargeError(ValueError):
  """The compiler itself found that a step does not fit into the device."""


class Usage(NamedTuple):
  """Memory of a program on one device, in bytes.

  Attributes:
    arguments: the state and a batch.
    temporaries: what lives during the step only: mostly activations.
    outputs: the new state and the metrics.
    aliased: of the outputs, what takes the place of arguments.
    program: the code.
  """

  arguments: int
  temporaries: int
  outputs: int
  aliased: int
  program: int

  @property
  def total(self) -> int:
    """What the device must have free."""
    new = self.outputs - self.aliased
    return self.arguments + self.temporaries + new + self.program


def abstract(experiment: Experiment) -> tuple[TrainState, Batch]:
  """What a step takes, as shapes that say where they belong."""
  config, mesh = experiment.config, experiment.mesh
  shapes = jax.eval_shape(make_init(experiment))
  sharding.check_split(shapes.params, mesh)
  one = first_batch(config, experiment.source, config['transforms'])
  split = sharding.batched(mesh)
  batch = {
    key: jax.ShapeDtypeStruct(
      (config['batch_size'], *x.shape[1:]), x.dtype, sharding=split
    )
    for key, x in one.items()
  }
  return sharding.annotate(shapes, mesh), batch


class Compiled(NamedTuple):
  """A step that was compiled, but not run.

  Attributes:
    step: what `jax.jit` made; called with such arrays, it does not compile
      again.
    program: a `jax.stages.Compiled`.
  """

  step: Any
  program: Any


def compile_step(experiment: Experiment) -> Compiled:
  """Compiles the step for the devices of the mesh, which need not be here.

  Raises:
    TooLargeError: if the compiler knows the device's memory, and it is not
      enough.
  """
  ts, batch = abstract(experiment)
  step = jit_step(experiment, ts)
  lowered = step.lower(ts, batch)
  try:
    return Compiled(step, lowered.compile())
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise TooLargeError(str(error).splitlines()[0]) from error


def usage(compiled: Compiled) -> Usage:
  """The memory of a step."""
  stats = compiled.program.memory_analysis()
  return Usage(
    arguments=stats.argument_size_in_bytes,
    temporaries=stats.temp_size_in_bytes,
    outputs=stats.output_size_in_bytes,
    aliased=stats.alias_size_in_bytes,
    program=stats.generated_code_size_in_bytes,
  )


def budget(memory_gib: float | None, devices: Sequence[Any]) -> int:
  """Bytes that a step may take on each device, the same in all processes.

  Args:
    memory_gib: what the user says, taken as it is; None to ask the devices.
    devices: those of the mesh that are this process's.

  Raises:
    ValueError: if neither says.
  """
  if memory_gib is not None:
    return int(memory_gib * GIB)
  told = [device.memory_stats() for device in devices]
  if not all(told):
    raise ValueError(
      f'config.accumulate={AUTO} needs to know the memory, and this '
      f'{devices[0].platform} does not tell: give --config.memory_gib=16, or '
      'a number of micro-batches, --config.accumulate=4.'
    )
  least = SHARE * min(stats['bytes_limit'] for stats in told)
  # In MiB: jax keeps 32 bits of an integer.
  shared = multihost_utils.process_allgather(np.int32(least / 2**20))
  return int(np.min(shared)) * 2**20


def with_accumulate(experiment: Experiment, parts: int) -> Experiment:
  """The same experiment with so many micro-batches.

  Raises:
    ValueError: if the batch does not split, or the optimiser cannot.
  """
  config = {**experiment.config, 'accumulate': parts}
  batch_size = config['batch_size']
  sharding.check_batch_size(batch_size, experiment.mesh, accumulate=parts)
  optim.check(
    experiment.optimizer,
    batch_size=batch_size,
    accumulate=parts,
    ema=config['ema'],
  )
  return experiment._replace(config=config)


def candidates(experiment: Experiment) -> list[Experiment]:
  """The experiment with each number of micro-batches that is possible."""
  rows = experiment.config['batch_size'] // sharding.num_shards(experiment.mesh)
  found = []
  for parts in range(1, rows + 1):
    try:
      found.append(with_accumulate(experiment, parts))
    except ValueError:  # does not divide
      continue
  return found


def fit(experiment: Experiment, *, limit: int) -> tuple[Experiment, Compiled]:
  """The fewest micro-batches with which a step fits, and that step.

  Args:
    experiment: with any number of them.
    limit: bytes of a device.

  Raises:
    ValueError: if none does.
  """
  tried = []
  for candidate in candidates(experiment):
    parts = candidate.config['accumulate']
    try:
      compiled = compile_step(candidate)
    except TooLargeError:
      tried.append(f'{parts}: more than the device has')
      continue
    found = usage(compiled)
    if found.total <= limit:
      # main shows warnings only.
      logger.warning(
        'config.accumulate=%d of %d images: %.2f of %.2f GiB a device.',
        *(parts, experiment.config['batch_size'] // parts),
        *(found.total / GIB, limit / GIB),
      )
      return candidate, compiled
    tried.append(
      f'{parts}: {found.total / GIB:.3g} GiB, {found.arguments / GIB:.3g} of '
      'them for the state and a batch'
    )
    if found.arguments > limit:  # which no number of micro-batches changes
      break
  raise ValueError(
    f'No number of micro-batches fits into {limit / GIB:.3g} GiB a device ('
    f'{"; ".join(tried)}). Split the state by config.mesh.fsdp, keep less by '
    'config.model.remat, or lower config.batch_size.'
  )


def settle(
  experiment: Experiment, *, runs: Sequence[str | pathlib.Path] = ()
) -> tuple[Experiment, Step | None]:
  """Puts a number in place of `config.accumulate = -1`.

  Args:
    experiment: may have one already.
    runs: directories; the first that holds a run says the number, as this run
      goes on from there. 'runs/other@1000' is one as well, and '' is none.

  Returns:
    The experiment, and its step, if that was compiled to find the number.

  Raises:
    ValueError: if no number fits, or the memory is not known.
  """
  config, mesh = experiment.config, experiment.mesh
  if config['accumulate'] != AUTO:
    return experiment, None
  for run in runs:
    directory = pathlib.Path(str(run).partition('@')[0])
    if run and (directory / checkpoint.RUN_FILE).exists():
      record = checkpoint.read_run(directory)
      parts = record['config']['accumulate']
      return with_accumulate(experiment, parts), None
  limit = budget(config['memory_gib'], mesh.local_devices)
  experiment, compiled = fit(experiment, limit=limit)
  return experiment, compiled.step
