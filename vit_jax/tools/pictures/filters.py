"""The filters of the first layer: what a model looks for in the pixels."""

from typing import NamedTuple

import flax.linen as nn
import jax
import matplotlib.figure
import numpy as np
from jaxtyping import Float

from vit_jax.experiment import dummy_batch
from vit_jax.layers.conv import StdConv
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.tools.pictures import bare, new_figure
from vit_jax.trained import Trained

# As many as in ViT's figure 7.
COMPONENTS = 28
COLUMNS = 14
# Of the kernels of a convolution.
MOST = 112
TILE = 0.55


class First(NamedTuple):
  """The layer that reads the pixels.

  Attributes:
    name: of the module.
    kernel: (height, width, channels, filters).
    cuts: whether it cuts the image into patches, each of which is projected.
  """

  name: str
  kernel: Float[np.ndarray, 'y x c k']
  cuts: bool


def first_layer(trained: Trained) -> First:
  """Finds the convolution that reads the image.

  Raises:
    ValueError: if the model begins with something else.
  """
  found = []
  shape = tuple(trained.run['image_shape'])

  def see(next_fun, args, kwargs, context):
    module = context.module
    if (
      isinstance(module, nn.Conv | StdConv)
      and not found
      and args[0].shape[-1] == shape[-1]
    ):
      found.append((module.path, isinstance(module.parent, PatchEmbed)))
    return next_fun(*args, **kwargs)

  with nn.intercept_methods(see):
    batch = dummy_batch(shape)
    jax.eval_shape(trained.predict, trained.params, trained.state, batch)
  if not found:
    raise ValueError(
      f'{trained.run["config"]["model"]["name"]} does not begin with a '
      'convolution or a projection of patches, so that it has no filters to '
      'show.'
    )
  path, cuts = found[0]
  params = trained.params
  for key in path:
    params = params[key]
  return First('/'.join(path), np.asarray(params['kernel']), cuts)


def components(
  kernel: Float[np.ndarray, 'y x c k'], *, most: int
) -> tuple[Float[np.ndarray, 'n y x c'], Float[np.ndarray, ' n']]:
  """The first principal components of filters, and their shares of variance."""
  rows = kernel.reshape(-1, kernel.shape[-1]).T.astype(np.float64)
  _, values, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
  share = values**2 / (values**2).sum()
  # About their mean, so many filters have one direction less.
  most = min(most, len(rows) - 1)
  return vectors[:most].reshape(-1, *kernel.shape[:3]), share[:most]


def draw(first: First) -> matplotlib.figure.Figure:
  """Components of a projection of patches, or the kernels of a convolution."""
  y, x, _, k = first.kernel.shape
  if first.cuts:
    tiles, share = components(first.kernel, most=COMPONENTS)
    title = (
      f'First {len(tiles)} principal components of {k} filters in '
      f'{first.name}: {share.sum():.0%} of variance\n{y}×{x} px'
    )
  else:
    tiles = np.moveaxis(first.kernel, -1, 0)[:MOST]
    part = f'{len(tiles)} of ' if k > len(tiles) else ''
    title = f'{part}{k} kernels in {first.name}\n{y}×{x} px'
  title += ', each at its own scale (grey is 0)'
  columns = min(COLUMNS, len(tiles))
  lines = -(-len(tiles) // columns)
  figure = new_figure(
    max(columns * TILE, 4.5), lines * TILE * y / x + 0.6, title=title
  )
  axes = figure.subplots(lines, columns, squeeze=False).ravel()
  for axis, tile in zip(axes, tiles, strict=False):
    axis.imshow(as_colors(tile), interpolation='nearest')
  for axis in axes:
    bare(axis)
  return figure


def as_colors(tile: Float[np.ndarray, 'y x c']) -> np.ndarray:
  """A filter in [0, 1]: grey is 0, and its largest weight 0 or 1."""
  image = 0.5 + 0.5 * tile / max(float(np.abs(tile).max()), 1e-12)
  if image.shape[-1] == 3:
    return image
  return np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
