r"""Says whether a training step fits, and how long it may take, before it runs.

  python -m vit_jax.tools.plan --config=configs/scaling.py:G_14 \
      --config.batch_size=4096 --topology=v5p:8x8x8

compiles the step that `vit_jax.main` would run on that slice, on a machine
without a TPU: libtpu compiles for all of them (requirements-plan.txt).
`--topology=h100:8` is a host of 8 GPUs (requirements-cuda.txt). Without
--topology it is compiled for the devices that are here. No data are
needed: where they are absent, grey images stand in. `--search` tries meshes,
`remat` and micro-batches, and names the fastest that fits. docs/plan.md says
how to read what is printed.
"""

import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, command


def parser() -> Parser:
  """Of the arguments, but for those of the config."""
  parser = Parser(
    prog='python -m vit_jax.tools.plan',
    description=__doc__,
    handed_on=['--config'],
    epilog='--config=FILE.py:ARG and --config.key=value are those of '
    'vit_jax.main.',
  )
  parser.add_argument(
    '--topology',
    help='a TPU slice, such as v5e:4x4, or GPUs, such as h100 or h200:8',
  )
  parser.add_argument(
    '--num_classes', type=int, help='of grey images in place of the data'
  )
  parser.add_argument(
    '--search', action='store_true', help='try meshes, remat, micro-batches'
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args, words = parser().parse_known_args(argv)
  from vit_jax.tools.work import plan

  return plan.run(args, words)


if __name__ == '__main__':
  sys.exit(command(main))
