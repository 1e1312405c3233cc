"""The loss around trained parameters, in a plane through them.

Visualizing the Loss Landscape of Neural Nets, arXiv:1712.09913, section 4: two
random directions, in which every filter is as long as that of the model.
"""

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import matplotlib.colors
import matplotlib.figure
import matplotlib.patheffects
import numpy as np
import optax
from jaxtyping import Float

from vit_jax import data, experiment
from vit_jax.ops import losses
from vit_jax.optim.muon import MATRICES
from vit_jax.tools.pictures import (
  LABEL,
  SEQUENTIAL,
  color_bar,
  new_figure,
  pixels,
)
from vit_jax.trained import Trained
from vit_jax.types import Batch, Params


def direction(params: Params, *, seed: int) -> Params:
  """A random direction, each filter as long as that of the parameters.

  A filter is all that a unit of a kernel multiplies its inputs with. Biases,
  norms, positions and tokens stay where they are: 0.
  """
  noise = optax.tree.random_like(
    jax.random.key(seed), params, sampler=jax.random.normal
  )

  def scaled(path, x, d):
    axes = _inputs(jax.tree_util.keystr(path, simple=True, separator='/'), x)
    if axes is None:
      return jnp.zeros_like(x)
    length = lambda a: jnp.sqrt((a * a).sum(axes, keepdims=True))
    return d * length(x) / jnp.maximum(length(d), 1e-30)

  return jax.tree_util.tree_map_with_path(scaled, params, noise)


def _inputs(name: str, x: jax.Array) -> tuple[int, ...] | None:
  """The axes of a kernel that are summed over; None for what is none."""
  for regex, summed, _ in MATRICES:
    if x.ndim == -min(summed) and re.fullmatch(regex, name):
      return summed
  return None


def surface(
  trained: Trained,
  batches: Sequence[Batch],
  *,
  reach: float,
  points: int,
  seed: int,
) -> tuple[Float[np.ndarray, ' p'], Float[np.ndarray, 'p p']]:
  """The mean loss on a grid; the trained parameters are in the middle.

  Statistics of batches stay as they were trained.

  Args:
    trained: the model.
    batches: what the loss is computed on.
    reach: how far, in lengths of the filters.
    points: along an axis, odd.
    seed: of the directions.

  Returns:
    The steps along an axis, and the losses by the steps along the second and
    the first direction.
  """
  name = {'loss': 'softmax', **trained.run['config']['objective']}['loss']
  directions = [direction(trained.params, seed=2 * seed + i) for i in (0, 1)]

  @jax.jit
  def summed(params, directions, steps, state, batch):
    moved = jax.tree.map(
      lambda x, a, b: x + steps[0] * a + steps[1] * b, params, *directions
    )
    logits = trained.predict(moved, state, batch).logits
    labels = batch['label']
    if labels.ndim == 1:
      labels = jax.nn.one_hot(labels, logits.shape[-1])
    return losses.LOSSES[name](logits, labels).sum()

  steps = np.linspace(-reach, reach, points)
  count = sum(len(batch['label']) for batch in batches)
  found = [
    sum(
      float(
        summed(
          trained.params, directions, jnp.array([x, y]), trained.state, batch
        )
      )
      for batch in batches
    )
    / count
    for y in steps
    for x in steps
  ]
  return steps, np.array(found).reshape(points, points)


def read(
  trained: Trained, *, address: str, number: int, batch_size: int = 128
) -> list[Batch]:
  """Examples evenly from all of the data, as for an evaluation.

  Args:
    trained: the model.
    address: of labelled data; '' for what a run was trained on.
    number: of examples, at most.
    batch_size: what the model sees at once.

  Raises:
    ValueError: if there are no such data.
  """
  config = trained.run['config']
  if address:
    source = experiment.open_eval(
      config, address, class_names=trained.run['class_names']
    )
  elif 'train' in config['data']:
    source, _ = experiment.open_data(config)
  else:
    raise ValueError(
      f'{trained.name} says nothing of its data: give --data=/my/images, with '
      'the classes of the model.'
    )
  transform = data.build_transforms(config['preprocess'])
  rng = np.random.default_rng(0)  # the preprocessing draws nothing
  chosen = np.linspace(0, len(source) - 1, min(number, len(source)))
  rows = [source[int(i)] for i in np.unique(chosen.round())]
  images = np.stack([transform(pixels(row['image']), rng) for row in rows])
  labels = np.array([row['label'] for row in rows])
  return [
    {
      'image': images[i : i + batch_size],
      'label': labels[i : i + batch_size],
      'mask': np.ones(len(labels[i : i + batch_size]), np.float32),
    }
    for i in range(0, len(images), batch_size)
  ]


def draw(
  steps: Float[np.ndarray, ' p'],
  losses: Mapping[str, Float[np.ndarray, 'p p']],
  *,
  title: str,
) -> matplotlib.figure.Figure:
  """Contours of losses side by side, evenly spaced in their logarithm.

  Args:
    steps: along the axes.
    losses: by what is written above each; they share one scale.
    title: of the figure.
  """
  figure = new_figure(3.6 * len(losses) + 1.0, 3.9, title=title)
  axes = figure.subplots(1, len(losses), sharey=True, squeeze=False)[0]
  low = max(min(float(x.min()) for x in losses.values()), 1e-12)
  high = max(*(float(x.max()) for x in losses.values()), low * 1.01)
  levels = np.geomspace(low, high, 16)
  # The largest may be rounded to less than itself.
  levels[-1] = high
  norm = matplotlib.colors.LogNorm(low, high)
  image = None
  for axis, (name, loss) in zip(axes, losses.items(), strict=True):
    image = axis.contourf(
      steps, steps, loss.clip(low), levels, cmap=SEQUENTIAL, norm=norm
    )
    lines = axis.contour(
      *(steps, steps, loss.clip(low)),
      levels[1:-1],
      colors='white',
      linewidths=0.5,
    )
    labels = axis.clabel(
      lines, lines.levels[::2], fontsize=LABEL - 2, fmt='%.3g'
    )
    # Readable on dark and on light.
    edge = matplotlib.patheffects.withStroke(linewidth=1.5, foreground='black')
    for label in labels:
      label.set_path_effects([edge])
    axis.plot(0, 0, marker='+', color='white', ms=10, mew=1.5)
    axis.set_box_aspect(1)
    axis.set_title(name, fontsize=LABEL + 1)
    axis.set_xlabel(
      'step along direction 1 (lengths of the filters)', fontsize=LABEL
    )
    axis.tick_params(labelsize=LABEL)
    axis.locator_params(nbins=5)
  axes[0].set_ylabel('step along direction 2', fontsize=LABEL)
  color_bar(image, axes, label='mean loss', ticks=levels[::3], format='%.3g')
  return figure
