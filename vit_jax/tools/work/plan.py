"""Compiles a training step and says what it takes."""

import argparse
import dataclasses
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import rich.box
import rich.table

from vit_jax import chips, compiled, main, memory, models
from vit_jax.models.scan import REMAT
from vit_jax.tools import show
from vit_jax.tools.estimate import (
  Plan,
  build,
  estimate,
  memory_limit,
  roofline,
)
from vit_jax.tools.work import gpus

GENERATIONS = ('v4', 'v5e', 'v5p', 'v6e')
# Two cores of a chip work as one device. libtpu's default of v4 is two.
MEGACORE = ('v4', 'v5p')


def topology(name: str) -> Sequence[jax.Device]:
  """The devices of a TPU slice or a host of GPUs, to compile for.

  Neither is needed. Must come before jax looks for devices.

  Args:
    name: GENERATION:XxY or GENERATION:XxYxZ, in chips; or as for
      `gpus.topology`.

  Raises:
    ValueError: if there is no such slice, or its compiler is not installed.
  """
  if gpus.are_meant(name):
    return gpus.topology(name)
  generation, _, _ = name.partition(':')
  if generation not in GENERATIONS:
    raise ValueError(
      f'Unknown --topology={name!r}: write GENERATION:SHAPE in chips, such as '
      f'v5p:4x4x8 or v5e:16x16, of {", ".join(GENERATIONS)}; or h100 or h200, '
      'or up to eight of them, such as h100:8.'
    )
  try:
    import libtpu
  except ImportError as error:
    raise ValueError(
      '--topology needs libtpu, which compiles for TPUs without one: '
      'pip install -r requirements-plan.txt'
    ) from error
  from jax.experimental import topologies

  os.environ['TPU_LIBRARY_PATH'] = libtpu.get_library_path()
  os.environ['TPU_SKIP_MDS_QUERY'] = '1'  # no cloud to ask
  os.environ['ALLOW_MULTIPLE_LIBTPU_LOAD'] = '1'  # no TPU to share
  os.environ['TPU_ACCELERATOR_TYPE'] = 'v4-8'  # any: this host has none
  os.environ['TPU_WORKER_HOSTNAMES'] = 'localhost'
  os.environ['TPU_STDERR_LOG_LEVEL'] = '3'
  jax.config.update('jax_platforms', 'cpu')
  given = {'chip_config_name': 'megacore'} if generation in MEGACORE else {}
  try:
    return topologies.get_topology_desc(name, platform='tpu', **given).devices
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0].rpartition('_ARGUMENT: ')[2]
    raise ValueError(
      f'No slice --topology={name!r}: {reason}. Shapes are in chips, such as '
      'v5p:4x4x8 or v5e:16x16.'
    ) from error


def report(plan: Plan, chip: chips.Chip | None) -> rich.table.Table:
  """What a plan found, line by line."""
  table = rich.table.Table(box=rich.box.SIMPLE, show_header=False)
  table.add_column()
  table.add_column(justify='right', no_wrap=True)
  table.add_column()
  if plan.usage is None:
    table.add_row('does not fit', '', plan.refusal)
  else:
    for name, size in plan.usage._asdict().items():
      table.add_row(name, gib(size), MEANING[name])
    share = f'{plan.usage.total / plan.limit:.0%} of ' if plan.limit else ''
    of = f'{share}{gib(plan.limit)}' if plan.limit else 'of unknown'
    verdict = of if plan.fits else f'{of}: does not fit'
    table.add_row('total', gib(plan.usage.total), verdict)
  times = roofline(plan, chip) if chip and plan.usage else None
  ratio = f'{plan.flops / plan.model_flops:.3g} times those of the model'
  table.add_row(
    'products',
    f'{plan.flops / 1e12:.4g} TFLOP',
    f'{times.products:.4g} s; {ratio}' if times else ratio,
  )
  if plan.usage is None:
    return table
  table.add_row(
    'HBM traffic',
    f'{plan.traffic.memory / 1e9:.4g} GB',
    f'{times.memory:.4g} s' if times else '',
  )
  for kind, sent in sorted(plan.traffic.sent.items()):
    calls = f'{plan.traffic.calls[kind]:,} times'
    table.add_row(kind, f'{sent / 1e9:.4g} GB', calls)
  if plan.traffic.endless:
    table.add_row('loops', f'{plan.traffic.endless}', 'of unknown length: once')
  if times and chip:
    table.add_row('links', '', f'{times.links:.4g} s')
    for name, seconds in (
      ('step, all overlaps', times.overlapped),
      ('step, links wait', times.apart),
    ):
      mfu = plan.model_flops / (seconds * chip.peak_flops)
      rate = f'{plan.images / seconds:,.0f} images/s, MFU {mfu:.0%}'
      table.add_row(name, f'{seconds:.4g} s', rate)
  return table


MEANING = {
  'arguments': 'state and batch',
  'temporaries': 'activations and gradients',
  'outputs': 'new state',
  'aliased': 'of it, in place of the old',
  'program': '',
}


def gib(size: int) -> str:
  """Bytes for people."""
  return f'{size / 2**30:.3g} GiB'


def title(name: str, devices: Sequence[jax.Device], plan: Plan) -> str:
  """What was compiled, for what, and in which time."""
  settings = ', '.join(f'{key} {x}' for key, x in plan.settings.items())
  return (
    f'{name} on {len(devices)} x {devices[0].device_kind}, batch '
    f'{plan.images:,}; {settings}; compiled in {plan.seconds:.0f} s.\n'
    'Of each chip, in a step:'
  )


def search(
  config: dict[str, Any],
  *,
  chip: chips.Chip | None,
  limit: int,
  **given: Any,
) -> list[Plan]:
  """The plans that fit, the fastest first; says what it tries.

  On each mesh it takes the least `remat` that fits in one micro-batch; where
  none does, the fewest micro-batches with that of 'dots'.

  Args:
    config: of which mesh, `remat` and `accumulate` are replaced.
    chip: whose bandwidths rank the plans; None to rank by operations.
    limit: bytes of a chip.
    **given: for `build`.
  """
  fitting = []
  for mesh in meshes(len(given['devices'])):
    for changes in ladder(config['model']['name']):
      changed = {
        **config,
        'mesh': mesh,
        'accumulate': changes['accumulate'],
        'model': {**config['model'], **changes['model']},
      }
      try:
        found = estimate(build(changed, **given), limit=limit)
      except ValueError as error:  # does not split
        print(f'{mesh}: {error}', flush=True)
        break
      print(line(found, chip), flush=True)
      if found.fits:
        fitting.append(found)
        break
      if found.usage and found.usage.arguments > limit:
        break

  def cost(plan):
    times = roofline(plan, chip) if chip else None
    if times is None:
      return plan.flops, sum(plan.traffic.sent.values())
    return times.overlapped, times.apart

  return sorted(fitting, key=cost)


def meshes(count: int) -> list[dict[str, int]]:
  """Ways to use so many chips: data alone, some fsdp, all fsdp, and tensor."""
  # Widths are divisible by powers of two, up to 128 those of G/14.
  sizes = dict.fromkeys([1, math.gcd(count, 8), math.gcd(count, 128), count])
  found = [{'data': count // n, 'fsdp': n, 'tensor': 1} for n in sizes]
  if count > 4 and count % 4 == 0:
    fsdp = math.gcd(count // 4, 128)
    found.append({'data': count // 4 // fsdp, 'fsdp': fsdp, 'tensor': 4})
  return found


def ladder(model: str) -> Iterator[dict[str, Any]]:
  """What to give up for memory, the cheapest first."""
  module, _, _ = models.MODELS[model]
  has_remat = any(field.name == 'remat' for field in dataclasses.fields(module))
  remats = [{'remat': word} for word in REMAT] if has_remat else [{}]
  for remat in remats:
    yield {'model': remat, 'accumulate': 1}
  remat = {'remat': 'dots'} if has_remat else {}
  for parts in (2, 4, 8, 16, 32):
    yield {'model': remat, 'accumulate': parts}


def line(plan: Plan, chip: chips.Chip | None) -> str:
  """A plan in one line, as flags."""
  if plan.usage is None:
    size = 'too large for the compiler'
  else:
    size = gib(plan.usage.total) + ('' if plan.fits else ', does not fit')
  times = roofline(plan, chip) if chip and plan.usage else None
  seconds = (
    f', {times.overlapped:.3g} to {times.apart:.3g} s a step' if times else ''
  )
  return f'{flags(plan)}: {size}{seconds}'


def flags(plan: Plan) -> str:
  """What to give to `vit_jax.main`."""
  return ' '.join(f'--config.{key}={x}' for key, x in plan.settings.items())


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
  """Plans the config that the words name; 1 if the step does not fit."""
  compiled.keep()
  config = main.read_config(words).to_dict()
  devices = topology(args.topology) if args.topology else jax.devices()
  chip = chips.find(devices[0].device_kind)
  limit = memory_limit(devices[0], chip, here=not args.topology)
  if config['memory_gib'] is not None:
    limit = int(config['memory_gib'] * memory.GIB)
  given = {'devices': devices, 'num_classes': args.num_classes}
  name = re.search(r'--?config[= ](\S+)', ' '.join(words))[1]
  if limit is None and (args.search or config['accumulate'] == memory.AUTO):
    raise ValueError('The memory is not known: give --config.memory_gib=16.')
  if args.search:
    fitting = search(config, chip=chip, limit=limit, **given)
    if not fitting:
      raise ValueError('None fits: take more chips, or a smaller batch.')
    found = fitting[0]
    print(f'\nThe fastest that fits: {flags(found)}\n')
  else:
    built = build(config, **given)
    if built.config['accumulate'] == memory.AUTO:
      built, _ = memory.fit(built, limit=limit)
    found = estimate(built, limit=limit)
  show(report(found, chip), title=title(name, devices, found))
  return 0 if found.fits else 1
