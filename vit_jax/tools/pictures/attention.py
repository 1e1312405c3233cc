"""The attention of a trained model: who looks at whom, and where they stand.

All attention goes through `layers.attention.DotProduct` or, in DiNAT, through
`NeighborhoodAttention`. Both are intercepted while the model predicts, so that
no model does anything for it, and training nothing at all.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from vit_jax.experiment import build_objective, dummy_batch, make_predict
from vit_jax.layers.attention import DotProduct
from vit_jax.layers.neighborhood import (
  NeighborhoodAttention,
  neighborhood_attention,
)
from vit_jax.layers.window import largest_window, within_windows
from vit_jax.models import mobile_former, mobilevit, pvt_v2, scan, swin, swin_v2
from vit_jax.ops.kernels import repeat_mask
from vit_jax.trained import Trained
from vit_jax.types import Array, Params, State

Positions = Float[np.ndarray, 'w n 2']
Size = tuple[int, int]


class Layer(NamedTuple):
  """One layer of attention on one image.

  Tokens that attend to each other are a window; most models have only one.

  Attributes:
    name: of its module, such as 'block_0/attn'.
    weights: (windows, heads, queries, keys); a row sums to 1.
    queries: (windows, queries, 2), where they stand: the pixel (row, column) in
      the middle; NaN for a class token and what fills up a window.
    keys: (windows, keys, 2), of these.
    grid: (height, width), the number of places of keys in the image.
  """

  name: str
  weights: Float[np.ndarray, 'w h q n']
  queries: Float[np.ndarray, 'w q 2']
  keys: Float[np.ndarray, 'w n 2']
  grid: Size


class _Seen(NamedTuple):
  """What interception finds, by the path of the module.

  Attributes:
    weights: arrays, traced.
    blocks: those whose tokens are more than a row, and what they were given.
    parts: what the attention to neighbours is made of.
  """

  weights: dict[tuple[str, ...], Array]
  blocks: dict[tuple[str, ...], tuple[nn.Module, Any, Mapping[str, Any]]]
  parts: dict[tuple[str, ...], Array]


_BLOCKS = (
  *(swin.Block, swin_v2.Block, mobilevit.Block),
  *(mobile_former.MobileToFormer, mobile_former.FormerToMobile),
  *(mobile_former.Former, pvt_v2.Block),
)


def weights(
  query: Float[Array, 'b q h t'],
  key: Float[Array, 'b n h t'],
  *,
  bias: Float[Array, '#b #h #q #n'] | None = None,
  mask: Bool[Array, 'w #h #q #n'] | None = None,
  scale: float | None = None,
) -> Float[Array, 'b h q n']:
  """softmax(scale query key^T + bias), see `dot_product_attention`."""
  scale = query.shape[-1] ** -0.5 if scale is None else scale
  logits = scale * jnp.einsum(
    'bqht,bnht->bhqn', query, key, preferred_element_type=jnp.float32
  )
  if bias is not None:
    logits = logits + bias
  if mask is not None:
    mask = repeat_mask(mask, examples=len(logits))
    logits = jnp.where(mask, logits, -jnp.inf)
  return jax.nn.softmax(logits, axis=-1)


def neighborhood_weights(
  query: Float[Array, 'b y x h t'],
  key: Float[Array, 'b y x h t'],
  *,
  table: Float[Array, 's s h'],
  dilation: int,
) -> Float[Array, 'b h q n']:
  """The weights of `neighborhood_attention`, 0 outside of a neighbourhood.

  They are what it makes of values that mark a token each.
  """
  b, y, x, h, t = query.shape
  n = y * x
  marks = jnp.eye(n, n + -n % t, dtype=query.dtype)
  marks = marks.reshape(y, x, -1, t).transpose(2, 0, 1, 3)  # (M, Y, X, T)

  def attend(mark):
    value = jnp.broadcast_to(mark[None, :, :, None], key.shape)
    return neighborhood_attention(
      query, key, value, table=table, dilation=dilation
    )

  mixed = jax.lax.map(attend, marks)  # (M, B, Y, X, H, T)
  mixed = mixed.transpose(1, 4, 2, 3, 0, 5).reshape(b, h, n, -1)
  return mixed[..., :n].astype(jnp.float32)


def layers(trained: Trained, image: UInt8[np.ndarray, 'h w c']) -> list[Layer]:
  """Each layer of attention on one image, see `on_each`."""
  return on_each(trained, [image])[0]


def on_each(
  trained: Trained, images: Sequence[UInt8[np.ndarray, 'h w c']]
) -> list[list[Layer]]:
  """Returns each layer of attention on each image, in the order of the model.

  Left out is attention among tokens that stand nowhere (the Former's), and
  among the pixels of one patch (TNT's words).

  Args:
    trained: the model.
    images: all of one size; the program is compiled once.

  Raises:
    ValueError: if the model has none.
  """
  see = make_see(
    trained.run['config'], num_classes=len(trained.run['class_names'])
  )
  return [see(trained.params, trained.state, image) for image in images]


def make_see(
  config: Mapping[str, Any], *, num_classes: int, out_shardings: Any = None
) -> Callable[[Params, State, UInt8[np.ndarray, 'h w c']], list[Layer]]:
  """Returns `layers` of a model whose parameters change; it compiles once.

  Args:
    config: of the run.
    num_classes: of its head.
    out_shardings: of the weights, where several devices compute them.
  """
  config = dict(config)
  # What is seen inside of a part that is traced apart could not leave it.
  spec = {
    k: x for k, x in config['model'].items() if k not in ('remat', 'scan')
  }
  config['model'] = spec
  objective = build_objective(config, num_classes=num_classes)
  predict = make_predict(config, objective)
  seen = _Seen({}, {}, {})

  @functools.partial(jax.jit, out_shardings=out_shardings)
  def run(params, state, batch):
    params, state = scan.unstack_blocks((params, state))
    with nn.intercept_methods(lambda *args: _see(seen, *args)):
      predict(params, state, batch)
    return dict(enumerate(seen.weights.values()))

  def see(params, state, image):
    batch = jax.tree.map(np.asarray, dummy_batch(image.shape))
    found = run(params, state, batch | {'image': image[None]})
    placed = [
      _place(path, np.asarray(found[i]), seen=seen, size=image.shape[:2])
      for i, path in enumerate(seen.weights)
    ]
    if not (kept := [layer for layer in placed if layer is not None]):
      raise ValueError(
        f'{spec["name"]} has no attention weights between places of '
        'the image; models that have them are cpvt, coatnet, cvt, deit, dinat, '
        'mobile_former, mobilevit, pvt, pvt_v2, swin, swin_v2, t2t_vit, tnt, '
        'twins_pcpvt and vit.'
      )
    return kept

  return see


def _see(
  seen: _Seen,
  next_fun: Any,
  args: tuple[Any, ...],
  kwargs: Mapping[str, Any],
  context: nn.module.InterceptorContext,
) -> Any:
  """Calls a method of a module, and notes what concerns attention."""
  module, path = context.module, context.module.path
  output = next_fun(*args, **kwargs)
  if context.method_name != '__call__':
    return output
  if isinstance(module, _BLOCKS):
    seen.blocks[path] = module, args[0].shape, kwargs
  if isinstance(module, DotProduct):
    seen.weights[path[:-1]] = weights(*args[:2], **kwargs)
  if isinstance(module.parent, NeighborhoodAttention):
    seen.parts[path] = output
  if isinstance(module, NeighborhoodAttention):
    qkv = seen.parts[(*path, 'qkv')]
    seen.weights[path] = neighborhood_weights(
      qkv[..., 0, :, :],
      qkv[..., 1, :, :],
      table=seen.parts[(*path, 'position_bias')],
      dilation={'dilation': 1, **kwargs}['dilation'],
    )
    seen.blocks[path] = module, args[0].shape, {'padded': qkv.shape[1:3]}
  return output


def _place(
  path: tuple[str, ...], found: np.ndarray, *, seen: _Seen, size: Size
) -> Layer | None:
  """Says where the tokens of a layer stand; None if they stand nowhere."""
  name = '/'.join(path)
  if path[-2:-1] == ('inner',):
    return None
  owners = [p for p in (path, path[:-1]) if p in seen.blocks]
  if not owners:
    queries, _ = rows(found.shape[-2], size=size)
    keys, grid = rows(found.shape[-1], size=size)
    return Layer(name, found, queries, keys, grid)
  block, shape, options = seen.blocks[owners[0]]
  if isinstance(block, mobile_former.MobileToFormer):
    keys, grid = rows(found.shape[-1], size=size)
    nowhere = np.full((1, found.shape[-2], 2), np.nan)
    return Layer(name, found, nowhere, keys, grid)
  if isinstance(block, mobile_former.Former | mobile_former.FormerToMobile):
    return None
  if isinstance(block, pvt_v2.Block):
    queries = centres(shape[1:3], size=size).reshape(1, -1, 2)
    if block.linear:  # any map is pooled to a square
      grid = (pvt_v2.POOLED, pvt_v2.POOLED)
      keys = centres(grid, size=size).reshape(1, -1, 2)
    else:
      keys, grid = rows(found.shape[-1], size=size)
    return Layer(name, found, queries, keys, grid)
  if isinstance(block, NeighborhoodAttention):
    at, grid = _padded(shape[1:3], options['padded'], size=size), shape[1:3]
  elif isinstance(block, mobilevit.Block):
    at, grid = _lanes(found.shape[-1], size=size)
  else:
    at, grid = _windows(block, shape, options, size=size), shape[1:3]
  return Layer(name, found, at, at, grid)


def centres(grid: Size, *, size: Size) -> Float[np.ndarray, 'y x 2']:
  """The pixels (row, column) in the middle of the cells of a grid."""
  axes = [
    (np.arange(n) + 0.5) * pixels / n
    for n, pixels in zip(grid, size, strict=True)
  ]
  return np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)


def rows(n: int, *, size: Size) -> tuple[Positions, Size]:
  """Positions of a row of tokens, and the grid of those that have one.

  The grid is as long and as wide as the image; what does not fit into it, at
  most two tokens, are the class token and DeiT's second at the start. A lone
  token asks for the whole image.

  Raises:
    ValueError: if no grid fits.
  """
  height, width = size
  grids = [
    (before, h, (n - before) // h)
    for before in (0, 1, 2)
    for h in range(1, n - before + 1)
    if (n - before) % h == 0
  ]
  fits = [
    (before, h, w)
    for before, h, w in grids
    if abs(w - h * width / height) < 1 and n > 1
  ]
  if n == 1:
    return np.full((1, 1, 2), np.nan), (1, 1)
  if not fits:
    raise ValueError(
      f'{n} tokens are no grid over an image of {height}x{width} pixels.'
    )
  before, h, w = fits[0]
  at = centres((h, w), size=size).reshape(1, -1, 2)
  return np.pad(at, ((0, 0), (before, 0), (0, 0)), constant_values=np.nan), (
    h,
    w,
  )


def _padded(grid: Size, padded: Size, *, size: Size) -> Positions:
  """Those of a map that is padded at the bottom and the right."""
  pad = [(0, b - a) for a, b in zip(grid, padded, strict=True)]
  at = centres(grid, size=size)
  at = np.pad(at, (*pad, (0, 0)), constant_values=np.nan)
  return at.reshape(1, -1, 2)


def _windows(
  block: nn.Module,
  shape: tuple[int, ...],
  options: Mapping[str, Any],
  *,
  size: Size,
) -> Positions:
  """Those of the tokens of each window: they go the way that the tokens go."""
  at = centres(shape[1:3], size=size)
  # Zeros fill up a map; the mark tells them from a position.
  marked = np.concatenate([at, np.ones((*at.shape[:2], 1))], axis=-1)
  seen = []

  def attend(tokens, mask):
    seen.append(np.asarray(tokens))
    return tokens

  within_windows(
    attend,
    jnp.asarray(marked[None], jnp.float32),
    window=largest_window(shape, side=block.window_size),
    shifted={'shifted': False, **options}['shifted'],
  )
  return np.where(seen[0][..., 2:] > 0, seen[0][..., :2], np.nan)


def _lanes(n: int, *, size: Size) -> tuple[Positions, Size]:
  """Those of MobileViT: every other token of every other row, four times."""
  _, (h, w) = rows(n, size=size)
  side = mobilevit.PATCH
  at = centres((side * h, side * w), size=size)
  lanes = mobilevit.unfold(jnp.asarray(at[None], jnp.float32))
  return np.asarray(lanes)[0], (h, w)
