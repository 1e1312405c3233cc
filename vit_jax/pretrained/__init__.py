"""Foreign checkpoints enter and leave here, and nowhere else.

What passes between the files of this room is flat: arrays of NumPy by the path
of our parameters, with blocks one by one, such as 'block_0/attn/qkv/kernel'.
Statistics of batches are among them, 'norm/mean' beside 'norm/bias'.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.pretrained import (
  catalogue,
  fetch,
  files,
  fit,
  google_npz,
  torch_names,
)

Flat = dict[str, np.ndarray]


def initialize(
  variables: Mapping[str, Any],
  *,
  source: str,
  grid: tuple[int, int],
  loaded: Mapping[str, Any] | None = None,
  head: str = 'auto',
  classes: Sequence[int] = (),
  resample: str = 'bilinear',
  loaded_grid: tuple[int, int] | None = None,
  cache_dir: str | None = None,
) -> dict[str, Any]:
  """Pretrained parameters and statistics in place of the initial ones.

  Args:
    variables: initial collections of the model, such as {'params': ...,
      'batch_stats': ...}, nested, with blocks one by one.
    source: a path; an address `https://`, `gs://` or `hf://owner/name`; a name
      of the catalogue, such as 'augreg/B_16'; or a file name of AugReg.
    grid: (h, w) of the model's position embeddings or tokens, in patches.
    loaded: what the source has, if it is read already: collections by our own
      names, like `variables`.
    head: where the head comes from: 'auto', 'new', 'keep' or 'slice'.
    classes: for 'slice'. See `fit.fit` for these and what follows.
    resample: of position embeddings: 'bilinear' or 'bicubic'.
    loaded_grid: (h, w) of the checkpoint, where it is not square.
    cache_dir: where downloads are kept.

  Returns:
    Arrays of NumPy in the structure, shapes and types of `variables`.

  Raises:
    ValueError: if the source cannot be found or read, or does not fit.
  """
  initial = join(variables)
  if loaded is None:
    keeps_head = head in ('keep', 'slice')
    path = locate(source, keeps_head=keeps_head, cache=cache_dir)
  try:
    if loaded is None:
      heads = torch_names.heads_of(initial)
      foreign = to_ours(files.read(path), num_heads=heads)
    else:
      foreign = join(loaded)
    fitted = fit.fit(
      foreign,
      initial,
      grid=grid,
      loaded_grid=loaded_grid,
      resample=resample,
      head=head,
      classes=classes,
    )
  except ValueError as error:
    raise ValueError(f'{source}: {error}') from error
  return split(fitted, like=variables)


def locate(
  source: str, *, keeps_head: bool = False, cache: str | None = None
) -> pathlib.Path:
  """The file of a path, an address or a name; it is downloaded if need be.

  Args:
    source: as in `initialize`.
    keeps_head: whether a head that was zeroed is an error.
    cache: where downloads are kept.

  Raises:
    ValueError: if it cannot be found; it says where checkpoints are published.
  """
  path = pathlib.Path(source).expanduser()
  if path.is_file():
    return path
  entry = catalogue.look_up(source)
  is_path = source.startswith(('/', '.', '~'))
  if '://' in source:
    address = source
  elif is_path or (entry is None and path.suffix in files.READERS):
    raise ValueError(
      f'There is no file {source}. Google publishes its checkpoints at '
      f'{catalogue.PUBLISHED}; list them with `python -m vit_jax.tools.zoo '
      "--pretrained '*'`, and give a name from that list, or a path: "
      '--config.init.params=/path/to/file.npz.'
    )
  else:
    entry = entry or catalogue.find(source)
    if keeps_head and entry.zeroed_head:
      raise ValueError(
        f'{entry.name} was published with a head of zeros: it cannot classify. '
        "Use head='new' and train it, or a checkpoint that was fine-tuned, see "
        "`python -m vit_jax.tools.zoo --pretrained '*'`."
      )
    address = entry.location
  return fetch.fetch(address, cache_dir=cache)


def to_ours(
  foreign: Flat,
  *,
  num_heads: int | Sequence[int | None] | Mapping[str, int] | None = None,
) -> Flat:
  """Our parameters, flat, from a known format, which is told by the names.

  Raises:
    ValueError: if the names are of no known format.
  """
  if google_npz.is_google(foreign):
    return google_npz.to_ours(foreign)
  return torch_names.to_ours(foreign, num_heads=num_heads)


def join(variables: Mapping[str, Any]) -> Flat:
  """All collections by path, without their names: no two share a path."""
  return {k: x for tree in variables.values() for k, x in flatten(tree).items()}


def split(
  flat: Mapping[str, Any], *, like: Mapping[str, Any]
) -> dict[str, Any]:
  """Undoes `join`, with the collections of `like`."""
  return {
    name: unflatten({path: flat[path] for path in flatten(tree)})
    for name, tree in like.items()
  }


def flatten(tree: Mapping[str, Any], *, prefix: str = '') -> Flat:
  """Nested dicts -> arrays of NumPy by their path, joined with '/'."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, prefix=f'{prefix}{name}/')
    else:
      flat[f'{prefix}{name}'] = np.asarray(value)
  return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Undoes `flatten`."""
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    *parents, name = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = value
  return tree
