"""The words in which the tables of `torch_names` are written.

A row says how a module is called here and there, `#` standing for a number; its
forms say how each of its arrays is written.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Form(NamedTuple):
  """How one array of a module is written.

  Attributes:
    ours: its name here; '' if the row names the array itself.
    theirs: its name there.
    to_ours: (their array, number of heads) -> our array.
    from_ours: undoes it.
    by_heads: whether the number of heads matters.
  """

  ours: str
  theirs: str
  to_ours: Callable[[np.ndarray, Any], np.ndarray] = lambda x, heads: x
  from_ours: Callable[[np.ndarray], np.ndarray] = lambda x: x
  by_heads: bool = False


class Row(NamedTuple):
  """One module here, one or several there."""

  ours: str
  theirs: str | tuple[str, ...]
  forms: tuple[Form, ...]

  @property
  def modules(self) -> tuple[str, ...]:
    """All of theirs."""
    return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


def _heads_in(*fused: int) -> tuple[Form, ...]:
  """A projection into heads, or so many fused: (f * h * t, d) <-> (d, f, h, t).

  The first axis of theirs has the fused projections, then the heads.
  """

  def kernel(x, heads):
    return np.moveaxis(x.reshape(*fused, heads, -1, x.shape[-1]), -1, 0)

  def weight(x):
    return np.moveaxis(x, 0, -1).reshape(-1, len(x))

  def bias(x, heads):
    return x.reshape(*fused, heads, -1)

  return (
    Form('kernel', 'weight', kernel, weight, by_heads=True),
    Form('bias', 'bias', bias, np.ravel, by_heads=True),
  )


BIAS = Form('bias', 'bias')
ARRAY = (Form('', ''),)
DENSE = (Form('kernel', 'weight', lambda x, heads: x.T, np.transpose), BIAS)
NORM = (Form('scale', 'weight'), BIAS)
SCALE = (Form('scale', 'gamma'),)
BATCH_NORM = (
  *NORM,
  Form('mean', 'running_mean'),
  Form('var', 'running_var'),
)
CONV = (
  Form(
    'kernel',
    'weight',
    lambda x, heads: x.transpose(2, 3, 1, 0),
    lambda x: x.transpose(3, 2, 0, 1),
  ),
  BIAS,
)
Q, KV, QKV = _heads_in(), _heads_in(2), _heads_in(3)
HEADS_OUT = (
  Form(
    'kernel',
    'weight',
    lambda x, heads: x.T.reshape(heads, -1, x.shape[0]),
    lambda x: x.reshape(-1, x.shape[-1]).T,
    by_heads=True,
  ),
  BIAS,
)


def respell(
  rows: tuple[Row, ...], renames: Mapping[str, str]
) -> tuple[Row, ...]:
  """The same table, with parts of their names replaced in this order."""

  def spell(name):
    for old, new in renames.items():
      name = name.replace(old, new)
    return name

  return tuple(
    row._replace(theirs=tuple(map(spell, row.modules))) for row in rows
  )
