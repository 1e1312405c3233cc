"""Pooling of tokens into one feature."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vit_jax.layers.attention import CrossAttention
from vit_jax.layers.mlp import Mlp
from vit_jax.types import Array


class MAPHead(nn.Module):
  """Multi-head attention pooling (Scaling Vision Transformers, section 3.2).

  A learned probe attends to all tokens; an MLP with a residual follows.

  Attributes:
    num_heads: of the attention.
    mlp_dim: hidden width of the MLP.
    gelu: 'tanh', 'erf' or 'quick'.
  """

  num_heads: int
  mlp_dim: int
  gelu: str = 'tanh'

  @nn.compact
  def __call__(self, tokens: Float[Array, 'b n d']) -> Float[Array, 'b d']:
    """Returns one feature for each example."""
    b, _, d = tokens.shape
    probe = self.param('probe', nn.initializers.xavier_uniform(), (1, 1, d))
    probe = jnp.broadcast_to(probe, (b, 1, d)).astype(tokens.dtype)
    x = CrossAttention(self.num_heads, name='attn')(probe, tokens)
    y = nn.LayerNorm(epsilon=1e-6, name='norm')(x)
    x = x + Mlp(self.mlp_dim, gelu=self.gelu, name='mlp')(y)
    return x[:, 0]  # (B, D)
