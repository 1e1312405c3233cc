"""Attention over the image: head by head, and rolled out through the model."""

from collections.abc import Sequence

import matplotlib
import matplotlib.axes
import matplotlib.cm
import matplotlib.colors
import matplotlib.figure
import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.tools.pictures import (
  LABEL,
  Example,
  bare,
  color_bar,
  new_figure,
)
from vit_jax.tools.pictures.attention import Layer

# In inches.
TILE = 1.25
# How dark the image is below.
PALE = 0.3


def heads(
  layers: Sequence[Layer],
  image: UInt8[np.ndarray, 'h w c'],
  *,
  chosen: Sequence[int] | None = None,
  query: tuple[float, float] | None = None,
  most: int = 8,
) -> matplotlib.figure.Figure:
  """What one token attends to: a row for each layer, a column for each head.

  Args:
    layers: of the model, on this image.
    image: behind the maps.
    chosen: which of the layers, from 0; None for four, evenly spread.
    query: a pixel (row, column) in the token that asks; None for the class
      token or, without one, the middle of the image.
    most: heads of a layer that are shown.

  Raises:
    ValueError: if there is no such layer, or the pixel is outside of the image.
  """
  chosen = _spread(len(layers)) if chosen is None else chosen
  if outside := [i for i in chosen if not 0 <= i < len(layers)]:
    known = ', '.join(f'{i} {x.name}' for i, x in enumerate(layers))
    raise ValueError(f'There is no layer {outside[0]}; there are {known}.')
  if query and not all(
    0 <= x < side for x, side in zip(query, image.shape, strict=False)
  ):
    raise ValueError(
      f'--query={query[0]:g},{query[1]:g} is outside of the image of '
      f'{image.shape[0]}x{image.shape[1]} pixels.'
    )
  found = [look(layers[i], size=image.shape[:2], query=query) for i in chosen]
  asked = [
    _asks(layers[i], at) for i, (_, at) in zip(chosen, found, strict=True)
  ]
  columns = min(most, max(len(maps) for maps, _ in found))
  ratio = image.shape[0] / image.shape[1]
  figure = new_figure(
    (columns + 1) * TILE + 1.4,
    len(chosen) * (TILE * ratio + 0.04) + 0.5,
    title='Attention of ' + ' or '.join(dict.fromkeys(asked)),
  )
  grid = figure.subplots(len(chosen), columns + 1, squeeze=False)
  shared = _scale([maps[:columns] for maps, _ in found])
  for line, i, (maps, at) in zip(grid, chosen, found, strict=True):
    number = len(maps)
    label = layers[i].name.removesuffix('/attn').replace('/', '\n')
    more = f'\n({columns} of {number} heads)' if number > columns else ''
    line[1].set_ylabel(label + more, fontsize=LABEL)
    for axis, values in zip(line[1:], maps, strict=False):
      overlay(axis, image, values, shared)
    for axis in line:
      bare(axis)
      axis.set_box_aspect(ratio)
    if at is not None:
      for axis in line[1 : number + 1]:
        _mark(axis, at)
  grid[0][0].imshow(image)
  for k, axis in enumerate(grid[0]):
    title = f'head {k}' if k else 'input'
    axis.set_title(title, fontsize=LABEL)
  color_bar(shared, grid, label='attention / uniform attention', extend='max')
  return figure


def _spread(number: int) -> list[int]:
  return sorted({round(i) for i in np.linspace(0, number - 1, 4)})


def look(
  layer: Layer,
  *,
  size: tuple[int, int],
  query: tuple[float, float] | None = None,
) -> tuple[Float[np.ndarray, 'k h w'], tuple[float, float] | None]:
  """What a token attends to, on the grid of keys, and where the token stands.

  Values are in multiples of what a key would get if all that the token can see
  got the same; NaN at places that it cannot see. Without a query the first
  token is asked if it stands nowhere, as a class token; it has no place.
  """
  places = layer.queries
  if np.isnan(places[0, 0, 0]) and (query is None or np.isnan(places).all()):
    window, token, at = 0, 0, None
  else:
    middle = (size[0] / 2, size[1] / 2)
    distance = np.linalg.norm(places - np.array(query or middle), axis=-1)
    window, token = np.unravel_index(np.nanargmin(distance), distance.shape)
    at = tuple(map(float, places[window, token]))
  row = layer.weights[window, :, token]  # (H, N)
  # What is masked, or further away than a neighbour, gets nothing at all.
  seen = (row > 0).any(0)
  there = seen & ~np.isnan(layer.keys[window, :, 0])
  keys = layer.keys[window, there]
  cells = (keys * np.array(layer.grid) / np.array(size)).astype(int)
  maps = np.full((len(row), *layer.grid), np.nan)
  maps[:, cells[:, 0], cells[:, 1]] = row[:, there] * seen.sum()
  return maps, at


def _asks(layer: Layer, at: tuple[float, float] | None) -> str:
  if at is not None:
    return 'the token marked'
  alone = np.isnan(layer.queries).all()
  return 'the first learned token' if alone else 'the class token'


def _mark(axis: matplotlib.axes.Axes, at: tuple[float, float]) -> None:
  axis.plot(at[1], at[0], 'o', color='none', mec='black', ms=5, mew=2.2)
  axis.plot(at[1], at[0], 'o', color='none', mec='white', ms=5, mew=1.0)


def _scale(maps: Sequence[np.ndarray]) -> matplotlib.cm.ScalarMappable:
  """One scale for all: from 0 to what one value in 200 exceeds."""
  values = np.concatenate([x[~np.isnan(x)].ravel() for x in maps])
  top = max(float(np.quantile(values, 0.995)), 1e-6)
  colors = matplotlib.colormaps['YlOrRd'](np.linspace(0, 1, 256))
  # Where there is none, the image shows through.
  colors[:, 3] = np.linspace(0, 1, 256) ** 0.5
  return matplotlib.cm.ScalarMappable(
    matplotlib.colors.Normalize(0, top),
    matplotlib.colors.ListedColormap(colors),
  )


def overlay(
  axis: matplotlib.axes.Axes,
  image: UInt8[np.ndarray, 'h w c'],
  values: Float[np.ndarray, 'y x'],
  scale: matplotlib.cm.ScalarMappable,
  *,
  interpolation: str = 'nearest',
) -> None:
  """Lays a map over a pale image; what is NaN in it is greyed out."""
  height, width = image.shape[:2]
  options = dict(
    extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation=interpolation
  )
  pale = 255 - (255 - image.mean(axis=-1)) * PALE
  axis.imshow(pale, cmap='gray', vmin=0, vmax=255)
  axis.imshow(values, cmap=scale.cmap, norm=scale.norm, **options)
  if np.isnan(values).any():
    outside = np.where(np.isnan(values), 0.0, np.nan)
    axis.imshow(outside, cmap='gray', vmin=-1, vmax=1, alpha=0.6, **options)


def rollout(layers: Sequence[Layer]) -> Float[np.ndarray, 'h w']:
  """How much of each place reaches what the head reads.

  Attention rollout (Abnar and Zuidema, arXiv:2005.00928, section 3), as in
  ViT's figure 6 (arXiv:2010.11929, appendix D.8): the product over the layers
  of (A + 1) / 2, where A is the mean over the heads and 1 stands for the
  residual connection. Of the product, the rows of the class tokens are read, or
  the mean of all without one (as a model that averages its tokens does), or
  what a last layer with a single query gathers. In multiples of what a place
  would get if all tokens got the same.

  Raises:
    ValueError: unless all layers attend from the same tokens to the same.
  """
  main = [x for x in layers if x.weights.shape[2] > 1]
  shapes = {(len(x.weights), *x.weights.shape[2:]) for x in main}
  if len(shapes) != 1 or any(w > 1 or q != n for w, q, n in shapes):
    raise ValueError(
      'Rollout multiplies the attention of all layers, which must be from the '
      'same tokens to the same; this model has windows, or maps of several '
      'sizes. Look at its layers: inspect attention.'
    )
  n = main[0].weights.shape[-1]
  flow = np.eye(n)
  for layer in main:
    mixed = layer.weights[0].mean(0) + np.eye(n)
    mixed /= mixed.sum(-1, keepdims=True)
    flow = mixed @ flow
  nowhere = np.isnan(main[-1].queries[0, :, 0])
  if layers[-1].weights.shape[2] == 1:
    read = layers[-1].weights[0].mean(0)[0]
  else:
    read = nowhere if nowhere.any() else ~nowhere
    read = read / read.sum()
  share = (read @ flow)[~np.isnan(main[-1].keys[0, :, 0])]
  return share.reshape(main[-1].grid) * n


def summary(
  layers: Sequence[Layer], *, size: tuple[int, int]
) -> tuple[Float[np.ndarray, 'h w'], str]:
  """One map for all of a model, and what it is.

  Where there is no rollout, it is the mean over the heads of the last layer.
  """
  try:
    return rollout(layers), 'attention rollout'
  except ValueError:
    maps, _ = look(layers[-1], size=size)
    return maps.mean(0), 'attention of the last layer'


def overlaid(
  image: UInt8[np.ndarray, 'h w c'], values: Float[np.ndarray, 'y x']
) -> matplotlib.figure.Figure:
  """A map over its image, and nothing else."""
  height, width = image.shape[:2]
  side = 4.8 / max(height, width)
  figure = matplotlib.figure.Figure(figsize=(width * side, height * side))
  axis = figure.add_axes((0, 0, 1, 1))
  overlay(axis, image, values, _scale([values]), interpolation='bilinear')
  bare(axis)
  return figure


def rollouts(
  examples: Sequence[Example], maps: Sequence[Float[np.ndarray, 'h w']]
) -> matplotlib.figure.Figure:
  """Images above, and what of each reaches the head below."""
  columns = len(examples)
  ratio = examples[0].image.shape[0] / examples[0].image.shape[1]
  tile = 2.0
  figure = new_figure(
    columns * tile + 1.2, 2 * tile * ratio + 0.7, title='Attention rollout'
  )
  grid = figure.subplots(2, columns, squeeze=False)
  shared = _scale(maps)
  for above, below, example, values in zip(*grid, examples, maps, strict=True):
    above.imshow(example.image)
    above.set_title(example.name, fontsize=LABEL)
    overlay(below, example.image, values, shared, interpolation='bilinear')
    bare(above)
    bare(below)
  color_bar(shared, grid, label='share / uniform share', extend='max')
  return figure
