"""How far attention reaches: the mean distance of each head."""

from collections.abc import Sequence

import matplotlib.figure
import matplotlib.ticker
import numpy as np
from jaxtyping import Float

from vit_jax.tools.curves import COLORS
from vit_jax.tools.pictures import LABEL, new_figure
from vit_jax.tools.pictures.attention import Layer, centres


def mean_distance(layer: Layer) -> Float[np.ndarray, ' h']:
  """The mean over tokens of the distance of what they attend to, in pixels.

  As in ViT's figure 11 (arXiv:2010.11929), weighted by the
  attention. What goes to or comes from tokens that stand nowhere is left out,
  and the rest counts as a whole. NaN for a layer whose queries stand nowhere.
  """
  total, count = np.zeros(layer.weights.shape[1]), 0
  for weights, queries, keys in zip(
    layer.weights, layer.queries, layer.keys, strict=True
  ):
    asks, is_asked = ~np.isnan(queries[:, 0]), ~np.isnan(keys[:, 0])
    apart = queries[asks][:, None] - keys[is_asked][None]
    weights = weights[:, asks][..., is_asked].astype(np.float64)
    # What a token gives to its class token only may be all that it gives.
    share = np.maximum(weights.sum(-1), 1e-30)
    found = (weights * np.linalg.norm(apart, axis=-1)).sum(-1) / share
    total, count = total + found.sum(-1), count + int(asks.sum())
  return total / count if count else total * np.nan


def uniform_distance(size: tuple[int, int]) -> float:
  """The mean distance of two pixels of an image, in pixels."""
  at = centres((32, 32), size=size).reshape(-1, 2)
  return float(np.linalg.norm(at[:, None] - at[None], axis=-1).mean())


def draw(
  images: Sequence[Sequence[Layer]], *, size: tuple[int, int]
) -> matplotlib.figure.Figure:
  """A point for each head of each layer, the mean over images.

  Args:
    images: the layers, on each image.
    size: of the images, in pixels.

  Raises:
    ValueError: if no layer has queries with a place.
  """
  found = [
    np.mean([mean_distance(layer) for layer in same], axis=0)
    for same in zip(*images, strict=True)
  ]
  kept = [i for i, x in enumerate(found) if not np.isnan(x).any()]
  if not kept:
    raise ValueError(
      'No token that attends has a place in the image, so that there is no '
      'distance; look at the maps: inspect attention.'
    )
  number = f'{len(images)} image' + 's' * (len(images) > 1)
  title = f'Mean attention distance, {number} of {size[0]}×{size[1]} px'
  figure = new_figure(4.8, 3.2, title=title)
  axis = figure.subplots()
  for depth, i in enumerate(kept):
    axis.plot(
      *(np.full(len(found[i]), depth + 1), found[i], 'o'),
      color=COLORS[0],
      mec='white',
      mew=0.4,
      ms=5,
      alpha=0.85,
      label='a head' if depth == 0 else None,
    )
  means = [found[i].mean() for i in kept]
  depths = np.arange(len(kept)) + 1
  axis.plot(depths, means, color=COLORS[1], lw=1.2, label='mean of the layer')
  axis.axhline(
    uniform_distance(size),
    color='black',
    lw=0.8,
    ls='--',
    label='uniform attention to the whole image',
  )
  axis.set_xlabel('layer of attention', fontsize=LABEL + 1)
  axis.set_ylabel('distance (pixels)', fontsize=LABEL + 1)
  top = max(uniform_distance(size), *(found[i].max() for i in kept))
  axis.set_ylim(0, 1.08 * top)
  axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
  axis.tick_params(labelsize=LABEL)
  axis.grid(alpha=0.3)
  axis.spines[['top', 'right']].set_visible(False)
  figure.legend(
    loc='outside lower center', ncols=3, frameon=False, fontsize=LABEL - 1
  )
  return figure
