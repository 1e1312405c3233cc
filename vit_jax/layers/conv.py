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


class ConvBN(nn.Module):
  """A convolution, without bias, and the norm of its batch (arXiv:1502.03167).

  In training, the norm is that of the batch at hand, and a share of it enters
  the running statistics, in the collection `batch_stats`; else it is theirs.

  Attributes:
    features: output channels.
    kernel_size: a side in pixels; there are zeros around the map for half of
      it, on all sides alike.
    stride: in both directions.
    groups: of channels that do not see each other.
    same_padding: whether the zeros are TensorFlow's 'SAME' instead, of which
      the bottom and the right get the odd one.
    epsilon: of the norm.
    momentum: share of the running statistics that stays.
    kernel_init: of the kernel; He's by default, for the way back.
    scale_init: of the norm.
  """

  features: int
  kernel_size: int
  stride: int = 1
  groups: int = 1
  same_padding: bool = False
  epsilon: float = 1e-5
  momentum: float = 0.9
  kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
    2.0, 'fan_out', 'normal'
  )
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b y x d']:
    """Convolves; for odd kernels y = ceil(h / stride), x = ceil(w / stride)."""
    side = (self.kernel_size, self.kernel_size)
    x = nn.Conv(
      self.features,
      side,
      strides=(self.stride, self.stride),
      padding='SAME' if self.same_padding else self.kernel_size // 2,
      feature_group_count=self.groups,
      use_bias=False,
      kernel_init=self.kernel_init,
      name='conv',
    )(x)
    return nn.BatchNorm(
      use_running_average=not train,
      momentum=self.momentum,
      epsilon=self.epsilon,
      scale_init=self.scale_init,
      name='norm',
    )(x)
