"""What a model knows of positions: similarities of embeddings, or biases."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import matplotlib.figure
import numpy as np
from jaxtyping import Float

from vit_jax.experiment import dummy_batch
from vit_jax.layers.pos_embed import sincos_2d
from vit_jax.models.t2t_vit import sinusoid
from vit_jax.tools.pictures import DIVERGING, LABEL, bare, color_bar, new_figure
from vit_jax.tools.pictures.attention import rows
from vit_jax.trained import Trained

# So many positions along an axis are compared with all others.
MOST = 14


class Table(NamedTuple):
  """The biases of a layer.

  Attributes:
    name: of the module.
    bias: (2h - 1, 2w - 1, k) by the difference (query - key) of rows and of
      columns, and by head.
  """

  name: str
  bias: Float[np.ndarray, 'y x k']


def draw(trained: Trained, *, most: int = 8) -> matplotlib.figure.Figure:
  """Embeddings if the model has them, otherwise its biases.

  Args:
    trained: the model.
    most: heads of a layer that are shown.

  Raises:
    ValueError: if it has neither.
  """
  if embeddings(trained):
    return _draw_embeddings(embeddings(trained))
  if found := tables(trained):
    return _draw_tables(found, most=most)
  raise ValueError(
    f'{trained.run["config"]["model"]["name"]} adds no positions to its tokens '
    'and no bias to its attention. Those that add positions are deit, pvt, '
    't2t_vit, tnt and vit; those with a bias coatnet, dinat, swin and swin_v2.'
  )


def embeddings(
  trained: Trained,
) -> dict[str, Float[np.ndarray, 'h w d']]:
  """What is added to the tokens of each place, by the name of the array."""
  size = tuple(trained.run['image_shape'][:2])
  found = {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(x)[0]
    for path, x in jax.tree.leaves_with_path(trained.params)
    if path[-1].key == 'pos_embed'
  }
  model = trained.run['config']['model']
  if model['name'] == 't2t_vit':
    side = [-(-pixels // 16) for pixels in size]
    width = trained.params['cls'].shape[-1]
    found['sinusoid'] = np.asarray(sinusoid(1 + side[0] * side[1], width=width))
  if {'pos_embed': '', **model}['pos_embed'] == 'sincos2d':
    kernel = trained.params['patch_embed']['proj']['kernel']
    grid = tuple(n // p for n, p in zip(size, kernel.shape, strict=False))
    found['sincos2d'] = np.asarray(sincos_2d(grid, width=kernel.shape[-1]))
  maps = {}
  for name, x in found.items():
    at, grid = rows(len(x), size=size)
    maps[name] = x[~np.isnan(at[0, :, 0])].reshape(*grid, -1)
  return maps


def similarity(
  table: Float[np.ndarray, 'h w d'],
) -> Float[np.ndarray, 'h w y x']:
  """The cosine of the embedding at (h, w) with that at (y, x)."""
  length = np.linalg.norm(table, axis=-1, keepdims=True)
  unit = table / np.maximum(length, 1e-12)
  return np.einsum('hwd,yxd->hwyx', unit, unit)


def _draw_embeddings(
  found: Mapping[str, Float[np.ndarray, 'h w d']],
) -> matplotlib.figure.Figure:
  """A panel for each position, at its place: ViT's figure 7, in the centre."""
  figure = new_figure(
    4.6 * len(found) + 0.6,
    4.8,
    title='Cosine similarity of position embeddings',
  )
  axes = figure.subplots(1, len(found), squeeze=False)[0]
  image = None
  for axis, (name, table) in zip(axes, found.items(), strict=True):
    cosine = similarity(table)
    h, w = table.shape[:2]
    chosen = [
      np.unique(np.linspace(0, n - 1, min(n, MOST)).round().astype(int))
      for n in (h, w)
    ]
    gap = max(1, round(max(h, w) / 12))
    canvas = np.full(
      [len(c) * (n + gap) - gap for c, n in zip(chosen, (h, w), strict=True)],
      np.nan,
    )
    for i, y in enumerate(chosen[0]):
      for j, x in enumerate(chosen[1]):
        top, left = i * (h + gap), j * (w + gap)
        canvas[top : top + h, left : left + w] = cosine[y, x]
    image = axis.imshow(canvas, cmap=DIVERGING, vmin=-1, vmax=1)
    for axis_of, number, side in (
      (axis.yaxis, chosen[0], h),
      (axis.xaxis, chosen[1], w),
    ):
      at = np.arange(len(number)) * (side + gap) + (side - 1) / 2
      axis_of.set_ticks(at, [str(n + 1) for n in number])
    axis.tick_params(labelsize=LABEL, length=0)
    axis.set_frame_on(False)
    axis.set_xlabel('column of the patch', fontsize=LABEL)
    axis.set_ylabel('row of the patch', fontsize=LABEL)
    axis.set_title(f'{name}, {h}×{w} patches', fontsize=LABEL)
  color_bar(image, axes, label='cosine similarity')
  return figure


def tables(trained: Trained) -> list[Table]:
  """The biases of each layer that has some, in the order of the model."""
  found = {}

  def see(next_fun, args, kwargs, context):
    output = next_fun(*args, **kwargs)
    if context.module.name == 'position_bias':
      size = args[0] if args else None
      found['/'.join(context.module.path[:-1])] = size, output
    return output

  def run(params, state, batch):
    with nn.intercept_methods(see):
      trained.predict(params, state, batch)
    return {name: output for name, (_, output) in found.items()}

  batch = dummy_batch(tuple(trained.run['image_shape']))
  outputs = jax.jit(run)(trained.params, trained.state, batch)
  return [
    Table(name, by_difference(np.asarray(outputs[name]), size))
    for name, (size, _) in found.items()
  ]


def by_difference(
  bias: Float[np.ndarray, '...'], size: tuple[int, int] | None
) -> Float[np.ndarray, 'y x k']:
  """The biases (1, k, n, n) of pairs (query, key), by query - key.

  A bias that comes without the size of a window is by key - query already.
  """
  if size is None:
    return bias[::-1, ::-1]
  h, w = size
  bias = bias.reshape(-1, h, w, h, w)
  differences = [np.arange(1 - n, n) for n in (h, w)]
  (qy, ky), (qx, kx) = (
    (np.maximum(d, 0), np.maximum(-d, 0)) for d in differences
  )
  found = bias[
    :, qy[:, None], qx[None], ky[:, None], kx[None]
  ]  # (K, 2H - 1, 2W - 1)
  return np.moveaxis(found, 0, -1)


def _draw_tables(
  found: Sequence[Table], *, most: int
) -> matplotlib.figure.Figure:
  """A row for each layer, a column for each head."""
  columns = min(most, max(table.bias.shape[-1] for table in found))
  figure = new_figure(
    columns * 1.25 + 1.6,
    len(found) * 1.35 + 0.9,
    title='Bias of the attention by relative position',
  )
  grid = figure.subplots(len(found), columns, squeeze=False)
  top = max(np.abs(table.bias).max() for table in found)
  image = None
  for line, table in zip(grid, found, strict=True):
    y, x, number = table.bias.shape
    more = f'\n({columns} of {number} heads)' if number > columns else ''
    line[0].set_ylabel(
      table.name.removesuffix('/attn').replace('/', '\n') + more,
      fontsize=LABEL,
    )
    for k, axis in enumerate(line):
      if k >= number:
        bare(axis)
        continue
      # From key - query: where the key stands, seen from the query.
      image = axis.imshow(
        table.bias[::-1, ::-1, k],
        cmap=DIVERGING,
        vmin=-top,
        vmax=top,
        extent=(-x / 2, x / 2, y / 2, -y / 2),
      )
      ticks = [(1 - x) // 2, 0, (x - 1) // 2], [(1 - y) // 2, 0, (y - 1) // 2]
      axis.set(xticks=ticks[0], yticks=ticks[1] if k == 0 else [])
      axis.tick_params(labelsize=LABEL - 1, length=2)
  for k, axis in enumerate(grid[0]):
    axis.set_title(f'head {k + 1}', fontsize=LABEL)
  figure.supxlabel(
    'key − query, in columns across and rows down', fontsize=LABEL
  )
  color_bar(image, grid, label='added to the logit')
  return figure
