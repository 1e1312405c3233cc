"""Where a program will run, which need not be where it is traced.

A step is compiled ahead of its devices, and on a machine without any of them by
`tools.plan`. What depends on the device asks `here`.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jaxtyping import Float

from vit_jax.types import Array


class Place(NamedTuple):
  """Where a program will run.

  Attributes:
    device: one of its devices.
    shards: into how many parts examples and heads are split; None where a
      kernel that XLA cannot split has no place.
    by_shard: makes of a function of arrays (b, n, h, t), that of one device,
      that of all.
  """

  device: Any
  shards: tuple[int, int] | None
  by_shard: Callable[[Callable[..., Array]], Callable[..., Array]]


class _Inside(threading.local):
  place: Place | None = None


_inside = _Inside()


@contextlib.contextmanager
def placed(place: Place) -> Iterator[None]:
  """Inside, models are traced for this place."""
  before, _inside.place = _inside.place, place
  try:
    yield
  finally:
    _inside.place = before


def here() -> Place:
  """The place that `placed` says; by default the first device, if alone."""
  if _inside.place is not None:
    return _inside.place
  alone = jax.device_count() == 1
  return Place(jax.devices()[0], (1, 1) if alone else None, lambda f: f)


def join_rows(
  x: Float[Array, '*b d'], *, keep: int = 1
) -> Float[Array, '*r d']:
  """Makes one axis of all but those to keep, where products are faster for it.

  XLA copies the operands of a kernel's gradient where several axes are summed
  over, except on TPUs. There it would copy to join them, as each matrix of the
  last two axes is laid out in tiles of its own.

  Args:
    x: an array.
    keep: how many of its last axes stay as they are.
  """
  if here().device.platform == 'tpu':
    return x
  return x.reshape(-1, *x.shape[-keep:])
