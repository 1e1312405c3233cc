"""Thin command lines over the rooms of the house."""

import logging
from collections.abc import Callable

from absl import logging as absl_logging


def command(main: Callable[[], int | None]) -> int | str:
  """Runs a tool; a mistake of the user is one message and exit code 1."""
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.basicConfig(level=logging.WARNING, format='%(message)s')
  try:
    return main() or 0
  except (ValueError, OSError) as error:
    return f'Error: {error}'
