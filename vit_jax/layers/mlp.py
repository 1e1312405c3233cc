"""The MLP of a transformer block."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from vit_jax.lookup import choose
from vit_jax.ops.place import here, join_rows
from vit_jax.types import Array


def _quick_gelu(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  """Returns x sigmoid(1.702 x), section 2 of arXiv:1606.08415."""
  return x * nn.sigmoid(1.702 * x)


def _exact_gelu(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  """Returns x P(X <= x) of a standard normal X, as equation 1 there has it.

  It errs by 1e-6, as torch does. `nn.gelu` by less: it has 1 - erf, a function
  with branches. In float32, since 1 + erf would be coarse in 16 bits.
  """
  below = 0.5 + 0.5 * lax.erf(x.astype(jnp.float32) * math.sqrt(0.5))
  return x * below.astype(x.dtype)


# Google's models were trained with the tanh approximation, most of Meta's and
# Microsoft's with the exact function; they differ by up to 5e-4. OpenAI's CLIP
# and CvT have the quick one, which differs by up to 0.02.
GELU = {
  'erf': _exact_gelu,
  'quick': _quick_gelu,
  'tanh': functools.partial(nn.gelu, approximate=True),
}


class Mlp(nn.Module):
  """Dense, GELU, dense, with dropout after both (ViT, section 3.1).

  Attributes:
    mlp_dim: width of the hidden layer.
    gelu: 'tanh', 'erf' or 'quick'.
    dropout: probability to drop a unit.
    kernel_init: of both kernels.
    bias_init: of both biases.
  """

  mlp_dim: int
  gelu: str = 'tanh'
  dropout: float = 0.0
  kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
  bias_init: nn.initializers.Initializer = nn.initializers.normal(1e-6)

  @nn.compact
  def __call__(
    self, x: Float[Array, '*b d'], *, train: bool = False
  ) -> Float[Array, '*b d']:
    """Maps the last axis; `train` switches dropout on."""
    dense = functools.partial(
      nn.Dense, kernel_init=self.kernel_init, bias_init=self.bias_init
    )
    dropout = nn.Dropout(self.dropout, deterministic=not train)
    gelu = choose(GELU, word=self.gelu, kind='gelu')
    if here().device.platform == 'gpu':
      # Only its input is stored. For TPUs, XLA finds what is best by itself.
      gelu = jax.checkpoint(gelu)
    hidden = dropout(gelu(dense(self.mlp_dim, name='fc1')(join_rows(x))))
    rows = dropout(dense(x.shape[-1], name='fc2')(hidden))
    return rows.reshape(x.shape)
