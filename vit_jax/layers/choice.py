"""Looking a word up in a table, with an error that helps to spell it."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar('T')


def unknown(word: object, *, known: Iterable[str], kind: str) -> ValueError:
  """The error that names `word`, the nearest known words, and all of them."""
  known = list(known)
  near = difflib.get_close_matches(str(word), known, n=3, cutoff=0.4)
  hint = f'did you mean {" or ".join(map(repr, near))}? ' if near else ''
  return ValueError(
    f'unknown {kind} {word!r}: {hint}Known: {", ".join(known)}.'
  )


def choose(table: Mapping[str, T], *, word: str, kind: str) -> T:
  """`table[word]`.

  Raises:
    ValueError: if `word` is not in the table.
  """
  if word not in table:
    raise unknown(word, known=table, kind=kind)
  return table[word]
