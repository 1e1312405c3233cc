"""Fixed position embeddings."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax.types import Array


def sincos_2d(
  grid: tuple[int, int], *, width: int, temperature: float = 10_000.0
) -> Float[Array, 'n d']:
  """Sines and cosines of column and row, in row-major order.

  The four quarters of the width are sin(x f), cos(x f), sin(y f), cos(y f); the
  frequencies f fall geometrically from 1 to 1 / temperature, both included
  (Better plain ViT baselines for ImageNet-1k, section 2). MAE stops one step
  short of 1 / temperature, and MoCo v3 also puts the row first: their tables
  are not interchangeable with this one.

  Args:
    grid: (h, w) in patches; n = h * w.
    width: d, a multiple of 4 and at least 8.
    temperature: the largest wavelength over 2 pi, in patches.

  Raises:
    ValueError: if the width cannot be cut into quarters.
  """
  if width % 4 or width < 8:
    raise ValueError(
      f'sincos_2d needs a width that is a multiple of 4 and at least 8, not '
      f'{width}'
    )
  y, x = np.mgrid[: grid[0], : grid[1]].reshape(2, -1)
  frequency = temperature ** -np.linspace(0, 1, width // 4)
  angle_x, angle_y = np.outer(x, frequency), np.outer(y, frequency)
  table = [np.sin(angle_x), np.cos(angle_x), np.sin(angle_y), np.cos(angle_y)]
  return jnp.asarray(np.concatenate(table, axis=1), jnp.float32)
