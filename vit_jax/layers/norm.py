"""Scaling of a residual branch."""

import flax.linen as nn
from jaxtyping import Float

from vit_jax.types import Array


class LayerScale(nn.Module):
  """One learned factor per channel (CaiT, section 2).

  Attributes:
    start: the value that all factors start from, e.g. 1e-4.
  """

  start: float

  @nn.compact
  def __call__(self, x: Float[Array, '*b d']) -> Float[Array, '*b d']:
    """Multiplies the last axis."""
    width = x.shape[-1]
    scale = self.param('scale', nn.initializers.constant(self.start), (width,))
    return x * scale.reshape((1,) * (x.ndim - 1) + (width,)).astype(x.dtype)
