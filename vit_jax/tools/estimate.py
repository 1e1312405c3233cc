"""What a training step takes of a chip: memory, operations, bytes, seconds."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from vit_jax import chips, experiment, hlo, memory, sharding
from vit_jax.ops import flops
from vit_jax.step import make_step
from vit_jax.tools.grey import grey_source


class Plan(NamedTuple):
  """What a step takes of one chip.

  Attributes:
    settings: what it was compiled with, by the key of the config.
    images: of a step, over all chips.
    flops: of matrix products, with what `remat` computes again.
    model_flops: without that.
    traffic: what it moves.
    usage: of memory; None if the compiler refused.
    limit: of memory, in bytes; None if nobody knows.
    seconds: that compiling took.
    refusal: what the compiler said instead.
  """

  settings: Mapping[str, Any]
  images: int
  flops: float
  model_flops: float
  traffic: hlo.Traffic
  usage: memory.Usage | None
  limit: int | None
  seconds: float
  refusal: str = ''

  @property
  def fits(self) -> bool:
    """Whether it fits, as far as is known."""
    if self.usage is None:
      return False
    return self.limit is None or self.usage.total <= self.limit


class Roofline(NamedTuple):
  """Least seconds of a step for each of three things that it does.

  Attributes:
    products: matrix products at the bfloat16 peak.
    memory: bytes through the bandwidth of HBM.
    links: bytes sent through the bandwidth of all links together.
  """

  products: float
  memory: float
  links: float

  @property
  def overlapped(self) -> float:
    """If the three run side by side: no step is faster."""
    return max(self)

  @property
  def apart(self) -> float:
    """If the links wait for the others."""
    return max(self.products, self.memory) + self.links


def roofline(plan: Plan, chip: chips.Chip) -> Roofline | None:
  """The least times of a step; None if the chip's bandwidths are not known."""
  if chip.memory_bandwidth is None or chip.link_bandwidth is None:
    return None
  return Roofline(
    plan.flops / chip.peak_flops,
    plan.traffic.memory / chip.memory_bandwidth,
    sum(plan.traffic.sent.values()) / chip.link_bandwidth,
  )


def build(
  config: experiment.Config,
  *,
  devices: Sequence[jax.Device],
  num_classes: int | None = None,
) -> experiment.Experiment:
  """The experiment without its evaluations, on grey images if need be.

  Args:
    config: as for `experiment.build`.
    devices: of the mesh.
    num_classes: of grey images, which then take the place of the data.

  Raises:
    ValueError: see `experiment.build`.
  """
  config = {
    **config,
    'evals': {},
    'checkpoint': {**config['checkpoint'], 'best': ''},
  }
  source = grey_source(config['data'], num_classes=num_classes)
  return experiment.build(config, devices=devices, source=source)


def estimate(built: experiment.Experiment, *, limit: int | None) -> Plan:
  """Compiles a step and reads what it takes.

  Args:
    built: the experiment, with a number of micro-batches.
    limit: bytes of a chip.
  """
  config, mesh = built.config, built.mesh
  shape = {f'mesh.{axis}': mesh.shape[axis] for axis in sharding.AXES}
  remat = {'remat': 'none', **config['model']}['remat']
  found = Plan(
    settings={
      **shape,
      'model.remat': remat,
      'accumulate': config['accumulate'],
    },
    images=config['batch_size'],
    flops=flops.count(make_step(built), *memory.abstract(built)) / mesh.size,
    model_flops=built.flops * config['batch_size'] / mesh.size,
    traffic=hlo.Traffic(),
    usage=None,
    limit=limit,
    seconds=0.0,
  )
  began = time.monotonic()
  try:
    compiled = memory.compile_step(built)
  except memory.TooLargeError as error:
    seconds = time.monotonic() - began
    return found._replace(refusal=str(error), seconds=seconds)
  return found._replace(
    seconds=time.monotonic() - began,
    usage=memory.usage(compiled),
    traffic=hlo.traffic(compiled.program.as_text()),
  )


def memory_limit(
  device: jax.Device, chip: chips.Chip | None, *, here: bool
) -> int | None:
  """Bytes of a device: what it says, or what its vendor says."""
  stats = device.memory_stats() if here else None
  if stats:
    return stats['bytes_limit']
  return chip.memory if chip else None
