r"""Prints the commands of many runs: `python -m vit_jax.tools.sweep FILE:ARG`.

A file in configs/ may define, beside `get_config(arg)`,

  def sweep(arg) -> list[str]

which returns the ARGs of the runs that belong together. Each becomes a command
that trains in a directory of its own; before them, as comments of the shell,
stands what the file says of itself, with the numbers that the paper reports:

  python -m vit_jax.tools.sweep configs/augreg.py:B_16,cifar100

Other flags are handed on to every run, and `--index` prints one command, for a
job of an array, such as Slurm's:

  sbatch --array=0-11 --wrap='eval "$(python -m vit_jax.tools.sweep \
      configs/augreg.py:B_16,cifar100 --index=$SLURM_ARRAY_TASK_ID)"'
"""

import ast
import pathlib
import runpy
import shlex
import sys
from collections.abc import Sequence

from vit_jax.main import default_workdir, options
from vit_jax.tools import Parser, command


def commands(
  config: str, *, workdir: str = 'runs', flags: Sequence[str] = ()
) -> list[list[str]]:
  """The commands of a sweep, in words.

  Args:
    config: FILE or FILE:ARG.
    workdir: the directory of the run directories.
    flags: for all runs.

  Raises:
    ValueError: if the file has no sweep, or none for this argument.
  """
  path, _, arg = config.partition(':')
  names = runpy.run_path(path)
  if 'sweep' not in names:
    raise ValueError(
      f'{path} defines no sweep(arg): add a function that returns the '
      'arguments of the runs, as in configs/augreg.py.'
    )
  lines = []
  for run in names['sweep'](arg or None):
    address = f'{path}:{run}'
    directory = pathlib.Path(workdir) / default_workdir(address).name
    words = [f'--config={address}', f'--workdir={directory}', *flags]
    lines.append(['python', '-m', 'vit_jax.main', *words])
  return lines


def comment(config: str) -> str:
  """The docstring of the file of FILE or FILE:ARG, as comments."""
  tree = ast.parse(pathlib.Path(config.partition(':')[0]).read_text())
  text = ast.get_docstring(tree) or ''
  return '\n'.join(f'# {line}'.rstrip() for line in text.splitlines())


def parser() -> Parser:
  """Of the arguments, but for those of the runs."""
  parser = Parser(
    prog='python -m vit_jax.tools.sweep',
    description=__doc__,
    handed_on=options(),
  )
  parser.add_argument('config', help='FILE or FILE:ARG, from configs/')
  parser.add_argument(
    '--index', type=int, help='print this command only, counted from 0'
  )
  parser.add_argument(
    '--workdir', default='runs', help='where the run directories go'
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args, flags = parser().parse_known_args(argv)
  lines = commands(args.config, workdir=args.workdir, flags=flags)
  if args.index is not None:
    if not 0 <= args.index < len(lines):
      raise ValueError(
        f'--index={args.index} is not in [0, {len(lines)}), the runs of '
        f'{args.config}.'
      )
    lines = [lines[args.index]]
  else:
    print(comment(args.config))
  for line in lines:
    print(shlex.join(line))
  return 0


if __name__ == '__main__':
  sys.exit(command(main))
