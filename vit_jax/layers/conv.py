"""Convolutions."""

import flax.linen as nn
import jax
from jaxtyping import Float

from vit_jax.types import Array


class StdConv(nn.Module):
  """A convolution, without bias, of standardised weights (2D, NHWC, 'SAME').

  Each filter has mean 0 and variance 1 over its height, width and input
  channels (Weight Standardization, arXiv:1903.10520).

  Attributes:
    features: output channels.
    kernel_size: a side in pixels.
    stride: in both directions.
  """

  features: int
  kernel_size: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b y x d']:
    """Convolves; y = ceil(h / stride), x = ceil(w / stride)."""
    kernel = self.param(
      'kernel',
      nn.initializers.lecun_normal(),
      (self.kernel_size, self.kernel_size, x.shape[-1], self.features),
    )
    kernel = kernel - kernel.mean((0, 1, 2), keepdims=True)
    # The published weights were trained with epsilon added to the deviation,
    # not to the variance under the root.
    kernel = kernel / (kernel.std((0, 1, 2), keepdims=True) + 1e-5)
    return jax.lax.conv_general_dilated(
      x,
      kernel.astype(x.dtype),
      window_strides=(self.stride, self.stride),
      padding='SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
