"""Serves a page that names what is in an image: `python -m vit_jax.tools.demo`.

What serves it is an extra: requirements-demo.txt.
"""

import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, add_model, command


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(
    prog='python -m vit_jax.tools.demo',
    description='Serves a page that names what is in an image.',
    epilog='example: python -m vit_jax.tools.demo --workdir=runs/quickstart',
  )
  add_model(parser)
  parser.add_argument(
    '--top', type=int, default=5, help='classes that are shown'
  )
  parser.add_argument(
    '--host',
    default='127.0.0.1',
    help='address to listen at, by default for this machine alone '
    '(default: 127.0.0.1); there is no password: with 0.0.0.0 all who reach '
    'this machine can use it',
  )
  parser.add_argument(
    '--port', type=int, default=8000, help='0 for any free one (default: 8000)'
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command until it is interrupted."""
  args = parser().parse_args(argv)
  from vit_jax.tools.work import demo

  return demo.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
