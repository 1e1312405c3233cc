"""Names what is in images: `python -m vit_jax.tools.predict`."""

import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, add_model, command


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(
    prog='python -m vit_jax.tools.predict',
    description='Prints the most probable classes of images.',
    epilog='example: python -m vit_jax.tools.predict '
    "--workdir=runs/quickstart photo.jpg more/ 'digits:test[:5]'",
  )
  add_model(parser)
  parser.add_argument(
    'images',
    nargs='+',
    help='image files, folders of images, or addresses of data as in '
    'config.data.train',
  )
  parser.add_argument('--top', type=int, default=3, help='classes per image')
  parser.add_argument('--json', action='store_true', help='for programs')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 1 if an image could not be read."""
  args = parser().parse_args(argv)
  from vit_jax.tools.work import predict

  return predict.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
