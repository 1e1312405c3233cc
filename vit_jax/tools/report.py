"""Writes one page about a run: `python -m vit_jax.tools.report`."""

import pathlib
import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, command


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(
    prog='python -m vit_jax.tools.report',
    description='Writes one page about a run, finished or not.',
    epilog='example: python -m vit_jax.tools.report --workdir=runs/quickstart',
  )
  parser.add_argument(
    '--workdir', type=pathlib.Path, required=True, help='a run directory'
  )
  parser.add_argument(
    '--step', type=int, help='which checkpoint; default: the newest'
  )
  parser.add_argument(
    '--most', type=int, help='examples of a set, evenly spread; default: all'
  )
  parser.add_argument(
    *('-o', '--output'),
    type=pathlib.Path,
    help='default: report.html in the run directory',
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args = parser().parse_args(argv)
  from vit_jax.tools.work import report

  return report.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
