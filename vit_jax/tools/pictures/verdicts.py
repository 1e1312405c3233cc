"""A run and its mistakes in diagrams: curves, confusion, calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np
from jaxtyping import Int

from vit_jax.tools.curves import COLORS
from vit_jax.tools.pictures import LABEL, TITLE
from vit_jax.tools.work.judgement import Bins

# Points of a curve that are drawn; of more, means.
POINTS = 400
# Panels of `curves` and the metrics in them, by how their names end.
PANELS = {
  'loss': ('/loss',),
  'accuracy': ('/accuracy',),
  'learning rate': ('/learning_rate',),
  'images per second': ('images_per_second',),
}
GREY = '#555555'


def _plain(axis: matplotlib.axes.Axes) -> None:
  axis.spines[['top', 'right']].set_visible(False)
  axis.tick_params(labelsize=LABEL, color=GREY)
  axis.grid(alpha=0.25, linewidth=0.6)
  axis.set_axisbelow(True)


def curves(
  rows: Sequence[Mapping[str, Any]],
) -> matplotlib.figure.Figure | None:
  """What a run reported over its steps; None if that is nothing.

  Args:
    rows: of `metrics.jsonl`.
  """
  names = sorted({name for row in rows for name in row})
  panels = {
    title: [name for name in names if name.endswith(ends)]
    for title, ends in PANELS.items()
  }
  panels = {title: names for title, names in panels.items() if names}
  if not panels:
    return None
  lines = -(-len(panels) // 2)
  figure = matplotlib.figure.Figure(
    figsize=(10.6, 0.3 + 2.5 * lines), layout='constrained'
  )
  axes = figure.subplots(lines, 2, squeeze=False).ravel()
  # A set has one colour in all panels; training is black.
  sets = {
    name.rpartition('/')[0] for shown in panels.values() for name in shown
  }
  colors = dict(zip(sorted(sets - {'train', ''}), COLORS, strict=False))
  for axis, (title, shown) in zip(axes, panels.items(), strict=False):
    for name in shown:
      points = [(row['step'], row[name]) for row in rows if name in row]
      steps, values = _thinned(*map(np.array, zip(*points, strict=True)))
      key = name.rpartition('/')[0]
      trains = key in ('train', '')
      axis.plot(
        steps,
        values,
        color='#444444' if trains or key not in colors else colors[key],
        linewidth=1.1 if trains else 1.6,
        marker='.' if len(steps) <= 30 else '',
        label=key or None,
      )
    _plain(axis)
    axis.set_title(title, fontsize=TITLE, loc='left')
    axis.set_xlabel('step', fontsize=LABEL)
    axis.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=''))
    if title == 'images per second':
      axis.set_ylim(bottom=0)
      axis.yaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=''))
    if title == 'accuracy':
      axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    if len(shown) > 1 or title == 'accuracy':
      axis.legend(frameon=False, fontsize=LABEL)
  for axis in axes[len(panels) :]:
    axis.remove()
  return figure


def _thinned(
  steps: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Means over as many neighbours as leave `POINTS`."""
  size = -(-len(steps) // POINTS)
  starts = np.arange(0, len(steps), size)
  counts = np.diff(np.append(starts, len(steps)))
  # The last stays where it is: the run ends there.
  last = np.append(starts[1:] - 1, len(steps) - 1)
  return steps[last], np.add.reduceat(values, starts) / counts


def confusion(
  matrix: Int[np.ndarray, 'k k'], *, class_names: Sequence[str]
) -> matplotlib.figure.Figure:
  """Rows are what an image shows, columns what it was taken for, in counts.

  The colour is the share of the row.
  """
  k = len(matrix)
  side = min(6.6, 2.6 + 0.26 * k)
  figure = matplotlib.figure.Figure(figsize=(side, side), layout='constrained')
  axis = figure.subplots()
  shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
  axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  size = min(9.0, 0.8 * side * 72 / (2.4 * k))
  for i, j in zip(*np.nonzero(matrix), strict=True):
    axis.text(
      j,
      i,
      f'{matrix[i, j]:,}',
      ha='center',
      va='center',
      fontsize=size,
      color='white' if shares[i, j] > 0.55 else 'black',
    )
  names = [_short(name) for name in class_names]
  turned = max(map(len, names)) > 2
  axis.set_xticks(range(k), names, rotation=90 if turned else 0)
  axis.set_yticks(range(k), names)
  axis.tick_params(labelsize=min(LABEL, size + 1.5), length=0)
  axis.set_xticks(np.arange(k + 1) - 0.5, minor=True)
  axis.set_yticks(np.arange(k + 1) - 0.5, minor=True)
  axis.grid(which='minor', color='#dddddd', linewidth=0.6)
  axis.tick_params(which='minor', length=0)
  axis.set_xlabel('predicted', fontsize=LABEL + 1)
  axis.set_ylabel('label', fontsize=LABEL + 1)
  axis.spines[:].set_color('#bbbbbb')
  return figure


def _short(name: str, most: int = 16) -> str:
  return name if len(name) <= most else f'{name[: most - 1]}…'


def reliability(bins: Bins) -> matplotlib.figure.Figure:
  """Accuracy over confidence, and below how confident the model is."""
  figure = matplotlib.figure.Figure(figsize=(4.6, 4.9), layout='constrained')
  above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
  edges = np.linspace(0, 1, len(bins.counts) + 1)
  middle, width = (edges[1:] + edges[:-1]) / 2, edges[1]
  there = bins.counts > 0
  accuracy, confidence = bins.accuracy[there], bins.confidence[there]
  above.bar(
    middle[there], accuracy, 0.92 * width, color=COLORS[0], label='accuracy'
  )
  above.plot([0, 1], [0, 1], '--', color=GREY, lw=1.1, label='calibrated')
  above.vlines(confidence, accuracy, confidence, color=COLORS[1], lw=2.2)
  above.plot(
    confidence,
    confidence,
    'o',
    color=COLORS[1],
    markeredgecolor='white',
    label='confidence, and its gap',
    clip_on=False,
  )
  above.set(xlim=(0, 1), ylim=(0, 1))
  above.set_ylabel('accuracy', fontsize=LABEL + 1)
  above.legend(frameon=False, fontsize=LABEL, loc='upper left')
  above.set_title(f'ECE {bins.ece:.2%}', fontsize=TITLE, loc='right')
  below.bar(
    middle, bins.counts / bins.counts.sum(), 0.92 * width, color='#888888'
  )
  below.set_xlabel('confidence', fontsize=LABEL + 1)
  below.set_ylabel('examples', fontsize=LABEL + 1)
  for axis in (above, below):
    _plain(axis)
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    axis.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
  return figure
