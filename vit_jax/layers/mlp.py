"""The MLP of a transformer block."""

import functools

import flax.linen as nn
from jaxtyping import Float

from vit_jax.lookup import choose
from vit_jax.types import Array


def _quick_gelu(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  """Returns x sigmoid(1.702 x), section 2 of arXiv:1606.08415."""
  return x * nn.sigmoid(1.702 * x)


# Google's models were trained with the tanh approximation, most of Meta's and
# Microsoft's with the exact function; they differ by up to 5e-4. OpenAI's CLIP
# and CvT have the quick one, which differs by up to 0.02.
GELU = {
  'erf': functools.partial(nn.gelu, approximate=False),
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
    hidden = dropout(gelu(dense(self.mlp_dim, name='fc1')(x)))
    return dropout(dense(x.shape[-1], name='fc2')(hidden))
