"""What models there are, how large and how costly: no weights, no device.

python -m vit_jax.tools.zoo                    all models
python -m vit_jax.tools.zoo 'vit .*/16'        those that match a pattern
python -m vit_jax.tools.zoo --table=scaling    table 2 of Scaling ViT, and ours
python -m vit_jax.tools.zoo --pretrained 'B_16*'  published checkpoints
"""

import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, command


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(prog='python -m vit_jax.tools.zoo', description=__doc__)
  parser.add_argument(
    'pattern',
    nargs='?',
    default='',
    help="regular expression for 'model variant' of the table of sizes",
  )
  parser.add_argument(
    '--table', choices=('sizes', 'scaling'), default='sizes', help='which table'
  )
  parser.add_argument(
    '--pretrained',
    metavar='PATTERN',
    help="published checkpoints instead, by name: '*', 'augreg/*', 'B_16*'",
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Prints a table."""
  options = parser()
  args = options.parse_args(argv)
  if args.pretrained is not None and (args.pattern or args.table != 'sizes'):
    options.error('--pretrained goes with no other table or pattern')
  if args.table == 'scaling' and args.pattern:
    options.error('the scaling table takes no pattern')
  from vit_jax.tools.work import zoo

  return zoo.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
