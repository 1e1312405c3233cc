"""A stack of equal blocks: one after the other, or scanned.

Unrolled, the parameters are `block_0`, `block_1`, ...; this runs faster on
GPUs. Scanned, they are stacked on a new first axis under `blocks`: the program
holds one block, so that it compiles several times faster at any depth. The two
compute the same function, and `stack_blocks` and `unstack_blocks` convert one
form of the parameters into the other. Where the first blocks are of another
kind than the rest, only the rest are scanned: `block_0`, `blocks`.

In either form the backward pass may compute a part of the block again instead
of having kept it: `remat`, one of `REMAT`. The memory that this saves was
measured scanned; unrolled, XLA on a CPU undoes it.
"""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from vit_jax.layers.drop_path import linear_rates
from vit_jax.lookup import choose
from vit_jax.types import Array

# What is kept of a block for its backward pass, besides its input; the rest is
# computed a second time. The gradients are the same.
REMAT = {
  'none': None,
  # Products with weights, which are most of the work. What lies between them
  # is most of the memory: norms, activations, the matrix of the attention.
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  # The whole block twice: a third more work in a step, the least memory.
  'nothing': jax.checkpoint_policies.nothing_saveable,
}

_BLOCK = re.compile(r'block_\d+')


def apply_blocks(
  make_block: Callable[..., nn.Module],
  tokens: PyTree[Float[Array, '...']],
  *,
  depth: int,
  drop_path: float | Sequence[float],
  scan: bool,
  train: bool,
  remat: str = 'none',
  first: Sequence[Callable[..., nn.Module]] = (),
  **each: Sequence[Any],
) -> PyTree[Float[Array, '...']]:
  """Applies `depth` blocks; call it inside a module's `nn.compact` method.

  Args:
    make_block: name -> module, called as `block(tokens, drop_path=, train=)`
      with the block's own rate, or None if nothing is to be dropped.
    tokens: what enters the first block; a row or a map, or several of them.
    depth: number of blocks.
    drop_path: rate of the last block, or of the first and the last; see
      `linear_rates`.
    scan: whether the blocks share one program.
    train: whether dropout and drop path are on.
    remat: what the backward pass computes again: 'none' for nothing, 'dots' for
      all but products with weights, 'nothing' (is kept) for whole blocks.
    first: the makers of as many blocks at the start, if those are of another
      kind, which they share.
    **each: other keywords of a block, with a value for every one.

  Raises:
    ValueError: if `remat` is unknown.
  """
  policy = choose(REMAT, word=remat, kind='remat')
  rates = linear_rates(drop_path, depth=depth)
  makers = [*first, *[make_block] * (depth - len(first))]
  # Only blocks of one kind can share a program.
  if scan:
    unrolled = len(first) if len(first) < depth else 0
  else:
    unrolled = depth
  for i in range(unrolled):
    rate = rates[i] if rates else None
    own = {key: values[i] for key, values in each.items()}
    options = dict(drop_path=rate, train=train, **own)
    apply = lambda block, tokens, options=options: block(tokens, **options)
    if policy is not None:
      apply = nn.remat(apply, policy=policy)
    tokens = apply(makers[i](name=f'block_{i}'), tokens)
  if unrolled == depth:
    return tokens

  def body(block, tokens, rate, own):
    return block(tokens, drop_path=rate, train=train, **own), None

  if policy is not None:
    # The loop itself keeps XLA from merging the second time with the first.
    body = nn.remat(body, policy=policy, prevent_cse=depth == 1)
  lifted = dict(
    variable_axes={'params': 0, 'batch_stats': 0, 'intermediates': 0},
    split_rngs={'params': True, 'dropout': True},
  )
  if depth == 1:
    # A scan returns what it takes; a lone block may change the shape.
    lone = nn.vmap(body, in_axes=None, axis_size=1, **lifted)
    own = {key: x[0] for key, x in each.items()}
    rate = rates[0] if rates else None
    tokens, _ = lone(makers[0](name='blocks'), tokens, rate, own)
    return jax.tree.map(operator.itemgetter(0), tokens)
  scanned = nn.scan(body, length=depth - unrolled, **lifted)
  rates = jnp.asarray(rates[unrolled:]) if rates else None
  each = {key: jnp.asarray(x[unrolled:]) for key, x in each.items()}
  tokens, _ = scanned(makers[-1](name='blocks'), tokens, rates, each)
  return tokens


def stack_blocks(tree: Any) -> Any:
  """The scanned form of a tree in the unrolled form.

  Args:
    tree: any tree that holds dicts of blocks: parameters, gradients, states of
      optimisers. Under `jax.eval_shape` it may hold shapes.

  Raises:
    ValueError: if a block is missing.
  """

  def stack(node):
    if not _has_blocks(node):
      return node
    rest = {k: stack_blocks(v) for k, v in node.items() if not _is_block(k)}
    depth = len(node) - len(rest)
    names = [f'block_{i}' for i in range(depth)]
    if missing := [name for name in names if name not in node]:
      raise ValueError(
        f'cannot stack {depth} blocks: {missing[0]!r} is missing in '
        f'{sorted(node)}'
      )
    blocks = [stack_blocks(node[name]) for name in names]
    kinds = [jax.tree.map(jnp.shape, block) for block in blocks]
    start = max(
      (i + 1 for i in range(depth) if kinds[i] != kinds[-1]), default=0
    )
    first = dict(zip(names[:start], blocks[:start], strict=True))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *blocks[start:])
    return rest | first | {'blocks': stacked}

  return jax.tree.map(stack, tree, is_leaf=_has_blocks)


def unstack_blocks(tree: Any, *, depth: int | None = None) -> Any:
  """The unrolled form of a tree in the scanned form: undoes `stack_blocks`.

  Args:
    tree: any tree that holds dicts with stacked `blocks`.
    depth: number of blocks where `blocks` holds no array that tells it, as in
      an optimiser's state of frozen parameters; by default that of the other
      `blocks` in the tree, if they agree.

  Raises:
    ValueError: if the arrays under `blocks` do not agree on a depth, or none
      tells it.
  """
  if depth is None:
    depth = _common_depth(tree)

  def unstack(node):
    if not _has_stack(node):
      return node
    rest = {
      k: unstack_blocks(v, depth=depth)
      for k, v in node.items()
      if k != 'blocks'
    }
    start = sum(map(_is_block, node))
    for i in range(_depth(node['blocks'], default=depth)):
      block = jax.tree.map(operator.itemgetter(i), node['blocks'])
      rest[f'block_{start + i}'] = unstack_blocks(block, depth=depth)
    return rest

  return jax.tree.map(unstack, tree, is_leaf=_has_stack)


def _is_block(name: Any) -> bool:
  return isinstance(name, str) and _BLOCK.fullmatch(name) is not None


def _has_blocks(node: Any) -> bool:
  return (
    isinstance(node, dict)
    and any(map(_is_block, node))
    and not _has_stack(node)
  )


def _has_stack(node: Any) -> bool:
  return isinstance(node, dict) and 'blocks' in node


def _depth(stacked: Any, *, default: int | None) -> int:
  """The length of the first axis, which all arrays share."""
  found = {x.shape[0] if x.ndim else None for x in jax.tree.leaves(stacked)}
  depth, *others = found or {default}
  if others or depth is None:
    raise ValueError(
      "cannot unstack 'blocks': its arrays must share the length of their "
      f'first axis, the depth, but have {sorted(map(str, found))}; where it '
      'holds no array, give depth='
    )
  return depth


def _common_depth(tree: Any) -> int | None:
  """The depth of all stacks in the tree that hold arrays, if it is one."""
  stack = jax.tree_util.DictKey('blocks')
  found = {
    x.shape[0]
    for path, x in jax.tree.leaves_with_path(tree)
    if stack in path and x.ndim
  }
  return found.pop() if len(found) == 1 else None
