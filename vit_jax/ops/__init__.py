"""Pure functions of tensors, without parameters; and `pick`, for tables."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def pick(
  table: Mapping[str, Callable[..., Any]], *, what: str, spec: Mapping[str, Any]
) -> Callable[..., Any]:
  """Returns the function that `spec` names, with the keywords it gives.

  Args:
    table: functions by name; their keyword-only arguments may be given.
    what: the word for an entry of the table in errors, such as 'optimizer'.
    spec: `{'name': ..., keyword: value, ...}`, as written in a config.

  Raises:
    ValueError: if there is no name, or the name or a keyword is unknown.
  """
  if 'name' not in spec:
    raise ValueError(
      f'{dict(spec)} names no {what}; add "name", one of {sorted(table)}.'
    )
  name = spec['name']
  if name not in table:
    raise ValueError(f'Unknown {what} {name!r}; {_nearest(name, table)}')
  function = table[name]
  options = {key: value for key, value in spec.items() if key != 'name'}
  known = [
    parameter.name
    for parameter in inspect.signature(function).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
  ]
  for option in options:
    if option not in known:
      raise ValueError(
        f'The {what} {name!r} has no option {option!r}; '
        f'{_nearest(option, known)}'
      )
  # Not functools.partial, where a repeated keyword silently wins.
  return lambda *args, **kwargs: function(*args, **options, **kwargs)


def _nearest(name: str, known: Any) -> str:
  close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  hint = f'did you mean {" or ".join(map(repr, close))}? ' if close else ''
  return f'{hint}Known: {", ".join(sorted(known)) or "none"}.'
