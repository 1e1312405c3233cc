"""Fits a power law to the compute frontier of runs."""

import argparse
import functools
import glob
import itertools
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.colors
import matplotlib.figure
import numpy as np
import scipy.optimize
from jaxtyping import Float

from vit_jax import checkpoint, metrics, models
from vit_jax.tools.work import zoo

# One more than the law has numbers.
MIN_POINTS = 5
# Of b. What falls more steeply is no power law: it would be fitted by an ever
# larger d, to no avail.
MAX_POWER = 2.0


class Point(NamedTuple):
  """A finished run.

  Attributes:
    name: of its directory.
    compute: FLOPs of the training, 2 per multiply-add.
    error: in [0, 1] if it is one of classification, else a loss.
    params: how many the model has.
  """

  name: str
  compute: float
  error: float
  params: int


class Law(NamedTuple):
  """E = a (C + d)^-b + c, with C in units of `unit` FLOPs."""

  a: float
  b: float
  c: float
  d: float
  unit: float

  def __call__(self, compute: Any) -> Any:
    """The error after so many FLOPs."""
    return self.a * (compute / self.unit + self.d) ** -self.b + self.c

  def __str__(self) -> str:
    """As a formula of TeX."""
    exponent = round(math.log10(self.unit))
    power = rf'(C + {self.d:.2g})^{{-{self.b:.2f}}}'
    return (
      rf'$E = {self.a:.3g}\,{power} + {self.c:.2g}$,  '
      rf'$C$ in $10^{{{exponent}}}$ FLOP'
    )


def read(workdir: pathlib.Path, *, metric: str) -> Point:
  """Reads where a run ended.

  Args:
    workdir: the run directory.
    metric: of metrics.jsonl; an accuracy a counts as the error 1 - a.

  Raises:
    ValueError: if the run has not measured it at its end.
  """
  run = checkpoint.read_run(workdir)
  rows = metrics.read_rows(workdir / 'metrics.jsonl')
  if not rows or metric not in rows[-1]:
    known = sorted({name for row in rows for name in row} - {'step'})
    raise ValueError(
      f'{workdir} has not ended with {metric!r}: let it finish, or give one of '
      f'{known} as --metric.'
    )
  model = {'num_classes': len(run['class_names']), **run['config']['model']}
  params, forward = _cost(json.dumps(model), size=run['image_shape'][0])
  examples = run['config']['batch_size'] * rows[-1]['step']
  value = rows[-1][metric]
  return Point(
    name=workdir.name,
    # The backward pass counts as two forward passes.
    compute=3.0 * forward * examples,
    error=1 - value if 'accuracy' in metric else value,
    params=params,
  )


@functools.cache
def _cost(model: str, *, size: int) -> tuple[int, int]:
  return zoo.cost(models.build(**json.loads(model)), size=size)


def frontier(points: Sequence[Point]) -> list[Point]:
  """The points that no other beats at the same or less compute, in order."""
  best = []
  for point in sorted(points, key=lambda p: (p.compute, p.error)):
    if not best or point.error < best[-1].error:
      best.append(point)
  return best


def fit(
  compute: Float[np.ndarray, ' n'], error: Float[np.ndarray, ' n']
) -> Law:
  """Fits the law to a frontier, by the squares of the logarithms' differences.

  Args:
    compute: in FLOPs.
    error: above 0.

  Raises:
    ValueError: if there are fewer points than it takes.
  """
  if len(compute) < MIN_POINTS:
    raise ValueError(
      f'The frontier has {len(compute)} points, and the law four numbers: add '
      f'runs until it has {MIN_POINTS}.'
    )
  if error.min() <= 0:
    raise ValueError('An error of 0 has no logarithm: judge on more examples.')
  unit = 10.0 ** math.floor(math.log10(compute.min()))
  x, y = compute / unit, np.log(error)

  def log_law(x, a, b, c, d):
    return np.log(a * (x + d) ** -b + c)

  fits = []
  # From several sides: the squares have more than one minimum.
  for c, b in itertools.product((0.01, 0.5, 0.9), (0.2, 0.5, 1.0)):
    rest = (1 - c) * error.min()
    start = (rest * x.max() ** b, b, c * error.min(), x.min() / 10)
    values, _ = scipy.optimize.curve_fit(
      log_law,
      x,
      y,
      p0=start,
      bounds=([1e-12, 1e-3, 0, 0], [np.inf, MAX_POWER, error.max(), np.inf]),
      max_nfev=20_000,
    )
    fits.append((np.sum((log_law(x, *values) - y) ** 2), tuple(values)))
  return Law(*map(float, min(fits)[1]), unit=unit)


def draw(points: Sequence[Point], *, metric: str) -> matplotlib.figure.Figure:
  """All points, the frontier, and the law that was fitted to it."""
  best = frontier(points)
  law = fit(
    np.array([point.compute for point in best]),
    np.array([point.error for point in best]),
  )
  figure = matplotlib.figure.Figure(figsize=(6.4, 4.4), layout='constrained')
  axes = figure.subplots()
  sizes = [point.params for point in points]
  dots = axes.scatter(
    [point.compute for point in points],
    [point.error for point in points],
    c=sizes,
    norm=matplotlib.colors.LogNorm(min(sizes), max(sizes)),
    cmap='viridis',
    s=18,
    alpha=0.8,
    linewidths=0,
  )
  axes.scatter(
    [point.compute for point in best],
    [point.error for point in best],
    s=70,
    facecolors='none',
    edgecolors='black',
    label='frontier',
  )
  compute = np.geomspace(best[0].compute, best[-1].compute * 3, 200)
  axes.plot(compute, law(compute), color='crimson', label='law')
  axes.set(xscale='log', yscale='log')
  axes.set_title(str(law), fontsize=10)
  axes.set_xlabel('compute of the training, FLOP')
  axes.set_ylabel(f'1 - {metric}' if 'accuracy' in metric else metric)
  axes.grid(which='both', alpha=0.2)
  axes.legend(frameon=False)
  figure.colorbar(dots, label='parameters')
  return figure


def run(args: argparse.Namespace) -> int:
  """Draws the frontier and prints it."""
  found = sorted(path for runs in args.runs for path in glob.glob(runs))
  points = [read(pathlib.Path(run), metric=args.metric) for run in found]
  draw(points, metric=args.metric).savefig(args.output, dpi=150)
  for point in frontier(points):
    print(f'{point.compute:.2e} FLOP  {point.error:.4f}  {point.name}')
  print(f'{len(points)} runs, drawn in {args.output}')
  return 0
