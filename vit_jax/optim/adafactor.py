"""Adafactor as modified for large vision transformers (arXiv:2106.04560, 3.4).

Different from Adam: the second moment of an array with two large axes is kept
as one vector for each of them (arXiv:1804.04235, algorithm 4), and momentum is
kept in half precision, so that the state is half a copy of the parameters.
Different from the first Adafactor: updates are neither clipped nor scaled by
the size of the parameters, and the decay of the second moment is capped.

`optax.scale_by_factored_rms` computes the same for unrolled models. In scanned
ones it would take the depth for an axis of the layer.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vit_jax.optim import layerwise


class Factored(NamedTuple):
  """Means of a second moment over the largest axis, and the next largest."""

  row: jax.Array
  column: jax.Array


class AdafactorState(NamedTuple):
  """Second moments: a tree like the parameters, with `Factored` leaves."""

  count: jax.Array
  moments: Any


def scale_by_adafactor(
  *,
  min_dim_size_to_factor: int = 32,
  decay_rate: float = 0.8,
  beta2_cap: float = 0.999,
  momentum: float = 0.9,
  momentum_dtype: str | None = 'bfloat16',
  eps: float = 1e-30,
) -> optax.GradientTransformation:
  """Divides by the factored second moment, then averages without debiasing.

  Args:
    min_dim_size_to_factor: the two largest axes are factored if both are at
      least as long.
    decay_rate: step t = 1, 2, ... keeps 1 - t^-decay_rate of the moment ...
    beta2_cap: ... and never more than this.
    momentum: of the divided gradients; 0 keeps no momentum.
    momentum_dtype: of the stored momentum; None for that of the parameters.
    eps: added to squared gradients.
  """
  divide = _divide_by_moment(
    min_dim_size_to_factor=min_dim_size_to_factor,
    decay_rate=decay_rate,
    beta2_cap=beta2_cap,
    eps=eps,
  )
  if not momentum:
    return divide
  return optax.chain(
    divide,
    optax.ema(momentum, debias=False, accumulator_dtype=momentum_dtype),
  )


def _divide_by_moment(
  *,
  min_dim_size_to_factor: int,
  decay_rate: float,
  beta2_cap: float,
  eps: float,
) -> optax.GradientTransformation:
  def largest_axes(shape):
    """Returns the axes to factor, the largest first, or None."""
    axes = sorted(range(len(shape)), key=lambda axis: shape[axis])[-2:]
    if len(axes) < 2 or shape[axes[0]] < min_dim_size_to_factor:
      return None
    return axes[1], axes[0]

  @layerwise.per_layer
  def zeros(param):
    axes = largest_axes(param.shape)
    if axes is None:
      return jnp.zeros_like(param)
    return Factored(*(jnp.zeros_like(param.mean(axis)) for axis in axes))

  @layerwise.per_layer
  def measured(grad):
    square = jnp.square(grad) + eps
    axes = largest_axes(grad.shape)
    return square if axes is None else Factored(*map(square.mean, axes))

  @layerwise.per_layer
  def divided(grad, moment):
    axes = largest_axes(grad.shape)
    if axes is None:
      return grad * jax.lax.rsqrt(moment)
    first, second = axes
    row = jnp.expand_dims(moment.row, first)
    column = jnp.expand_dims(moment.column, second)
    # Two roots rather than the root of a product, which would underflow.
    row = jax.lax.rsqrt(row / row.mean(second, keepdims=True))
    return grad * row * jax.lax.rsqrt(column)

  def init(params):
    moments = jax.tree_util.tree_map_with_path(zeros, params)
    return AdafactorState(jnp.zeros([], jnp.int32), moments)

  def update(grads, state, params=None):
    del params
    step = state.count.astype(jnp.float32) + 1
    beta2 = jnp.minimum(beta2_cap, 1 - step**-decay_rate)
    moments = jax.tree.map(
      lambda old, new: beta2 * old + (1 - beta2) * new,
      state.moments,
      jax.tree_util.tree_map_with_path(measured, grads),
    )
    grads = jax.tree_util.tree_map_with_path(divided, grads, moments)
    return grads, AdafactorState(optax.safe_increment(state.count), moments)

  return optax.GradientTransformation(init, update)
