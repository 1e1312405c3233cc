"""Values for parameters, by regular expressions on their names."""

import re
from collections.abc import Sequence
from typing import Any

import jax

# Pairs (regex, value); the first regex that matches a whole name decides.
Table = Sequence[Sequence[Any]]


def path_name(path: tuple[Any, ...]) -> str:
  """Returns the name of a parameter, such as 'block_0/mlp/fc1/kernel'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def match(params: Any, *, table: Table, what: str) -> Any:
  """Returns a tree like `params` with, at each leaf, its value in the table.

  Args:
    params: a tree of arrays or of shapes.
    table: pairs (regex, value); a regex matches a whole name, the first wins.
    what: the option that holds the table, for errors.

  Raises:
    ValueError: if a regex matches no parameter, or no regex a parameter.
  """
  names = [
    path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]
  values = {
    name: [value for regex, value in table if re.fullmatch(regex, name)]
    for name in names
  }
  missed = [name for name in names if not values[name]]
  idle = [
    regex
    for regex, _ in table
    if not any(re.fullmatch(regex, name) for name in names)
  ]
  if idle or missed:
    raise ValueError(
      f'{what} does not fit the parameters.\n'
      + _listing('Regexes that match no parameter', idle)
      + _listing('Parameters that no regex matches', missed)
      + _listing('All parameters', names)
      + "A regex matches whole names; end with ('.*', value) for the rest."
    )
  return jax.tree.unflatten(
    jax.tree.structure(params), [values[name][0] for name in names]
  )


def _listing(title: str, lines: list[str]) -> str:
  return ''.join([f'{title}:\n', *(f'  {line}\n' for line in lines or ['-'])])
