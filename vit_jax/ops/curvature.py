"""How a loss bends: its Hessian, by what it does to vectors."""

from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse.linalg
from jaxtyping import Float

from vit_jax.ops import kernels
from vit_jax.types import Array, Params


def hessian_product(
  loss: Callable[[Params], Array], params: Params, vector: Params
) -> Params:
  """Returns the Hessian of a loss at `params`, times a vector."""
  with kernels.using('xla'):  # Fused ones have no second derivative.
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def largest_eigenvalue(
  product: Callable[[Params], Params],
  like: Params,
  *,
  iterations: int,
  tolerance: float,
  seed: int = 0,
) -> float:
  """Returns the eigenvalue of largest magnitude, by power iteration.

  Args:
    product: multiplies a vector by a symmetric matrix.
    like: a vector, for its structure, shapes and types.
    iterations: at most so many products.
    tolerance: stops when the estimate changes by less than this part of itself.
    seed: of the vector that it starts with.
  """
  vector = _unit(optax.tree.random_like(jax.random.key(seed), like))
  estimate = 0.0
  for _ in range(iterations):
    image = product(vector)
    before, estimate = estimate, float(optax.tree.vdot(vector, image))
    if abs(estimate - before) <= tolerance * abs(estimate):
      break
    vector = _unit(image)
  return estimate


def leading_eigenvalues(
  product: Callable[[Params], Params],
  like: Params,
  *,
  number: int,
  tolerance: float = 1e-3,
  seed: int = 0,
) -> Float[np.ndarray, ' k']:
  """Returns the largest eigenvalues, the largest first, by ARPACK's Lanczos.

  Args:
    product: multiplies a vector by a symmetric matrix.
    like: a vector, for its structure, shapes and types.
    number: of eigenvalues, fewer than the vector has elements.
    tolerance: relative, of the eigenvalues.
    seed: of the vector that it starts with.
  """
  flat, unravel = jax.flatten_util.ravel_pytree(like)
  matrix = scipy.sparse.linalg.LinearOperator(
    (flat.size, flat.size),
    matvec=lambda x: jax.flatten_util.ravel_pytree(
      product(unravel(jnp.asarray(x, flat.dtype).ravel()))
    )[0],
    dtype=flat.dtype,
  )
  start = np.random.default_rng(seed).normal(size=flat.size)
  values = scipy.sparse.linalg.eigsh(
    matrix,
    k=number,
    which='LA',
    tol=tolerance,
    v0=start.astype(flat.dtype),
    return_eigenvectors=False,
  )
  return np.sort(values)[::-1]


def _unit(tree: Params) -> Params:
  return optax.tree.scale(1 / jnp.maximum(optax.tree.norm(tree), 1e-30), tree)
