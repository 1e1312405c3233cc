"""Fewer keys and values than queries."""

import flax.linen as nn
from jaxtyping import Float

from vit_jax.types import Array


class SpatialReduction(nn.Module):
  """Makes one token of R x R (PVT, arXiv:2102.12122, section 3.3).

  Rows and columns at the bottom and the right that do not fill a group are left
  out.

  Attributes:
    ratio: R.
  """

  ratio: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b n d']:
    """Returns n = (h // R) * (w // R) tokens, normed.

    Raises:
      ValueError: if the map is smaller than a group.
    """
    b, h, w, d = x.shape
    if min(h, w) < self.ratio:
      raise ValueError(
        f'a map of {h}x{w} is smaller than its reduction of {self.ratio}x'
        f'{self.ratio}: enlarge the image or choose smaller reductions'
      )
    side = (self.ratio, self.ratio)
    x = nn.Conv(d, side, strides=side, padding='VALID', name='proj')(x)
    x = x.reshape(b, -1, d)  # (B, N, D)
    return nn.LayerNorm(epsilon=1e-5, name='norm')(x)
