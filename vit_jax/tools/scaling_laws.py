"""Draws the compute frontier of runs: `python -m vit_jax.tools.scaling_laws`.

Each run is a point: the compute that it spent, the error that it reached. The
runs that none beats at the same or less compute are the frontier, to which a
power law that saturates at both ends is fitted (Scaling Vision Transformers,
arXiv:2106.04560, section 2),

  E = a (C + d)^-b + c

where c is the error that no compute removes, and d what even no compute at all
is worth. configs/scaling_laws.py makes such runs.

  python -m vit_jax.tools.scaling_laws 'runs/digits/*' --output=frontier.png
"""

import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, command


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(
    prog='python -m vit_jax.tools.scaling_laws', description=__doc__
  )
  parser.add_argument('runs', nargs='+', help="run directories: 'runs/a*'")
  parser.add_argument(
    '--metric', default='test/accuracy', help='of metrics.jsonl'
  )
  parser.add_argument('--output', default='scaling_laws.png', help='a picture')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args = parser().parse_args(argv)
  from vit_jax.tools.work import scaling_laws

  return scaling_laws.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
