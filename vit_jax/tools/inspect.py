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
import sys
from collections.abc import Callable, Sequence

from vit_jax.tools import Parser, add_model, command


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
    help='images that are looked at',
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
  parser.add_argument('--heads', type=positive, default=8, help='at most')


def _posembed_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  _add_heads(parser)


def _landscape_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument(
    '--data', default='', help='labelled images (default: those of the run)'
  )
  parser.add_argument(
    *('--most', '-n'), type=positive, default=512, help='images'
  )
  parser.add_argument('--points', type=positive, default=21, help='per axis')
  parser.add_argument('--reach', type=float, default=1.0, help='of the axes')
  parser.add_argument('--seed', type=int, default=0, help='of what is drawn')


def _batch_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  parser.add_argument('--at', type=int, default=1, help='step of the training')
  parser.add_argument('--most', type=positive, default=24, help='images')


def _augment_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('images', nargs='*', help='files; default: photographs')
  parser.add_argument('--seed', type=int, default=0, help='of what is drawn')


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


EXAMPLE = 'example: python -m vit_jax.tools.inspect {view} -o {view}.png {args}'
EXAMPLES = {
  **dict.fromkeys(
    ('attention', 'rollout', 'distance'),
    "--workdir=runs/quickstart 'digits:test[:1]'",
  ),
  **dict.fromkeys(
    ('batch', 'filters', 'landscape', 'posembed'), '--workdir=runs/quickstart'
  ),
  'augment': 'photo.jpg',
  'curves': '--metric=test/accuracy runs/one runs/other',
}

# What can be looked at: a line, and its arguments.
VIEWS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
  'attention': (
    'what one token attends to, head by head',
    _attention_arguments,
  ),
  'augment': ('every augmentation, on a contact sheet', _augment_arguments),
  'batch': ('a training batch as the model sees it', _batch_arguments),
  'curves': ('metrics over training, seeds as a band', _curves_arguments),
  'distance': (
    'how far each head looks, in pixels',
    lambda parser: _add_images(parser, most=16),
  ),
  'filters': ('the filters of the first layer', add_model),
  'landscape': (
    'the loss around the trained parameters',
    _landscape_arguments,
  ),
  'posembed': (
    'position embeddings, or the biases of the attention',
    _posembed_arguments,
  ),
  'rollout': (
    'how much of each place reaches the head',
    lambda parser: _add_images(parser, most=6),
  ),
}


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(prog='python -m vit_jax.tools.inspect', description=__doc__)
  views = parser.add_subparsers(dest='view', required=True, metavar='VIEW')
  for name, (line, add_arguments) in VIEWS.items():
    view = views.add_parser(
      name,
      help=line,
      description=f'Draws {line}.',
      epilog=EXAMPLE.format(view=name, args=EXAMPLES[name]),
    )
    view.add_argument(
      '-o', '--output', required=True, help='a picture: .png, .pdf, .svg'
    )
    view.add_argument(
      '--dpi', type=positive, default=200, help='pixels an inch'
    )
    add_arguments(view)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args = parser().parse_args(argv)
  from vit_jax.tools.work import inspect

  return inspect.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
