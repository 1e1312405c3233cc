"""Looks at what happens inside, as pictures."""

import argparse
import pathlib
from collections.abc import Callable

import matplotlib.figure

from vit_jax import compiled
from vit_jax.tools import curves
from vit_jax.tools.pictures import (
  Example,
  attention,
  attention_maps,
  augmentations,
  batches,
  distance,
  examples,
  filters,
  landscape,
  positions,
)
from vit_jax.tools.work.loading import load_model
from vit_jax.trained import Trained

Arguments = argparse.Namespace
Figure = matplotlib.figure.Figure


def _attention(args: Arguments) -> Figure:
  trained, found = _look(args)
  if len(found) > 1:
    raise ValueError(
      f'attention draws one image, not {len(found)}: leave --most at 1.'
    )
  (example,) = found
  return attention_maps.heads(
    attention.layers(trained, example.image),
    example.image,
    chosen=args.layers,
    query=args.query,
    most=args.heads,
  )


def _look(args: Arguments) -> tuple[Trained, list[Example]]:
  trained = load_model(args)
  return trained, examples(trained, args.images, most=args.most)


def _rollout(args: Arguments) -> Figure:
  trained, found = _look(args)
  layers = attention.on_each(trained, [example.image for example in found])
  maps = [attention_maps.rollout(on_one) for on_one in layers]
  return attention_maps.rollouts(found, maps)


def _distance(args: Arguments) -> Figure:
  trained, found = _look(args)
  layers = attention.on_each(trained, [example.image for example in found])
  return distance.draw(layers, size=found[0].image.shape[:2])


def _posembed(args: Arguments) -> Figure:
  return positions.draw(load_model(args), most=args.heads)


def _filters(args: Arguments) -> Figure:
  return filters.draw(filters.first_layer(load_model(args)))


def _landscape(args: Arguments) -> Figure:
  trained = load_model(args)
  found = landscape.read(trained, address=args.data, number=args.most)
  steps, loss = landscape.surface(
    trained, found, reach=args.reach, points=args.points | 1, seed=args.seed
  )
  number = sum(len(batch['label']) for batch in found)
  title = f'Loss around the trained parameters, {number} images'
  return landscape.draw(steps, {'': loss}, title=title)


def _batch(args: Arguments) -> Figure:
  trained = load_model(args)
  config = trained.run['config']
  seen = batches.load(trained, step=args.at)
  return batches.draw(
    seen,
    class_names=trained.run['class_names'],
    mean=config['normalize']['mean'],
    std=config['normalize']['std'],
    most=args.most,
    step=args.at,
    size=len(seen.image),
  )


def _augment(args: Arguments) -> Figure:
  images = augmentations.photographs(args.images)
  return augmentations.contact_sheet(images, seed=args.seed)


def _curves(args: Arguments) -> Figure:
  groups = curves.group([pathlib.Path(run) for run in args.runs])
  return curves.draw(groups, metric=args.metric)


# What draws each view of `tools.inspect.VIEWS`.
VIEWS: dict[str, Callable[[Arguments], Figure]] = {
  'attention': _attention,
  'augment': _augment,
  'batch': _batch,
  'curves': _curves,
  'distance': _distance,
  'filters': _filters,
  'landscape': _landscape,
  'posembed': _posembed,
  'rollout': _rollout,
}


def run(args: Arguments) -> int:
  """Draws the view."""
  compiled.keep()
  VIEWS[args.view](args).savefig(args.output, dpi=args.dpi)
  print(f'Drawn in {args.output}')
  return 0
