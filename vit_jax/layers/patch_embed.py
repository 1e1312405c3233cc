"""Cutting an image into patches and projecting each to the model's width."""

import flax.linen as nn
from jaxtyping import Float

from vit_jax.types import Array


class PatchEmbed(nn.Module):
  """A linear map of each patch (ViT, equation 1), written as a convolution.

  Rows and columns at the right and the bottom that do not fill a patch are
  left out.

  Attributes:
    width: d, of the tokens.
    patch_size: in pixels, a side or (height, width).
  """

  width: int
  patch_size: int | tuple[int, int]

  @nn.compact
  def __call__(self, image: Float[Array, 'b h w c']) -> Float[Array, 'b y x d']:
    """Returns the map of patches, y = h // p and x = w // p.

    Raises:
      ValueError: if the image is smaller than a patch.
    """
    side = self.patch_size
    patch = (side, side) if isinstance(side, int) else tuple(side)
    if image.shape[1] < patch[0] or image.shape[2] < patch[1]:
      raise ValueError(
        f'an image of {image.shape[1]}x{image.shape[2]} is smaller than a '
        f'patch of {patch[0]}x{patch[1]}: enlarge the image or choose a '
        'smaller patch_size'
      )
    return nn.Conv(
      self.width, patch, strides=patch, padding='VALID', name='proj'
    )(image)
