"""A batch as the model sees it: transformed, augmented, mixed, with labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from jaxtyping import Float

from vit_jax import data
from vit_jax.experiment import open_data
from vit_jax.ops import augment, mixing
from vit_jax.pretrained.catalogue import words
from vit_jax.tools.pictures import LABEL, bare, new_figure
from vit_jax.trained import Trained
from vit_jax.types import Array, Batch

TILE = 1.3
COLUMNS = 8


class Seen(NamedTuple):
  """A batch of training.

  Attributes:
    image: (b, h, w, c), normalised.
    labels: (b, k), shares of the classes.
  """

  image: Float[Array, 'b h w c']
  labels: Float[Array, 'b k']


def load(trained: Trained, *, step: int) -> Seen:
  """Makes the batch of a training step again, from the config of the run.

  Random numbers are those of `step.make_step`: where a step is made of several
  parts (accumulation, groups of SAM), each part drew others. A run that rolled
  back left out batches from then on, which are not left out here.

  Args:
    trained: a run.
    step: the first is 1.

  Raises:
    ValueError: if the model comes without its data, or there is no such step.
  """
  config = trained.run['config']
  if 'train' not in config['data']:
    raise ValueError(
      f'{trained.name} says nothing of its training: give --workdir, of a run.'
    )
  if step < 1:
    raise ValueError(f'--at={step} is no step: the first is 1.')
  source, _ = open_data(config)
  loader = {k: x for k, x in config['loader'].items() if k != 'on_device'}
  batch = next(
    iter(
      data.pipeline(
        source,
        data.build_transforms(config['transforms']),
        batch_size=config['batch_size'],
        seed=config['seed'],
        start=step - 1,
        steps=1,
        repeats=config['data']['repeats'],
        **loader,
      )
    )
  )
  see = jax.jit(make_see(config, num_classes=len(trained.run['class_names'])))
  seen = see(jnp.int32(step), jax.tree.map(jnp.asarray, dict(batch)))
  return jax.tree.map(np.asarray, seen)


def make_see(
  config: Mapping[str, Any], *, num_classes: int
) -> Callable[[Array, Batch], Seen]:
  """Returns (step, uint8 batch) -> what the model saw, pure."""
  options = {'mixup': 0.0, 'cutmix': 0.0, **config['objective']}
  apply = augment.pipeline(config['augment'], **config['normalize'])

  def see(step, batch):
    rng = jax.random.fold_in(jax.random.key(config['seed']), step - 1)
    augment_rng, rng = jax.random.split(rng)
    mix_rng, _ = jax.random.split(rng)
    image = apply(augment_rng, batch['image'])
    mixed = mixing.mix(
      mix_rng,
      {**batch, 'image': image},
      num_classes=num_classes,
      mixup_alpha=options['mixup'],
      cutmix_alpha=options['cutmix'],
    )
    return Seen(mixed.image, mixed.labels)

  return see


def draw(
  seen: Seen,
  *,
  class_names: Sequence[str],
  mean: float | Sequence[float],
  std: float | Sequence[float],
  most: int,
  step: int,
  size: int,
) -> matplotlib.figure.Figure:
  """The first images of a batch, each below its classes and their shares."""
  number = min(most, len(seen.image))
  columns = min(COLUMNS, number)
  lines = -(-number // columns)
  images = seen.image * np.array(std) + np.array(mean)
  captions = [caption(row, class_names=class_names) for row in seen.labels]
  tall = max(text.count('\n') for text in captions[:number]) + 1
  ratio = images.shape[1] / images.shape[2]
  figure = new_figure(
    columns * TILE + 0.2,
    lines * (TILE * ratio + 0.14 * tall) + 0.5,
    title=f'The batch of step {step:,} as the model sees it '
    f'({number} of {size} images)',
  )
  axes = figure.subplots(lines, columns, squeeze=False).ravel()
  for axis, image, text in zip(axes[:number], images, captions, strict=False):
    if image.shape[-1] == 1:
      image = np.repeat(image, 3, axis=-1)
    axis.imshow(image.clip(0, 1))
    axis.set_title(text, fontsize=LABEL - 1, pad=3)
  for axis in axes:
    bare(axis)
  return figure


def caption(
  labels: Float[np.ndarray, ' k'], *, class_names: Sequence[str], most: int = 2
) -> str:
  """The classes of an image, the largest share first, a line for each."""
  order = [k for k in np.argsort(-labels, kind='stable') if labels[k] > 0]
  lines = []
  for k in order[:most]:
    name = words(class_names[k])
    name = name if len(name) <= 18 else f'{name[:17]}…'
    share = '' if labels[k] == 1 else f': {labels[k]:.0%}'
    lines.append(name + share)
  return '\n'.join(lines) or 'no class'
