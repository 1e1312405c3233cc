"""Words of a config, looked up in tables, with errors that help to spell."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar('T')


def unknown(word: object, *, known: Iterable[str], kind: str) -> ValueError:
  """The error that names `word`, the nearest known words, and all of them."""
  known = list(known)
  near = difflib.get_close_matches(str(word), known, n=3, cutoff=0.4)
  if near:  # Without those that are much farther than the nearest.
    least = 0.8 * _likeness(near[0], word)
    near = [x for x in near if _likeness(x, word) > least]
  hint = f'Did you mean {" or ".join(map(repr, near))}? ' if near else ''
  return ValueError(
    f'Unknown {kind}: {word!r}. {hint}Known: {", ".join(known) or "none"}.'
  )


def _likeness(known: str, word: object) -> float:
  return difflib.SequenceMatcher(None, known, str(word)).ratio()


def choose(table: Mapping[str, T], *, word: str, kind: str) -> T:
  """`table[word]`.

  Raises:
    ValueError: if `word` is not in the table.
  """
  if word not in table:
    raise unknown(word, known=table, kind=kind)
  return table[word]


def pick(
  table: Mapping[str, Callable[..., Any]],
  *,
  spec: Mapping[str, Any],
  kind: str,
  given: Sequence[str] = (),
  hints: Sequence[str] = (),
) -> Callable[..., Any]:
  """Returns the function that `spec` names, with the keywords that it gives.

  Args:
    table: functions by name; their keyword-only arguments may be given.
    spec: `{'name': ..., keyword: value, ...}`, as written in a config.
    kind: the word for an entry of the table, such as 'optimizer'.
    given: keywords that the caller itself will give.
    hints: what else the user may have meant, for the error.

  Raises:
    ValueError: if a name or a keyword is unknown or missing.
  """
  if 'name' not in spec:
    raise ValueError(
      f'{dict(spec)} names no {kind}; add "name", one of {sorted(table)}.'
    )
  name = spec['name']
  function = choose(table, word=name, kind=kind)
  options = {key: value for key, value in spec.items() if key != 'name'}
  known = {
    parameter.name: parameter
    for parameter in inspect.signature(function).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in given
  }
  for option in options:
    if option not in known:
      kind = f'option of {kind} {name!r}'
      raise unknown(option, known=[*known, *hints], kind=kind)
  for parameter in known.values():
    if parameter.default is parameter.empty and parameter.name not in options:
      raise ValueError(f'The {kind} {name!r} needs {parameter.name!r}.')
  return functools.partial(function, **options)


def diff(old: Any, new: Any, path: str) -> list[str]:
  """Lists the differences of two trees, `- path: old` and `+ path: new`."""
  if isinstance(old, dict) and isinstance(new, dict):
    lines = []
    for key in sorted(old.keys() | new.keys()):
      if key not in new:
        lines.append(f'- {path}.{key}: {old[key]!r}')
      elif key not in old:
        lines.append(f'+ {path}.{key}: {new[key]!r}')
      else:
        lines += diff(old[key], new[key], f'{path}.{key}')
    return lines
  return [] if old == new else [f'- {path}: {old!r}', f'+ {path}: {new!r}']
