"""The stages of an optimiser around its direction of descent.

Where a stage takes `mults`, these are a tree of numbers like the parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.optim import layerwise


def clip(limit: float | None) -> optax.GradientTransformation:
  """Scales gradients down to a global norm of at most `limit`."""
  if limit is None:
    return optax.identity()
  if limit <= 0:
    raise ValueError(
      f'clip_norm={limit} must be above 0; None switches it off.'
    )

  def clipped(grads, params):
    del params
    # Unlike limit / norm, this is finite where all gradients are 0.
    factor = limit / jnp.maximum(optax.tree.norm(grads), limit)
    return jax.tree.map(lambda grad: grad * factor.astype(grad.dtype), grads)

  return optax.stateless(clipped)


def skip(
  frozen: Any, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
  """Applies `inner` to all but frozen parameters, whose updates are 0."""
  if not any(jax.tree.leaves(frozen)):
    return inner
  return optax.partition(
    {'trained': inner, 'frozen': optax.set_to_zero()},
    jax.tree.map(
      lambda is_frozen: 'frozen' if is_frozen else 'trained', frozen
    ),
  )


def add_weight_decay(
  weight_decay: float, *, mults: Any
) -> optax.GradientTransformation:
  """Adds weight_decay * mult * param."""
  if not weight_decay:
    return optax.identity()
  return optax.stateless(
    lambda updates, params: jax.tree.map(
      lambda update, param, mult: update + weight_decay * mult * param,
      updates,
      params,
      mults,
    )
  )


def trust_ratio(*, mults: Any) -> optax.GradientTransformation:
  """Scales the update of a layer to the norm of its parameters, for LAMB.

  See arXiv:1904.00962, algorithm 2. Parameters with a multiplier of 0, those
  that do not decay, are left alone as in DeiT III (arXiv:2204.07118): a bias
  starts at 0, and could hardly leave it.
  """

  @layerwise.per_layer
  def scaled(update, param):
    param_norm = jnp.linalg.norm(param.ravel())
    update_norm = jnp.linalg.norm(update.ravel())
    usual = (param_norm > 0) & (update_norm > 0)
    ratio = param_norm / jnp.where(usual, update_norm, 1)
    return update * jnp.where(usual, ratio, 1).astype(update.dtype)

  return optax.stateless(
    lambda updates, params: jax.tree_util.tree_map_with_path(
      lambda path, update, param, mult: (
        scaled(path, update, param) if mult else update
      ),
      updates,
      params,
      mults,
    )
  )


def scale(*, mults: Any) -> optax.GradientTransformation:
  """Multiplies updates by numbers, or by arrays that broadcast to them."""
  return optax.stateless(
    lambda updates, params: jax.tree.map(
      lambda update, mult: update * jnp.asarray(mult, update.dtype),
      updates,
      mults,
    )
  )
