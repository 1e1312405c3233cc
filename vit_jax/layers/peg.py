"""Positions that follow from the neighbours of a token."""

import math

import flax.linen as nn
from jaxtyping import Float

from vit_jax.types import Array


class PEG(nn.Module):
  """The positional encoding generator of CPVT (arXiv:2102.10882, section 3.2).

  A depthwise convolution of 3 x 3, added to the tokens. The zeros around the
  map tell where it ends, and thereby where a token stands.
  """

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b h w d']:
    """Returns the map with positions."""
    d = x.shape[-1]
    # As in Meituan-AutoML/Twins: 2 over the 9 taps of a filter.
    init = nn.initializers.normal(math.sqrt(2 / 9))
    return x + nn.Conv(
      d, (3, 3), feature_group_count=d, kernel_init=init, name='depthwise'
    )(x)
