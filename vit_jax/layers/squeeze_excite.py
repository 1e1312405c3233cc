"""Channels that are weighted by what the whole map holds."""

import flax.linen as nn
from jaxtyping import Float

from vit_jax.types import Array

_INIT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class SqueezeExcite(nn.Module):
  """Squeeze-and-excitation (arXiv:1709.01507, equations 2 to 4).

  With a SiLU where the paper has a ReLU, as in EfficientNet.

  Attributes:
    hidden: width between the two layers.
  """

  hidden: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w d']) -> Float[Array, 'b h w d']:
    """Scales each channel by a number from 0 to 1."""
    gate = x.mean(axis=(1, 2), keepdims=True)  # (B, 1, 1, D)
    gate = nn.Dense(self.hidden, kernel_init=_INIT, name='reduce')(gate)
    gate = nn.Dense(x.shape[-1], kernel_init=_INIT, name='expand')(
      nn.silu(gate)
    )
    return x * nn.sigmoid(gate)
