"""Looks at what happens inside, as pictures.

A trained model, --workdir=... of a run or --pretrained=...:
  inspect attention -o out.png --workdir=runs/mine photo.jpg
  inspect rollout   -o out.png --workdir=runs/mine photo.jpg other.png
  inspect distance  -o out.png --workdir=runs/mine /my/images
  inspect posembed  -o out.png --workdir=runs/mine
  inspect filters   -o out.png --workdir=runs/mine
  inspect landscape -o out.png --workdir=runs/mine
  inspect batch     -o out.png --workdir=runs/mine

And without a model:
  inspect augment -o augment.png photo.jpg
  inspect curves  -o curves.png runs/one runs/other
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

import matplotlib.figure

from vit_jax.tools import add_model, command, curves, load_model
from vit_jax.tools.pictures import (
  DPI,
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
from vit_jax.trained import Trained

Arguments = argparse.Namespace
Figure = matplotlib.figure.Figure


def _add_images(parser: argparse.ArgumentParser, *, most: int) -> None:
  add_model(parser)
  parser.add_argument(
    'images',
    nargs='*',
    help='files, folders or addresses of data; default: photographs of '
    'scikit-learn',
  )
  parser.add_argument(
    '--most',
    type=positive,
    default=most,
    help=f'images that are looked at (default: {most})',
  )


def positive(text: str) -> int:
  """Reads an integer of at least 1."""
  if (value := int(text)) < 1:
    raise ValueError(text)
  return value


def pixel(text: str) -> tuple[float, float]:
  """Reads a row and a column."""
  row, column = map(float, text.split(','))
  return row, column


def _attention_arguments(parser: argparse.ArgumentParser) -> None:
  _add_images(parser, most=1)
  parser.add_argument(
    '--layers',
    type=int,
    nargs='+',
    help='numbers of layers, from 0 (default: four, evenly spread)',
  )
  parser.add_argument(
    '--query',
    type=pixel,
    metavar='ROW,COLUMN',
    help='the pixel whose token asks (default: the class token, or the middle)',
  )
  _add_heads(parser)


def _add_heads(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--heads', type=positive, default=8, help='at most (default: 8)'
  )


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


def _posembed_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  _add_heads(parser)


def _posembed(args: Arguments) -> Figure:
  return positions.draw(load_model(args), most=args.heads)


def _filters(args: Arguments) -> Figure:
  return filters.draw(filters.first_layer(load_model(args)))


def _landscape_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    '--data', default='', help='labelled images (default: those of the run)'
  )
  parser.add_argument(
    *('--most', '-n'), type=positive, default=512, help='images (default: 512)'
  )
  parser.add_argument(
    '--points', type=positive, default=21, help='per axis (default: 21)'
  )
  parser.add_argument(
    '--reach', type=float, default=1.0, help='of the axes (default: 1)'
  )
  parser.add_argument('--seed', type=int, default=0, help='default: 0')


def _landscape(args: Arguments) -> Figure:
  trained = load_model(args)
  found = landscape.read(trained, address=args.data, number=args.most)
  steps, loss = landscape.surface(
    trained, found, reach=args.reach, points=args.points | 1, seed=args.seed
  )
  number = sum(len(batch['label']) for batch in found)
  title = f'Loss around the trained parameters, {number} images'
  return landscape.draw(steps, {'': loss}, title=title)


def _batch_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    '--at', type=int, default=1, help='step of the training (default: 1)'
  )
  parser.add_argument(
    '--most', type=positive, default=24, help='images (default: 24)'
  )


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
  )


def _augment_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('images', nargs='*', help='files; default: photographs')
  parser.add_argument('--seed', type=int, default=0, help='default: 0')


def _augment(args: Arguments) -> Figure:
  images = augmentations.photographs(args.images)
  return augmentations.contact_sheet(images, seed=args.seed)


def _curves_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'runs',
    nargs='+',
    help='run directories; those whose names differ in `seed=...` alone are '
    'one line, their mean',
  )
  parser.add_argument(
    '--metric', default='train/loss', help='of metrics.jsonl: train/loss, ...'
  )


def _curves(args: Arguments) -> Figure:
  groups = curves.group([pathlib.Path(run) for run in args.runs])
  return curves.draw(groups, metric=args.metric)


# What can be looked at: its arguments, and what draws it.
VIEWS: dict[
  str,
  tuple[
    Callable[[argparse.ArgumentParser], None], Callable[[Arguments], Figure]
  ],
] = {
  'attention': (_attention_arguments, _attention),
  'augment': (_augment_arguments, _augment),
  'batch': (_batch_arguments, _batch),
  'curves': (_curves_arguments, _curves),
  'distance': (lambda parser: _add_images(parser, most=16), _distance),
  'filters': (add_model, _filters),
  'landscape': (_landscape_arguments, _landscape),
  'posembed': (_posembed_arguments, _posembed),
  'rollout': (lambda parser: _add_images(parser, most=6), _rollout),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog='python -m vit_jax.tools.inspect',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  views = parser.add_subparsers(dest='view', required=True)
  for name, (add_arguments, _) in VIEWS.items():
    view = views.add_parser(name)
    view.add_argument(
      '-o', '--output', required=True, help='a picture: .png, .pdf, .svg'
    )
    view.add_argument(
      '--dpi', type=positive, default=DPI, help=f'default: {DPI}'
    )
    add_arguments(view)
  args = parser.parse_args(argv)
  _, draw = VIEWS[args.view]
  draw(args).savefig(args.output, dpi=args.dpi)
  print(f'Drawn in {args.output}')
  return 0


if __name__ == '__main__':
  sys.exit(command(main))
