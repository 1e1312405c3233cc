"""The ResNet in front of the hybrid vision transformers.

An Image is Worth 16x16 Words, arXiv:2010.11929, section 3.1 and appendix B.
Different from the ResNet of He et al. (arXiv:1512.03385), which is in
`models/resnet.py`: group norm in place of batch norm and standardised weights,
hence no batch statistics; no head.
Different from BiT (arXiv:1912.11370): the activations follow the convolutions.

Departures from google-research/vision_transformer: none in the function; stages
and units are counted from 0.
"""

import functools

import flax.linen as nn
from jaxtyping import Float

from vit_jax.layers.conv import StdConv
from vit_jax.types import Array

_group_norm = functools.partial(nn.GroupNorm, num_groups=32, epsilon=1e-6)


class Unit(nn.Module):
  """A bottleneck: 1x1, 3x3, 1x1 convolutions and a shortcut.

  Attributes:
    width: channels of the 3x3 convolution, a quarter of the output's.
    stride: of the 3x3 convolution.
  """

  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b y x d']:
    """Returns y = ceil(h / stride), x = ceil(w / stride), d = 4 * width."""
    out = 4 * self.width
    shortcut = x
    if x.shape[-1] != out or self.stride != 1:
      shortcut = StdConv(out, 1, self.stride, name='conv_proj')(x)
      shortcut = _group_norm(name='gn_proj')(shortcut)
    x = StdConv(self.width, 1, name='conv1')(x)
    x = nn.relu(_group_norm(name='gn1')(x))
    x = StdConv(self.width, 3, self.stride, name='conv2')(x)
    x = nn.relu(_group_norm(name='gn2')(x))
    x = StdConv(out, 1, name='conv3')(x)
    # Every unit begins as its shortcut.
    x = _group_norm(name='gn3', scale_init=nn.initializers.zeros)(x)
    return nn.relu(shortcut + x)


class ResNet(nn.Module):
  """A stem of stride 4, then stages of strides 1, 2, 2, ...

  Attributes:
    units: number of units in each stage; with none, the stem alone is left.
    width: channels of the stem and of the first stage's 3x3 convolutions; they
      double with each stage.
  """

  units: tuple[int, ...]
  width: int = 64

  @nn.compact
  def __call__(self, image: Float[Array, 'b h w c']) -> Float[Array, 'b y x d']:
    """Returns the last stage's map, at stride 4 * 2 ** (stages - 1)."""
    x = StdConv(self.width, 7, 2, name='conv_root')(image)
    x = nn.relu(_group_norm(name='gn_root')(x))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding='SAME')
    for s, units in enumerate(self.units):
      for u in range(units):
        stride = 2 if s > 0 and u == 0 else 1
        name = f'stage{s}_unit{u}'
        x = Unit(self.width * 2**s, stride, name=name)(x)
    return x
