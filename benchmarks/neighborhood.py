"""What attention to neighbours costs, in attention within windows of Swin.

  python -m benchmarks.neighborhood --batch_size=4

The maps are those of DiNAT-M at 224 pixels, with neighbourhoods of 7 x 7. On
the same maps, and also with a bias, run attention within windows of 7 x 7, not
shifted, and attention of all tokens to all. The programs take turns, so that
what else the machine does hits all alike; times are the fastest. Memory is what
a program needs for what lies between its inputs and its outputs.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table

from vit_jax.layers.neighborhood import neighborhood_attention
from vit_jax.layers.window import merge, pairwise, partition
from vit_jax.ops.kernels import dot_product_attention

ROUNDS, KERNEL_SIZE, HEAD_DIM = 5, 7, 32
# Side of the map, heads, and dilation of every other block.
MAPS = ((56, 2, 8), (28, 4, 4), (14, 8, 2))


def within_windows(query, key, value, table):
  """Attention in windows of 7 x 7."""
  b, y, x, *heads = query.shape
  window = (KERNEL_SIZE, KERNEL_SIZE)
  tokens = [
    partition(a.reshape(b, y, x, -1), window=window)
    for a in (query, key, value)
  ]
  tokens = [a.reshape(*a.shape[:2], *heads) for a in tokens]
  bias = pairwise(table, window=window)[None]
  mixed = dot_product_attention(*tokens, bias=bias)
  mixed = merge(mixed.reshape(*mixed.shape[:2], -1), window=window, size=(y, x))
  return mixed.reshape(query.shape)


def of_all(query, key, value, table):
  """Attention of all tokens to all."""
  b, y, x, *heads = query.shape
  tokens = [a.reshape(b, y * x, *heads) for a in (query, key, value)]
  bias = pairwise(table, window=(y, x))[None]
  return dot_product_attention(*tokens, bias=bias).reshape(query.shape)


def inputs(batch_size: int, side: int, num_heads: int, *, reach: int):
  """A query, key and value, and biases for differences below `reach`."""
  rng = np.random.default_rng(0)
  tokens = (batch_size, side, side, num_heads, HEAD_DIM)
  table = (2 * reach - 1, 2 * reach - 1, num_heads)
  shapes = [tokens, tokens, tokens, table]
  return [jnp.asarray(rng.normal(size=x), jnp.float32) for x in shapes]


def programs(attend, args):
  """Compiled: the attention, and the gradient of all that enters it."""
  loss = lambda *args: jnp.sum(jnp.sin(attend(*args)))
  return [
    jax.jit(f).lower(*args).compile()
    for f in (attend, jax.grad(loss, range(len(args))))
  ]


def measure(batch_size: int, side: int, num_heads: int, dilation: int):
  """Name -> of attention and of its gradient: seconds, and bytes."""
  small, large = (
    inputs(batch_size, side, num_heads, reach=n) for n in (KERNEL_SIZE, side)
  )

  def neighbors(query, key, value, table, *, dilation):
    return neighborhood_attention(
      query, key, value, table=table, dilation=dilation
    )

  cases = {'windows': (within_windows, small)}
  for d in (1, dilation):
    function = functools.partial(neighbors, dilation=d)
    cases[f'neighbours, dilation {d}'] = function, small
  cases['all'] = of_all, large
  compiled = {name: programs(*case) for name, case in cases.items()}
  times = {name: ([], []) for name in cases}
  for round in range(ROUNDS + 1):
    for name, pair in compiled.items():
      for program, found in zip(pair, times[name], strict=True):
        start = time.perf_counter()
        jax.block_until_ready(program(*cases[name][1]))
        if round > 0:
          found.append(time.perf_counter() - start)
  return {
    name: [
      (min(found), program.memory_analysis().temp_size_in_bytes)
      for program, found in zip(pair, times[name], strict=True)
    ]
    for name, pair in compiled.items()
  }


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--batch_size', type=int, default=4)
  args = parser.parse_args()
  table = rich.table.Table(
    title=f'{jax.devices()[0].device_kind}, batch {args.batch_size}, float32; '
    'in brackets: in attention within windows'
  )
  for column in ('map', 'attention', 'ms', 'MiB', 'gradient, ms', 'MiB'):
    is_word = column in ('map', 'attention')
    table.add_column(column, justify='left' if is_word else 'right')
  for side, num_heads, dilation in MAPS:
    results = measure(args.batch_size, side, num_heads, dilation)
    for name, result in results.items():
      cells = []
      for values, base in zip(result, results['windows'], strict=True):
        for value, unit, scale in zip(values, base, (1e3, 2**-20), strict=True):
          cells.append(f'{scale * value:.1f} ({value / unit:.2g})')
      table.add_row(f'{side}x{side}', name, *cells)
    table.add_section()
  rich.console.Console(width=100).print(table)


if __name__ == '__main__':
  main()
