"""The words in which the tables of `torch_names` are written.

A row says how a module is called here and there, `#` standing for a number; its
forms say how each of its arrays is written.
"""

import itertools
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
  """One module here, one or several there.

  Attributes:
    ours: its name here; '' for what has no place here, because it follows from
      the sizes or nothing reads it.
    theirs: its name there, or those of the modules that are fused here.
    forms: of its arrays.
    shares: of theirs in the first axis, e.g. (2, 1); () if they are even.
  """

  ours: str
  theirs: str | tuple[str, ...]
  forms: tuple[Form, ...]
  shares: tuple[int, ...] = ()

  @property
  def modules(self) -> tuple[str, ...]:
    """All of theirs."""
    return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

  def split(self, array: np.ndarray) -> list[np.ndarray]:
    """The part of each of their modules in one of our arrays."""
    shares = self.shares or (1,) * len(self.modules)
    ends = itertools.accumulate(shares[:-1])
    return np.split(array, [len(array) * x // sum(shares) for x in ends])


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
KERNEL = DENSE[:1]  # of a layer without a bias
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
# A layer here that is a convolution of 1 x 1 there.
POINTWISE = (
  Form(
    'kernel',
    'weight',
    lambda x, heads: x[:, :, 0, 0].T,
    lambda x: x.T[:, :, None, None],
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


def conv_bn(ours: str, *, conv: str, norm: str) -> tuple[Row, Row]:
  """The rows of a `ConvBN`, with their names of its two modules."""
  return (
    Row(f'{ours}/conv', conv, CONV[:1]),
    Row(f'{ours}/norm', norm, BATCH_NORM),
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
