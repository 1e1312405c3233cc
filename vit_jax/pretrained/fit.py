"""Making the parameters of one model fit another of a like kind.

What may change: the size of the image (position embeddings, the Mixer's token
mixing), that of the patches and of Swin's windows, the pooling and the head.
All else must agree, and what does not is one error that reads like a diff.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vit_jax.lookup import choose, unknown

HEADS = ('auto', 'new', 'keep', 'slice')
# In the order in which they stand before the patches.
TOKENS = ('cls', 'dist')
_LINES = 40  # of a diff, before it is cut short

Flat = dict[str, np.ndarray]
Grid = tuple[int, int]


def fit(
  loaded: Mapping[str, np.ndarray],
  initial: Mapping[str, np.ndarray],
  *,
  grid: Grid,
  loaded_grid: Grid | None = None,
  resample: str = 'bilinear',
  head: str = 'auto',
  classes: Sequence[int] = (),
) -> Flat:
  """Loaded parameters in the shapes of the initial ones.

  - Position embeddings are resampled from the loaded grid to the model's.
  - If only the checkpoint has a class or distillation token, it is left out,
    with its position. If only the model has one, it keeps its initial value and
    position. One that has no position in the checkpoint stands at zero.
  - A patch embedding of another patch size: `resize_patches`.
  - The token mixing of a Mixer at K times the size: `expand_token_mixing`.
  - The position biases of larger or smaller windows: `resize_bias_table`.
  - `pre_logits` are left out if the model has none. The checkpoint's head, for
    which they were made, is of no use then, and the initial one is taken.
  - A head is left out if the model has none.

  Args:
    loaded: arrays of the checkpoint by our names, blocks one by one.
    initial: arrays of the model by the same names.
    grid: (h, w) in patches, of the model.
    loaded_grid: (h, w) of the checkpoint. None takes the model's if the number
      of positions is the same, else a square.
    resample: of position embeddings; 'bilinear', with corners aligned, as in
      google-research/vision_transformer, or 'bicubic', antialiased, as in timm.
    head: 'keep' takes the checkpoint's, 'new' the initial one, 'slice' the
      checkpoint's restricted to `classes`, and 'auto' the checkpoint's if its
      shape is right, else the initial one.
    classes: for 'slice': the checkpoint's index of each class of the model.

  Raises:
    ValueError: if something does not fit, the head to keep is zeros, or an
      option has no meaning.
  """
  fitted = dict(loaded)
  options = dict(grid=grid, loaded_grid=loaded_grid, resample=resample)
  # Those of the whole model, '', and of each stage that has its own.
  for stage in {name.rpartition('pos_embed')[0] for name in initial}:
    part, own = _below(stage, fitted), _below(stage, initial)
    _fit_positions(part, own, **options)
    others = {k: x for k, x in fitted.items() if not k.startswith(stage)}
    fitted = others | {f'{stage}{k}': x for k, x in part.items()}
  kernel = 'patch_embed/proj/kernel'
  if kernel in fitted and kernel in initial:
    old, new = fitted[kernel].shape, initial[kernel].shape
    if old[:2] != new[:2] and old[2:] == new[2:]:
      fitted[kernel] = resize_patches(fitted[kernel], size=new[:2])
  _fit_token_mixing(fitted, initial, grid=grid)
  for name in fitted:
    if name.endswith('position_bias/table') and name in initial:
      size = initial[name].shape[:2]
      fitted[name] = resize_bias_table(fitted[name], size=size)
  _fit_head(fitted, initial, head=head, classes=classes)
  check_same(fitted, initial)
  return {k: fitted[k].astype(initial[k].dtype) for k in initial}


def check_same(
  loaded: Mapping[str, np.ndarray], initial: Mapping[str, np.ndarray]
) -> None:
  """Raises a ValueError that lists, as a diff, all that differs."""
  lines = []
  for name in sorted(set(loaded) | set(initial)):
    old = loaded[name].shape if name in loaded else None
    new = initial[name].shape if name in initial else None
    if old == new:
      continue
    if old is not None:
      lines.append(f'- {name} {old}')
    if new is not None:
      lines.append(f'+ {name} {new}')
  if not lines:
    return
  more = len(lines) - _LINES
  shown = lines[:_LINES] + ([f'... and {more} lines more'] if more > 0 else [])
  raise ValueError(
    'The checkpoint does not fit the model. Choose the variant, and the '
    'options, that it was made with (- checkpoint, + model):\n'
    + '\n'.join(shown)
  )


def resample_grid(
  table: np.ndarray, *, grid: Grid, method: str = 'bilinear'
) -> np.ndarray:
  """Position embeddings (h, w, d) on another grid: (y, x, d).

  Args:
    table: on the old grid.
    grid: (y, x), the new one.
    method: 'bilinear', corners on corners, equal to `scipy.ndimage.zoom` of
      order 1; or 'bicubic', antialiased, edges on edges, equal to
      `torch.nn.functional.interpolate` with `antialias=True`.

  Raises:
    ValueError: if the method is unknown.
  """
  weights = choose(_METHODS, word=method, kind='resample')
  h, w, _ = table.shape
  rows, columns = (weights(*x) for x in ((h, grid[0]), (w, grid[1])))
  new = np.einsum('yh,xw,hwd->yxd', rows, columns, table.astype(np.float64))
  return new.astype(table.dtype)


def resize_patches(kernel: np.ndarray, *, size: Grid) -> np.ndarray:
  """Kernel (h, w, c, d) of a patch embedding for patches of another size.

  The pseudo-inverse resize of FlexiViT, arXiv:2212.08013, equation 4: if an
  image is enlarged with its patches (bilinearly), its embedding stays the
  same; if it is reduced, it stays as near as possible.
  """
  h, w = kernel.shape[:2]
  rows = np.linalg.pinv(_bilinear_edges(h, size[0]).T)
  columns = np.linalg.pinv(_bilinear_edges(w, size[1]).T)
  new = np.einsum('yh,xw,hwcd->yxcd', rows, columns, kernel.astype(np.float64))
  return new.astype(kernel.dtype)


def resize_bias_table(table: np.ndarray, *, size: Grid) -> np.ndarray:
  """Biases (h, w, k) by relative position, for other windows: (y, x, k).

  Bicubic and not antialiased, as in microsoft/Swin-Transformer and equal to
  `torch.nn.functional.interpolate`.
  """
  if table.shape[:2] == size:
    return table
  rows, columns = map(_bicubic_sharp, table.shape[:2], size)
  new = np.einsum('yh,xw,hwk->yxk', rows, columns, table.astype(np.float64))
  return new.astype(table.dtype)


def expand_token_mixing(
  array: np.ndarray, *, name: str, grid: Grid, factor: int
) -> np.ndarray:
  """An array of a Mixer's token mixing, for images `factor` times as large.

  The new MLP applies the old one to each of the K x K parts that the image
  falls into, each as large as the old image (MLP-Mixer, arXiv:2105.01601,
  appendix C: a block-diagonal matrix). Its hidden layer is K * K times as wide.

  Args:
    array: fc1/kernel (n, m), fc1/bias (m,), fc2/kernel (m, n), fc2/bias (n,).
    name: its name, which ends in one of these.
    grid: (h, w) of the new image in patches.
    factor: K.
  """
  order = _tokens_by_part(grid, factor=factor)
  parts = factor * factor
  tiled = (
    np.tile(array, parts)
    if array.ndim == 1
    else np.kron(np.eye(parts, dtype=array.dtype), array)
  )
  if name.endswith('fc1/kernel'):
    return tiled[np.argsort(order)]
  if name.endswith(('fc2/kernel', 'fc2/bias')):
    return tiled[..., np.argsort(order)]
  return tiled


def _tokens_by_part(grid: Grid, *, factor: int) -> np.ndarray:
  """Index of each token, part after part, in row-major order in each."""
  h, w = grid[0] // factor, grid[1] // factor
  index = np.arange(grid[0] * grid[1]).reshape(factor, h, factor, w)
  return index.transpose(0, 2, 1, 3).reshape(-1)


def _below(stage: str, flat: Mapping[str, np.ndarray]) -> Flat:
  return {k[len(stage) :]: x for k, x in flat.items() if k.startswith(stage)}


def _fit_positions(
  fitted: Flat,
  initial: Mapping[str, np.ndarray],
  *,
  grid: Grid,
  loaded_grid: Grid | None,
  resample: str,
) -> None:
  """Brings tokens and `pos_embed` to the pooling and the grid of the model."""
  had = [name for name in TOKENS if name in fitted]
  has = [name for name in TOKENS if name in initial]
  for name in had:
    if name not in has:
      del fitted[name]
  fitted |= {name: initial[name] for name in has if name not in had}
  if 'pos_embed' not in fitted or 'pos_embed' not in initial:
    return
  table = fitted['pos_embed'][0]
  if table.ndim == 3:  # of a stage before the last: a map
    own_grid = initial['pos_embed'].shape[1:3]
    table = resample_grid(table, grid=own_grid, method=resample)
    fitted['pos_embed'] = table[None]
    return
  if had and not _have_rows(
    had, number=len(table), grid=grid, given=loaded_grid
  ):
    table = np.pad(table, ((len(had), 0), (0, 0)))
  own, table = table[: len(had)], table[len(had) :]
  old = _loaded_grid(len(table), grid=grid, given=loaded_grid)
  if old != tuple(grid):
    table = table.reshape(*old, -1)
    table = resample_grid(table, grid=grid, method=resample)
    table = table.reshape(-1, table.shape[-1])
  fresh = initial['pos_embed'][0]
  before = [
    own[had.index(name)] if name in had else fresh[i]
    for i, name in enumerate(has)
  ]
  if fresh.shape[1] == table.shape[1]:  # if not, the diff will tell
    table = np.stack([*before, *table])
  fitted['pos_embed'] = table[None]


def _have_rows(
  tokens: Sequence[str], *, number: int, grid: Grid, given: Grid | None
) -> bool:
  """Whether the tokens, too, have some of so many positions.

  They have none in DeiT III, where positions are added to the patches alone.
  """
  if given is not None:
    return number != math.prod(given)
  if math.prod(grid) in (number - len(tokens), number):
    return number != math.prod(grid)
  return math.isqrt(number) ** 2 != number


def _loaded_grid(number: int, *, grid: Grid, given: Grid | None) -> Grid:
  """The grid of so many positions."""
  side = math.isqrt(number)
  if given is not None:
    if math.prod(given) != number:
      raise ValueError(
        f'loaded_grid={tuple(given)} has {math.prod(given)} positions, and the '
        f'checkpoint has {number}, besides that of a class token.'
      )
    return given[0], given[1]
  same = number == math.prod(grid)
  if same and (grid[0] == grid[1] or side * side != number):
    return grid[0], grid[1]
  if same or side * side != number:
    raise ValueError(
      f'The checkpoint has {number} position embeddings, and the model a grid '
      f'of {grid[0]}x{grid[1]}: give loaded_grid=(h, w), the number of patches '
      'along height and width of the images that the checkpoint was trained on.'
    )
  return side, side


def _fit_token_mixing(
  fitted: Flat, initial: Mapping[str, np.ndarray], *, grid: Grid
) -> None:
  """Expands the token mixing of a Mixer, if whole parts fill the image."""
  kernel = 'block_0/token_mlp/fc1/kernel'
  if kernel not in fitted or kernel not in initial:
    return
  (n, m), (new_n, new_m) = fitted[kernel].shape, initial[kernel].shape
  factor = math.isqrt(new_n // n)
  if new_n == n or new_n != n * factor**2:
    return
  if grid[0] % factor or grid[1] % factor:
    return
  if new_m != m * factor**2:
    raise ValueError(
      f'A Mixer for images {factor} times as large needs a token mixing '
      f'{factor**2} times as wide: set token_dim={m * factor**2}, not {new_m} '
      '(MLP-Mixer, appendix C).'
    )
  for name in [name for name in fitted if '/token_mlp/' in name]:
    fitted[name] = expand_token_mixing(
      fitted[name], name=name, grid=grid, factor=factor
    )


def _fit_head(
  fitted: Flat,
  initial: Mapping[str, np.ndarray],
  *,
  head: str,
  classes: Sequence[int],
) -> None:
  """Takes the head from where the option says."""
  if head not in HEADS:
    raise unknown(head, known=HEADS, kind='head')
  if (head == 'slice') != (len(classes) > 0):
    raise ValueError(
      f"Classes go with head='slice' and only with it; here head={head!r} and "
      f'there are {len(classes)} classes.'
    )
  before = [k for k in fitted if k.startswith('pre_logits/')]
  left_out = before and not any(k in initial for k in before)
  for name in before if left_out else ():
    del fitted[name]
  is_head = lambda path: path.startswith(('head/', 'head_dist/'))
  new = {k: v for k, v in initial.items() if is_head(k)}
  old = {k: fitted.pop(k) for k in list(fitted) if is_head(k)}
  # A second head is left out with its token.
  old = {k: v for k, v in old.items() if k in new}
  if not new:
    return
  if left_out and head in ('keep', 'slice'):
    raise ValueError(
      f'head={head!r}, but the head of this checkpoint reads a layer before it '
      'that the model lacks: set representation_size='
      f'{old["head/kernel"].shape[0] if old else "..."} in the model.'
    )
  dead = 'head/kernel' not in old or not old['head/kernel'].any()
  if head in ('keep', 'slice') and dead:
    raise ValueError(
      f'head={head!r}, but the head of this checkpoint is zeros, as published, '
      "or missing: it cannot classify. Use head='new' and train it, or a "
      'checkpoint that was fine-tuned.'
    )
  if head == 'slice':
    number = old['head/kernel'].shape[-1]
    if min(classes) < 0 or max(classes) >= number:
      raise ValueError(
        f'Classes go from 0 to {number - 1}, not from {min(classes)} to '
        f'{max(classes)}.'
      )
    old = {name: x[..., list(classes)] for name, x in old.items()}
  same = {k: v.shape for k, v in old.items()} == {
    k: v.shape for k, v in new.items()
  }
  usable = same and not left_out
  fitted |= new if head == 'new' or (head == 'auto' and not usable) else old


def _bilinear_corners(old: int, new: int) -> np.ndarray:
  """(new, old): linear interpolation, first on first and last on last."""
  at = np.linspace(0, old - 1, new)[:, None]
  return np.maximum(0, 1 - np.abs(at - np.arange(old)[None]))


def _bilinear_edges(old: int, new: int) -> np.ndarray:
  """(new, old): linear interpolation between centres of pixels."""
  at = (np.arange(new) + 0.5) * old / new - 0.5
  at = np.clip(at, 0, old - 1)[:, None]
  return np.maximum(0, 1 - np.abs(at - np.arange(old)[None]))


def _bicubic_edges(old: int, new: int) -> np.ndarray:
  """(new, old): a cubic of a = -1/2, as wide as the coarser pixels."""
  scale = max(old / new, 1)
  at = (np.arange(new)[:, None] + 0.5) * old / new - 0.5
  weights = _cubic((at - np.arange(old)[None]) / scale, a=-0.5)
  return weights / weights.sum(axis=1, keepdims=True)


def _bicubic_sharp(old: int, new: int) -> np.ndarray:
  """(new, old): a cubic of a = -3/4 over four pixels, repeated at the ends."""
  at = (np.arange(new)[:, None] + 0.5) * old / new - 0.5
  pixels = np.arange(-2, old + 2)[None]
  ends = np.eye(old)[np.clip(pixels[0], 0, old - 1)]
  return _cubic(at - pixels, a=-0.75) @ ends


def _cubic(x: np.ndarray, *, a: float) -> np.ndarray:
  """Keys's kernel of cubic convolution, of slope a at the first zero."""
  x = np.abs(x)
  near = (a + 2) * x**3 - (a + 3) * x**2 + 1
  far = a * (x**3 - 5 * x**2 + 8 * x - 4)
  return np.where(x < 1, near, np.where(x < 2, far, 0))


_METHODS: dict[str, Callable[[int, int], np.ndarray]] = {
  'bilinear': _bilinear_corners,
  'bicubic': _bicubic_edges,
}
