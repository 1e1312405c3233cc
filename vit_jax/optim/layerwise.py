"""What happens layer by layer, whether blocks are unrolled or scanned.

A model holds its blocks as `block_0`, `block_1`, ... or, scanned, as one
`blocks` whose parameters carry the depth as their leading axis. Blocks of
another kind may stand before it.
"""

import collections
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vit_jax.optim import masks

# Names of what comes before the first block: position and patch embeddings,
# the convolutions of a hybrid, class and other learned tokens.
_EMBEDDING = re.compile(r'.*embed.*|.*token.*|cls|resnet|stem')
_BLOCK = re.compile(r'(?:(?P<stack>.*)/)?(?:block_(?P<index>\d+)|blocks)/.*')


def per_layer(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns (path, *trees) -> function(*trees), mapped over scanned blocks.

  Factored moments and norms of one layer must not see the other layers, which
  a scanned model keeps in the same array.
  """

  def mapped(path, *trees):
    if 'blocks' in masks.path_name(path).split('/'):
      return jax.vmap(function)(*trees)
    return function(*trees)

  return mapped


def multipliers(params: Any, *, layer_decay: float) -> Any:
  """Returns decay**(depth + 1 - layer) for each parameter.

  Embeddings are layer 0, block i is layer i + 1, and what follows the blocks
  is layer depth + 1 (BEiT, arXiv:2106.08254; MAE, arXiv:2111.06377, table 9).
  Parameters of scanned blocks get an array (depth, 1, ...).

  Raises:
    ValueError: if the decay is not in (0, 1], or there is not one stack of
      blocks.
  """
  if not 0 < layer_decay <= 1:
    raise ValueError(f'{layer_decay=} must be in (0, 1]; None switches it off.')
  named = [
    (masks.path_name(path), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  ]
  depth = _depth(named)

  def multiplier(name, leaf):
    block = _BLOCK.fullmatch(name)
    if block and block['index']:
      layer = int(block['index']) + 1
    elif block:
      layers = np.arange(depth - leaf.shape[0] + 1, depth + 1)
      layer = layers.reshape(-1, *[1] * (len(leaf.shape) - 1))
    elif any(map(_EMBEDDING.fullmatch, name.split('/'))):
      layer = 0
    else:
      layer = depth + 1
    return np.float32(layer_decay) ** np.float32(depth + 1 - layer)

  values = [multiplier(*item) for item in named]
  return jax.tree.unflatten(jax.tree.structure(params), values)


def _depth(named: list[tuple[str, Any]]) -> int:
  """Returns the number of blocks."""
  stacks = collections.defaultdict(dict)
  for name, leaf in named:
    if block := _BLOCK.fullmatch(name):
      sizes, index = stacks[block['stack'] or ''], block['index']
      sizes[index] = 1 if index else leaf.shape[0]
  if len(stacks) != 1:
    raise ValueError(
      'layer_decay needs exactly one stack of blocks (`block_0`, ... or '
      f'`blocks`), found {len(stacks)}: {sorted(stacks)}.'
    )
  (sizes,) = stacks.values()
  return sum(sizes.values())
