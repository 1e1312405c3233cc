"""Names what is in images."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import rich.table
from jaxtyping import Float

from vit_jax import data
from vit_jax.ops import losses
from vit_jax.pretrained.catalogue import words
from vit_jax.tools import show
from vit_jax.tools.work.loading import load_model
from vit_jax.trained import Trained
from vit_jax.types import Batch

BATCH_SIZE = 32


def run(args: argparse.Namespace) -> int:
  """Predicts; returns 1 if an image could not be read."""
  trained = load_model(args)
  rows = [
    row
    for source in data.unlabelled(
      args.images, class_names=trained.run['class_names']
    )
    for row in predict(trained, source, top=args.top)
  ]
  if args.json:
    print(json.dumps(rows, indent=2))
  else:
    show(_table(rows), title=trained.name)
  return int(any(not row['classes'] for row in rows))


def predict(
  trained: Trained, source: data.Source, *, top: int
) -> Iterator[dict[str, Any]]:
  """Yields, for each image, its name and its `top` classes.

  Yields:
    {'image': name, 'classes': [{'class': name, 'probability': p}, ...]}, the
    most probable first; no classes if the image could not be read.
  """
  config, names = trained.run['config'], trained.run['class_names']
  probabilities = make_probabilities(trained)
  batches = data.one_pass(
    source,
    data.build_transforms(config['preprocess']),
    batch_size=BATCH_SIZE,
    num_threads=config['loader']['num_threads'],
  )
  index = 0
  for batch in batches:
    probability = probabilities(batch)  # (B, K)
    order = np.argsort(-probability, axis=-1)[:, :top]
    for row in range(min(BATCH_SIZE, len(source) - index)):
      yield {
        'image': source.name(index),
        'classes': [
          {'class': words(names[k]), 'probability': float(probability[row, k])}
          for k in order[row]
          if batch['mask'][row]
        ],
      }
      index += 1


def make_probabilities(
  trained: Trained,
) -> Callable[[Batch], Float[np.ndarray, 'b k']]:
  """Returns what gives the probabilities of the classes, from a uint8 batch."""
  loss = {'loss': 'softmax', **trained.run['config']['objective']}['loss']
  link = losses.PROBABILITIES[loss]

  @jax.jit
  def compute(params, state, batch):
    return link(trained.predict(params, state, batch).logits)

  return lambda batch: np.asarray(compute(trained.params, trained.state, batch))


def _table(rows: Sequence[dict[str, Any]]) -> rich.table.Table:
  table = rich.table.Table()
  table.add_column('image', overflow='fold')
  table.add_column('class', overflow='fold')
  table.add_column('probability', justify='right')
  for row in rows:
    classes = row['classes'] or [{'class': '(unreadable)', 'probability': 0.0}]
    table.add_row(
      row['image'],
      '\n'.join(c['class'] for c in classes),
      '\n'.join(f'{c["probability"]:.1%}' for c in classes),
      end_section=len(classes) > 1,
    )
  return table
