"""What a run shows of itself in TensorBoard, if `config.watch` asks for it.

At every evaluation, besides the curves: 'histograms' of the parameters and of
their gradients on the batch, the 'batch' as the model saw it, and 'attention'
on fixed images; any of them, separated by commas.

All of it is computed beside the training, from the state as it is, and changes
nothing there. All processes compute, the first one draws and writes. What draws
is imported where it is asked for: it takes longer than the rest of a start.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from vit_jax import data, metrics, sharding
from vit_jax.data.sources import Subset
from vit_jax.experiment import Experiment
from vit_jax.keys import views
from vit_jax.models import scan
from vit_jax.step import TrainState, judged, make_gradients
from vit_jax.types import Array, Batch

# Called after a step with the state that it left and the batch that it took.
Look = Callable[[TrainState, Batch, metrics.Writer], None]

BUCKETS = 30  # of a histogram, as many as TensorBoard draws
NUM_IMAGES = 2  # whose attention is drawn
BATCH = 24  # images of a batch that are drawn, at most
DPI = 100


def build(experiment: Experiment, ts: TrainState) -> Look:
  """Returns what looks at all that `config.watch` names, nothing by default.

  Args:
    experiment: what is trained.
    ts: its state before the first step.

  Raises:
    ValueError: if the model has no attention to look at.
  """
  looks = [VIEWS[name](experiment, ts) for name in views(experiment.config)]

  def look(ts, batch, writer):
    for one in looks:
      one(ts, batch, writer)

  return look


def histograms(experiment: Experiment, ts: TrainState) -> Look:
  """Of each parameter, and of its gradient on the batch."""
  del ts
  gradients = make_gradients(experiment)

  def summarize(ts, batch):
    grads, _ = gradients(ts, batch)
    trees = {'params': ts.params, 'gradients': grads}
    return jax.tree.map(histogram, scan.unstack_blocks(trees))

  compute = jax.jit(
    summarize, out_shardings=sharding.replicated(experiment.mesh)
  )

  def look(ts, batch, writer):
    found, _ = jax.tree_util.tree_flatten_with_path(
      jax.device_get(compute(ts, batch)),
      is_leaf=lambda x: isinstance(x, metrics.Histogram),
    )
    named = {
      jax.tree_util.keystr(path, simple=True, separator='/'): value
      for path, value in found
    }
    writer.histograms(int(ts.step), named)

  return look


def histogram(x: Array) -> metrics.Histogram:
  """Counts in buckets of equal width from the least to the largest value."""
  x = x.astype(jnp.float32)
  least, largest = x.min(), x.max()
  width = jnp.where(largest > least, largest - least, 1.0) / BUCKETS
  limits = least + width * jnp.arange(1.0, BUCKETS + 1)
  # Compared with each limit: a sum over an array however it is split.
  below = jax.vmap(lambda limit: (x <= limit).sum())(limits[:-1])
  below = jnp.concatenate([below, jnp.full(1, x.size)])
  return metrics.Histogram(
    least=least,
    largest=largest,
    sum=x.sum(),
    sum_of_squares=jnp.square(x).sum(),
    limits=limits,
    counts=jnp.diff(below, prepend=0),
  )


def batch(experiment: Experiment, ts: TrainState) -> Look:
  """The batch as the model saw it: augmented, mixed, with its labels."""
  from vit_jax.tools.pictures import batches

  del ts
  config, class_names = experiment.config, experiment.source.class_names
  see = batches.make_see(config, num_classes=len(class_names))
  compute = jax.jit(
    lambda step, batch: jax.tree.map(lambda x: x[:BATCH], see(step, batch)),
    out_shardings=sharding.replicated(experiment.mesh),
  )

  def look(ts, batch, writer):
    step = int(ts.step)
    seen = jax.device_get(compute(step, batch))
    if jax.process_index() == 0:
      figure = batches.draw(
        seen,
        class_names=class_names,
        **config['normalize'],
        most=BATCH,
        step=step,
        size=config['batch_size'],
      )
      writer.images(step, {'watch/batch': pixels(figure)})

  return look


def attention_of_fixed_images(experiment: Experiment, ts: TrainState) -> Look:
  """Of the same images of the training data, prepared as for evaluation."""
  from vit_jax.tools.pictures import attention, attention_maps

  source, config = experiment.source, experiment.config
  chosen = np.linspace(0, len(source) - 1, NUM_IMAGES).astype(int)
  images = data.all_of(
    Subset(source, chosen), data.build_transforms(config['preprocess'])
  )['image']
  see = attention.make_see(
    config,
    num_classes=len(source.class_names),
    out_shardings=sharding.replicated(experiment.mesh),
  )

  def see_each(ts):
    model = judged(experiment, ts)
    return [see(model['params'], model['state'], image) for image in images]

  see_each(ts)  # if the model has none, that is known before the first step

  def look(ts, batch, writer):
    del batch
    for i, found in enumerate(see_each(ts)):
      if jax.process_index() == 0:
        figure = attention_maps.heads(found, images[i])
        writer.images(int(ts.step), {f'watch/attention_{i}': pixels(figure)})

  return look


def pixels(figure: Any) -> UInt8[np.ndarray, 'h w 3']:
  """Draws a figure of matplotlib."""
  import matplotlib.backends.backend_agg

  figure.set_dpi(DPI)
  canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  return np.array(canvas.buffer_rgba())[..., :3]


# What `config.watch` may name.
VIEWS: dict[str, Callable[[Experiment, Any], Look]] = {
  'attention': attention_of_fixed_images,
  'batch': batch,
  'histograms': histograms,
}
