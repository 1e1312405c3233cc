"""Decodes and shrinks images once, so that training need not do it each time.

  python -m vit_jax.tools.prepare --data=/my/images --output=/my/packed
  python -m vit_jax.main --config=... --config.data.train=/my/packed

Each split of the data becomes a folder of raw pixels that is mapped into
memory, `data/packed.py`: an image of 256 x 341 pixels takes 262 kB. Images are
shrunk so that the shorter side is --size; smaller ones stay as they are. What
cannot be read is left out and named. --check=/my/packed reads it all again and
compares the checksums.
"""

import pathlib
import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, command


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(prog='python -m vit_jax.tools.prepare', description=__doc__)
  parser.add_argument('--data', help='an address, see vit_jax/data/sources.py')
  parser.add_argument('--output', type=pathlib.Path, help='a folder')
  parser.add_argument(
    '--size', type=int, default=256, help='of the shorter side, in pixels'
  )
  parser.add_argument('--data_dir', help='of TFDS')
  parser.add_argument(
    '--num_threads', type=int, help='default: one for each core'
  )
  parser.add_argument(
    '--check', metavar='FOLDER', help='compare checksums, and write nothing'
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  options = parser()
  args = options.parse_args(argv)
  if not (args.check or args.data and args.output):
    options.error('--data and --output are needed')
  from vit_jax.tools.work import prepare

  return prepare.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
