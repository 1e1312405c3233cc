"""Stochastic depth: residual branches that are dropped at random."""

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


def linear_rates(rate: float, *, depth: int) -> list[float] | None:
  """Rates from 0 at the first block to `rate` at the last (section 3).

  Returns:
    A rate for each block, or None if nothing is to be dropped.

  Raises:
    ValueError: if the rate is not a probability below 1.
  """
  if not 0 <= rate < 1:
    raise ValueError(f'drop_path={rate} must lie in [0, 1)')
  return np.linspace(0, rate, depth).tolist() if rate else None


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
