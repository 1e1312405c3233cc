"""Attention within windows of a map (Swin, arXiv:2103.14030, section 3.2).

Which tokens share a window, and how far apart they stand, follows from sizes
alone: it is part of the program and no parameter.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vit_jax.types import Array

Size = tuple[int, int]  # (height, width)


def within_windows(
  attend: Callable[[Array, Array | None], Array],
  x: Float[Array, 'b h w d'],
  *,
  window: Size,
  shifted: bool | Bool[Array, ''],
) -> Float[Array, 'b h w d']:
  """Applies attention to each window of a map.

  A map that is no multiple of the window gets zeros at the bottom and the
  right, which take part like any token. Shifted windows lie half a window
  further down and to the right, except along an axis that one window spans;
  what they cut off at the far ends is put together at the near ones (figure 4).

  Args:
    attend: (tokens (b * windows, n, d), mask) -> tokens. The mask, if any, is
      (windows, 1, n, n), True where a query may look at a key, for each image.
    x: the map.
    window: of the windows, at most the map.
    shifted: whether the windows are shifted; may be traced.
  """
  _, h, w, _ = x.shape
  shift = (
    window[0] // 2 if h > window[0] else 0,
    window[1] // 2 if w > window[1] else 0,
  )
  x = pad_to_multiple(x, sides=window)
  size = x.shape[1:3]
  if shifted is False or shift == (0, 0):
    tokens = attend(partition(x, window=window), None)
    return merge(tokens, window=window, size=size)[:, :h, :w]
  mask = shift_mask(size, window=window, shift=shift)
  if shifted is not True:  # it is traced, in scanned blocks
    mask = mask | ~shifted
  offset = shifted * np.array(shift)
  x = jnp.roll(x, -offset, axis=(1, 2))
  tokens = attend(partition(x, window=window), jnp.asarray(mask)[:, None])
  x = merge(tokens, window=window, size=size)
  return jnp.roll(x, offset, axis=(1, 2))[:, :h, :w]


def largest_window(shape: tuple[int, ...], *, side: int) -> Size:
  """Windows of that side, or less where a map (b, h, w, d) is smaller."""
  return min(shape[1], side), min(shape[2], side)


def pad_to_multiple(
  x: Float[Array, 'b h w d'], *, sides: Size
) -> Float[Array, 'b y x d']:
  """Adds zeros at the bottom and the right, up to multiples of the sides."""
  bottom, right = -x.shape[1] % sides[0], -x.shape[2] % sides[1]
  return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))


def partition(
  x: Float[Array, 'b h w d'], *, window: Size
) -> Float[Array, 'bw n d']:
  """Cuts a map into windows: example by example, row by row."""
  b, h, w, d = x.shape
  x = x.reshape(b, h // window[0], window[0], w // window[1], window[1], d)
  return x.swapaxes(2, 3).reshape(-1, window[0] * window[1], d)


def merge(
  tokens: Float[Array, 'bw n d'], *, window: Size, size: Size
) -> Float[Array, 'b h w d']:
  """The maps of this size that `partition` cut into these windows."""
  rows, columns = size[0] // window[0], size[1] // window[1]
  x = tokens.reshape(-1, rows, columns, *window, tokens.shape[-1])
  return x.swapaxes(2, 3).reshape(-1, *size, tokens.shape[-1])


def shift_mask(
  size: Size, *, window: Size, shift: Size
) -> Bool[np.ndarray, 'w n n']:
  """Who may look at whom in the windows of a map rolled up and left.

  Tokens that the roll brought to the far end of an axis are no neighbours of
  those that they meet there.

  Args:
    size: of the map, multiples of the window.
    window: of the windows.
    shift: in tokens, less than the window.
  """
  below = np.arange(size[0]) >= size[0] - shift[0]
  right = np.arange(size[1]) >= size[1] - shift[1]
  region = 2 * below[:, None] + right[None]
  rows, columns = size[0] // window[0], size[1] // window[1]
  region = region.reshape(rows, window[0], columns, window[1])
  region = region.swapaxes(1, 2).reshape(rows * columns, -1)
  return region[:, :, None] == region[:, None, :]


def pairwise(
  table: Float[Array, 'y x k'], *, window: Size
) -> Float[Array, 'k n n']:
  """What a table says of each pair (query, key) of tokens in a window.

  Args:
    table: by the difference (query - key) of rows and of columns, from
      1 - side to side - 1; y = 2 * window[0] - 1, x = 2 * window[1] - 1.
    window: of the windows; n = window[0] * window[1].
  """
  h, w = window
  # Many pairs share an entry, whose gradient is their sum: in float32.
  x = table.astype(jnp.float32)  # (Y, X, K)
  x = _skew(x, side=h)  # (key row, query row, X, K)
  x = _skew(jnp.moveaxis(x, 2, 0), side=w)  # (key column, query column, ...)
  return x.transpose(4, 3, 1, 2, 0).reshape(-1, h * w, h * w)


def _skew(x: Array, *, side: int) -> Array:
  """(2 * side - 1, ...) -> (side, side, ...), [j, i] = x[i - j + side - 1].

  Not with a gather: its gradient is a scatter, which adds up in any order. Here
  rows are read one shorter than the period at which x repeats.
  """
  x = jnp.pad(x, ((0, 1), *((0, 0),) * (x.ndim - 1)))
  x = jnp.tile(x, (side, *(1,) * (x.ndim - 1)))
  x = x[side - 1 :][: side * (2 * side - 1)]
  return x.reshape(side, 2 * side - 1, *x.shape[1:])[:, :side]
