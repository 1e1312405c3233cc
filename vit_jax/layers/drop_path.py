"""Stochastic depth: residual branches that are dropped at random."""

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, UInt32

from vit_jax.types import Array

Rng = PRNGKeyArray | UInt32[Array, '2']


def drop_path(
  x: Float[Array, 'b *d'], *, rate: float | Float[Array, ''], rng: Rng
) -> Float[Array, 'b *d']:
  """Zeroes whole examples; the others are divided by 1 - rate.

  The mean is thereby kept (Deep networks with stochastic depth, section 3;
  scaled in training rather than in evaluation).

  Args:
    x: a residual branch.
    rate: probability to drop an example, in [0, 1); may be traced.
    rng: key of the draw.
  """
  keep = 1 - rate
  mask = jax.random.bernoulli(rng, keep, (len(x),) + (1,) * (x.ndim - 1))
  return jnp.where(mask, x / jnp.asarray(keep, x.dtype), 0)


def linear_rates(
  rate: float | Sequence[float], *, depth: int
) -> list[float] | None:
  """Rates that rise linearly from the first block to the last (section 3).

  Args:
    rate: of the last block, where the first has 0; or (first, last), which may
      be equal.
    depth: number of blocks.

  Returns:
    A rate for each block, or None if nothing is to be dropped.

  Raises:
    ValueError: if a rate is not a probability below 1.
  """
  first, last = rate if isinstance(rate, Sequence) else (0.0, rate)
  if not (0 <= first < 1 and 0 <= last < 1):
    raise ValueError(f'drop_path={rate} must lie in [0, 1)')
  return np.linspace(first, last, depth).tolist() if first or last else None


def stage_rates(
  rate: float | Sequence[float], *, depths: Sequence[int]
) -> list[tuple[float, float]]:
  """The rates of the first and the last block of each stage.

  Args:
    rate: as in `linear_rates`, over the blocks of all stages.
    depths: number of blocks of each stage.
  """
  total = sum(depths)
  rates = linear_rates(rate, depth=total) or [0.0] * total
  ends = itertools.accumulate(depths)
  return [
    (rates[end - depth], rates[end - 1])
    for depth, end in zip(depths, ends, strict=True)
  ]


class DropPath(nn.Module):
  """`drop_path` in training, with a key from the stream 'dropout'."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b *d'],
    *,
    rate: float | Float[Array, ''] | None,
    train: bool = False,
  ) -> Float[Array, 'b *d']:
    """Returns x as it is in evaluation or if the rate is None."""
    if not train or rate is None:
      return x
    return drop_path(x, rate=rate, rng=self.make_rng('dropout'))
