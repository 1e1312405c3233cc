"""Thin command lines over the rooms of the house."""

import argparse
import logging
from collections.abc import Callable

import rich.console
import rich.table
from absl import logging as absl_logging

from vit_jax import compiled
from vit_jax.trained import Trained, load, load_pretrained


def command(main: Callable[[], int | None]) -> int | str:
  """Runs a tool; a mistake of the user is one message and exit code 1."""
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.basicConfig(level=logging.WARNING, format='%(message)s')
  compiled.keep()
  try:
    return main() or 0
  except (ValueError, OSError) as error:
    return f'Error: {error}'


def add_model(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments that say which model a tool works on."""
  which = parser.add_mutually_exclusive_group(required=True)
  which.add_argument('--workdir', help='a run directory')
  which.add_argument(
    '--pretrained',
    metavar='NAME',
    help='a published checkpoint, listed by `python -m vit_jax.tools.zoo '
    "--pretrained '*'`, or the path of a copy that bears its name",
  )
  parser.add_argument(
    '--step', type=int, help='of the run; default: the newest checkpoint'
  )


def load_model(args: argparse.Namespace) -> Trained:
  """Loads the model that the arguments of `add_model` name."""
  if args.workdir:
    return load(args.workdir, step=args.step)
  return load_pretrained(args.pretrained)


def show(table: rich.table.Table, *, title: str) -> None:
  """Prints a table under its title, which may be wider than the table."""
  console = rich.console.Console()
  console.print(title, markup=False, highlight=False, soft_wrap=True)
  console.print(table)
