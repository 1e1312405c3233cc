"""The type in which numbers are computed."""

from typing import Any

import jax
import jax.numpy as jnp


def cast(tree: Any, dtype: str) -> Any:
  """Casts the floating-point arrays of a tree."""
  return jax.tree.map(
    lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
    tree,
  )
