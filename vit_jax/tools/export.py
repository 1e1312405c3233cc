"""Takes a trained model elsewhere: `python -m vit_jax.tools.export`.

Each target is a directory with the model, labels.txt, preprocessing.json and a
README.md that says how to load it. What was written is read again, by the
library it is for where that is installed, and must give the same logits.
Everything is in float32.
"""

import pathlib
import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, add_model, command

# The keys of the table in vit_jax/pretrained/targets.py, which imports jax.
TARGETS = ('npz', 'timm', 'hf', 'onnx', 'stablehlo')


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(
    prog='python -m vit_jax.tools.export',
    description='Writes a trained model for other libraries, and checks that '
    'it computes there what it computes here.',
    epilog='example: python -m vit_jax.tools.export '
    '--workdir=runs/quickstart --to=onnx',
  )
  add_model(parser)
  parser.add_argument('--to', required=True, choices=TARGETS)
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    help='default: WORKDIR/export/TARGET, or export/NAME/TARGET',
  )
  parser.add_argument(
    '--data',
    default='',
    help='address of the images for the check, as in config.data.train; '
    'default: those of the first evaluation set, or two photographs',
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args = parser().parse_args(argv)
  from vit_jax.tools.work import export

  return export.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
