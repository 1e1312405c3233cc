r"""How a training step of a ViT grows, and what more devices make it send.

  python -m benchmarks.growth
  python -m benchmarks.growth --devices

The first compares ViT-Ti/16 at 224 pixels, batch 8, with twice the batch,
twice the side of the image and twice the depth: the times are taken in turn on
all devices of this machine and are ratios of medians, the operations and the
memory are what is counted in the program and what the compiler plans.

With --devices it compiles a ViT-S/16 for 1 to 8 CPU devices of one process,
which need not exist, the batch 8 images for each, and prints what a device
sends in a step, in MB, by kind (`vit_jax.hlo`).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import rich.box
import rich.console
import rich.table

from configs import quickstart
from vit_jax import experiment, hlo, memory, sharding
from vit_jax.ops import flops
from vit_jax.step import make_init, make_step

ROUNDS = 7
GROWN = {
  'Ti/16': {},
  'batch x 2': {'batch_size': 16},
  'side x 2': {'side': 448},
  'depth x 2': {'depth': 24},
  'depth x 2, scanned': {'depth': 24, 'scan': True},
  'depth x 2, nothing kept': {'depth': 24, 'remat': 'nothing'},
}


def build(
  *,
  variant: str = 'Ti/16',
  batch_size: int = 8,
  side: int = 224,
  mesh: dict[str, int] | None = None,
  devices: list[Any] | None = None,
  **model: Any,
) -> experiment.Experiment:
  """The quickstart with this model and size."""
  config = quickstart.get_config()
  config.duration = '1000 steps'
  config.batch_size = config.eval_batch_size = batch_size
  config.ema = 0.0
  config.evals, config.checkpoint.best = {}, ''
  config.model = {'name': 'vit', 'variant': variant, **model}
  size = ({'name': 'resize', 'size': side},)
  config.transforms = config.preprocess = size
  config.mesh = {'data': -1, 'fsdp': 1, 'tensor': 1, **(mesh or {})}
  return experiment.build(config.to_dict(), devices=devices)


def images(built: experiment.Experiment) -> dict[str, Any]:
  """A random batch on the mesh."""
  rng = np.random.default_rng(0)
  shape = built.config['batch_size'], *built.image_shape
  return sharding.put(
    {
      'image': rng.integers(256, size=shape, dtype=np.uint8),
      'label': rng.integers(10, size=shape[0], dtype=np.int32),
      'mask': np.ones(shape[0], np.float32),
    },
    built.mesh,
  )


def growth() -> rich.table.Table:
  """Time, operations and memory, in those of the first row."""
  found, runs = {}, {}
  for name, options in GROWN.items():
    built = build(**options)
    compiled = memory.compile_step(built)
    operations = flops.count(make_step(built), *memory.abstract(built))
    found[name] = operations, memory.usage(compiled).total
    runs[name] = [compiled.step, jax.jit(make_init(built))(), images(built)]
    print(f'{name} is compiled', file=sys.stderr, flush=True)
  times = {name: [] for name in GROWN}
  for _ in range(ROUNDS + 1):
    for name, (step, state, batch) in runs.items():
      start = time.perf_counter()
      runs[name][1] = jax.block_until_ready(step(state, batch))[0]
      times[name].append(time.perf_counter() - start)
  seconds = {name: statistics.median(all_[1:]) for name, all_ in times.items()}
  table = rich.table.Table(box=rich.box.SIMPLE)
  for column in ('a step of', 's', 'times as long', 'operations', 'memory'):
    table.add_column(
      column, justify='left' if column == 'a step of' else 'right'
    )
  first = next(iter(GROWN))
  for name, figures in found.items():
    ratios = [seconds[name] / seconds[first]]
    ratios += [x / y for x, y in zip(figures, found[first], strict=True)]
    table.add_row(name, f'{seconds[name]:.2f}', *(f'{x:.2f}' for x in ratios))
  return table


def meshes(count: int) -> Iterator[tuple[str, dict[str, int]]]:
  """Ways to use so many devices."""
  yield 'data', {}
  if count > 1:
    yield 'fsdp', {'data': 1, 'fsdp': count}
    if 6 % count == 0:  # its heads
      yield 'tensor', {'data': 1, 'tensor': count}
  if count == 8:
    yield 'data 2, fsdp 4', {'data': 2, 'fsdp': 4}
    yield 'data 4, tensor 2', {'data': 4, 'tensor': 2}


def collectives() -> rich.table.Table:
  """What is sent, by the number of devices and how they are used."""
  rows = []
  for count in (1, 2, 4, 8):
    for name, mesh in meshes(count):
      built = build(
        variant='S/16',
        batch_size=8 * count,
        scan=True,
        mesh=mesh,
        devices=jax.devices()[:count],
      )
      compiled = memory.compile_step(built)
      sent = hlo.traffic(compiled.program.as_text()).sent
      rows.append((count, name, memory.usage(compiled).total, sent))
  kinds = [kind for kind in hlo.COLLECTIVES if any(kind in x[3] for x in rows)]
  table = rich.table.Table(
    title='a step of ViT-S/16: MiB of a device, MB that it sends',
    box=rich.box.SIMPLE,
  )
  for column in ('devices', 'mesh', 'memory', *kinds):
    table.add_column(column, justify='left' if column == 'mesh' else 'right')
  for count, name, used, sent in rows:
    figures = (f'{sent[k] / 1e6:.1f}' if k in sent else '' for k in kinds)
    table.add_row(str(count), name, f'{used / 2**20:,.0f}', *figures)
  return table


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--devices', action='store_true', help='what is sent')
  args = parser.parse_args()
  if args.devices:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 8)
  rich.console.Console(width=100).print(
    collectives() if args.devices else growth()
  )


if __name__ == '__main__':
  main()
