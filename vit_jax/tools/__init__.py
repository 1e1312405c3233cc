"""Thin command lines over the rooms of the house."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import rich.console
import rich.table
from absl import logging as absl_logging

from vit_jax.lookup import unknown


class Parser(argparse.ArgumentParser):
  """Of the arguments of a tool; answers a misspelt one with the nearest.

  Attributes:
    handed_on: options of `vit_jax.main` that the tool hands on; with
      '--config', every '--config.key' as well.
  """

  def __init__(self, *, handed_on: Sequence[str] = (), **options: Any):
    self.handed_on = tuple(handed_on)
    options = {'formatter_class': _Help, 'allow_abbrev': False, **options}
    super().__init__(**options)

  def parse_known_args(self, args=None, namespace=None):
    """As that of argparse, which complains of what is missing first."""
    words = list(sys.argv[1:] if args is None else args)
    self._refuse_unknown(words)
    return super().parse_known_args(words, namespace)

  def _refuse_unknown(self, words: Sequence[str]) -> None:
    known = dict.fromkeys([*self._option_string_actions, *self.handed_on])
    subcommands = {
      name: parser
      for action in self._actions
      if isinstance(action, argparse._SubParsersAction)
      for name, parser in action.choices.items()
    }
    for index, word in enumerate(words):
      if word in subcommands:
        return subcommands[word]._refuse_unknown(words[index + 1 :])
      name = word.partition('=')[0]
      if name == '--':
        return None
      ours = name in known or name.partition('.')[0] in self.handed_on
      if name.startswith('--') and not ours:
        long = [option for option in known if option.startswith('--')]
        self.error(str(unknown(name, known=long, kind='option')))

  def _check_value(self, action, value):
    if action.choices is not None and value not in action.choices:
      kind = '/'.join(action.option_strings) or action.dest
      reason = unknown(value, known=action.choices, kind=kind)
      raise argparse.ArgumentError(None, str(reason))


class _Help(argparse.RawDescriptionHelpFormatter):
  """Leaves descriptions as they are written, and adds defaults."""

  def _get_help_string(self, action):
    text = action.help or ''
    if any(action.default is x for x in (None, '', False, argparse.SUPPRESS)):
      return text
    return text if 'default' in text else f'{text} (default: %(default)s)'


def command(main: Callable[[], int | None]) -> int | str:
  """Runs a tool; a mistake of the user is one message and exit code 1."""
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.basicConfig(level=logging.WARNING, format='%(message)s')
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


def show(table: rich.table.Table, *, title: str) -> None:
  """Prints a table under its title, which may be wider than the table."""
  console = rich.console.Console()
  console.print(title, markup=False, highlight=False, soft_wrap=True)
  console.print(table)
