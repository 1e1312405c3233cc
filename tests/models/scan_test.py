import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax.layers.drop_path import DropPath
from vit_jax.models.scan import (
  REMAT,
  apply_blocks,
  stack_blocks,
  unstack_blocks,
)


class AddStep(nn.Module):
  """A block that adds a number, unless drop path drops it."""

  @nn.compact
  def __call__(self, tokens, *, drop_path=None, train=False):
    step = self.param('step', nn.initializers.normal(), (1, 1, 1))
    branch = jnp.broadcast_to(step, tokens.shape)
    return tokens + DropPath()(branch, rate=drop_path, train=train)


class Stack(nn.Module):
  depth: int
  drop_path: float = 0.0
  scan: bool = False

  @nn.compact
  def __call__(self, tokens, *, train=False):
    return apply_blocks(
      AddStep,
      tokens,
      depth=self.depth,
      drop_path=self.drop_path,
      scan=self.scan,
      train=train,
    )


def unrolled_tree(depth):
  """Blocks beside other parameters and inside other blocks."""
  rng = np.random.default_rng(0)

  def block():
    return {'a': rng.normal(size=(2, 3)), 'b': {'c': rng.normal(size=())}}

  tower = {f'block_{i}': block() for i in range(depth)}
  nested = {'block_0': {'block_0': {'x': np.ones(2)}, 'y': np.zeros(3)}}
  return {'params': {'image': tower | {'norm': np.ones(2)}, 'text': nested}}


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize('scan', [False, True])
def test_each_block_has_its_own_rate_and_its_own_draws(scan):
  depth, drop_path = 4, 0.6
  keep = 1 - np.linspace(0, drop_path, depth)
  # Block i adds 2**i where it is kept: the sum tells which blocks were.
  steps = (2.0 ** np.arange(depth) * keep).reshape(depth, 1, 1, 1)
  params = {'blocks': {'step': jnp.asarray(steps, jnp.float32)}}
  params = params if scan else unstack_blocks(params)
  out = Stack(depth, drop_path, scan).apply(
    {'params': params},
    jnp.zeros((4096, 1, 1)),
    train=True,
    rngs={'dropout': jax.random.key(0)},
  )
  kept = (np.rint(out).astype(int).reshape(-1, 1) >> np.arange(depth)) & 1
  np.testing.assert_allclose(kept.mean(0), keep, atol=0.04)
  correlation = np.corrcoef(kept[:, 1:].T)
  np.testing.assert_allclose(correlation, np.eye(depth - 1), atol=0.06)


class Remember(nn.Module):
  """A block whose output tells which rates and numbers came, in which order."""

  @nn.compact
  def __call__(self, tokens, *, drop_path, number, train):
    step = self.param('step', nn.initializers.normal(), (1, 1, 1))
    return 2 * tokens + step + drop_path + number


class RememberMore(Remember):
  """A block of another kind."""

  @nn.compact
  def __call__(self, tokens, **options):
    more = self.param('more', nn.initializers.normal(), (1, 1, 1))
    return super().__call__(tokens, **options) + more


class Mixed(nn.Module):
  first: int
  scan: bool = False

  @nn.compact
  def __call__(self, tokens):
    return apply_blocks(
      Remember,
      tokens,
      depth=3,
      drop_path=0.5,
      scan=self.scan,
      train=False,
      first=[RememberMore] * self.first,
      number=[3, 1, 4],
    )


@pytest.mark.parametrize('first', [0, 1, 3])
def test_the_first_blocks_may_be_of_another_kind(first):
  unrolled, scanned = Mixed(first), Mixed(first, scan=True)
  tokens = jnp.ones((2, 1, 1))
  out, params = unrolled.init_with_output(jax.random.key(0), tokens)
  kinds = ['more' in params['params'][f'block_{i}'] for i in range(3)]
  assert kinds == [i < first for i in range(3)]
  stacked = stack_blocks(params)
  fresh = jax.eval_shape(scanned.init, jax.random.key(0), tokens)
  assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, fresh)
  np.testing.assert_allclose(scanned.apply(stacked, tokens), out, rtol=1e-5)
  assert_same(unstack_blocks(stacked), params)


@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(depth=st.integers(1, 12))
def test_unstacking_undoes_stacking(depth):
  tree = unrolled_tree(depth)
  stacked = stack_blocks(tree)
  assert set(stacked['params']['image']) == {'blocks', 'norm'}
  assert stacked['params']['image']['blocks']['a'].shape == (depth, 2, 3)
  assert stacked['params']['text']['blocks']['blocks']['x'].shape == (1, 1, 2)
  tree = jax.tree.map(jnp.asarray, tree)
  assert_same(unstack_blocks(stacked), tree)
  assert_same(stack_blocks(unstack_blocks(stacked)), stacked)


def test_the_order_of_the_blocks_is_that_of_numbers():
  tree = {f'block_{i}': {'x': jnp.array(i)} for i in reversed(range(12))}
  np.testing.assert_array_equal(stack_blocks(tree)['blocks']['x'], range(12))


def test_an_optimiser_state_is_converted_like_its_parameters():
  tokens = jnp.zeros((1, 1, 1))
  params = Stack(3).init(jax.random.key(0), tokens)['params']
  tx = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(1e-3), optax.trace(0.9)
  )
  state = tx.init(params)
  stacked = stack_blocks(state)
  fresh = tx.init(stack_blocks(params))
  assert jax.tree.structure(stacked) == jax.tree.structure(fresh)
  assert_same(stacked, fresh)
  assert_same(unstack_blocks(stacked), state)


def test_conversion_works_under_jit_and_on_shapes():
  tree = unrolled_tree(3)
  shapes = jax.eval_shape(stack_blocks, tree)
  assert shapes['params']['image']['blocks']['a'].shape == (3, 2, 3)
  back = jax.eval_shape(unstack_blocks, shapes)
  assert jax.tree.map(jnp.shape, back) == jax.tree.map(jnp.shape, tree)
  assert_same(jax.jit(stack_blocks)(tree), stack_blocks(tree))


def test_blocks_without_arrays_need_the_depth():
  frozen = {f'block_{i}': {'x': optax.MaskedNode()} for i in range(2)}
  stacked = stack_blocks(frozen)
  with pytest.raises(ValueError, match='no array, give depth='):
    unstack_blocks(stacked)
  assert_same(unstack_blocks(stacked, depth=2), frozen)


def test_blocks_without_arrays_take_the_depth_of_the_others():
  params = {f'block_{i}': {'x': jnp.ones(3)} for i in range(2)}
  state = optax.masked(optax.adam(1e-3), {'block_0': False, 'block_1': False})
  tree = {'params': params, 'opt_state': state.init(params)}
  assert_same(unstack_blocks(stack_blocks(tree)), tree)


@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(start=st.integers(1, 3), depth=st.integers(1, 11))
def test_blocks_of_another_kind_before_the_others_stay_as_they_are(
  start, depth
):
  others = {f'block_{i}': {'x': jnp.array(i), 'y': i} for i in range(start)}
  alike = {f'block_{start + i}': {'x': jnp.array(i)} for i in range(depth)}
  stacked = stack_blocks(others | alike)
  assert set(stacked) == {*others, 'blocks'}
  np.testing.assert_array_equal(stacked['blocks']['x'], range(depth))
  assert_same(stack_blocks(stacked), stacked)
  assert_same(unstack_blocks(stacked), others | alike)


def test_a_missing_block_is_named():
  tree = {'block_0': {'x': jnp.ones(1)}, 'block_2': {'x': jnp.ones(1)}}
  with pytest.raises(ValueError, match="'block_1' is missing"):
    stack_blocks(tree)


def test_arrays_of_different_depths_are_refused():
  tree = {'blocks': {'x': jnp.ones((2, 1)), 'y': jnp.ones((3, 1))}}
  with pytest.raises(ValueError, match=r"\['2', '3'\]"):
    unstack_blocks(tree)


class Busy(nn.Module):
  """A block that draws numbers, counts statistics and has much to remember."""

  @nn.compact
  def __call__(self, tokens, *, drop_path, train):
    x = nn.Dense(64, name='fc1')(tokens)
    x = nn.BatchNorm(not train, momentum=0.9, name='norm')(x)
    x = nn.Dense(tokens.shape[-1], name='fc2')(jnp.sin(jnp.exp(jnp.sin(x))))
    return tokens + DropPath()(x, rate=drop_path, train=train)


class BusyStack(nn.Module):
  scan: bool
  remat: str = 'none'

  @nn.compact
  def __call__(self, tokens, *, train=True):
    options = dict(depth=6, drop_path=0.5, scan=self.scan, train=train)
    return apply_blocks(Busy, tokens, remat=self.remat, **options)


@pytest.mark.parametrize('scan', [False, True])
def test_computing_again_gives_the_same_gradient_scanned_in_less_memory(scan):
  tokens = jax.random.normal(jax.random.key(0), (128, 16))
  keys = {'params': jax.random.key(1), 'dropout': jax.random.key(2)}
  variables = BusyStack(scan).init(keys, tokens)
  temporaries, results = {}, {}
  for remat in REMAT:

    def loss(params, remat=remat):
      out, state = BusyStack(scan, remat).apply(
        {**variables, 'params': params},
        tokens,
        rngs={'dropout': jax.random.key(3)},
        mutable=['batch_stats'],
      )
      return jnp.square(out).mean(), state

    grad = jax.jit(jax.grad(loss, has_aux=True))
    compiled = grad.lower(variables['params']).compile()
    temporaries[remat] = compiled.memory_analysis().temp_size_in_bytes
    results[remat] = compiled(variables['params'])
  # Unrolled, XLA merges what is computed again with the first time on a CPU,
  # where it drops the barriers between the two.
  if scan:
    assert temporaries['nothing'] < temporaries['dots'] < temporaries['none']
    assert temporaries['nothing'] < temporaries['none'] / 2
  for remat in ('dots', 'nothing'):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
      results[remat],
      results['none'],
    )


def test_an_unknown_remat_is_answered_by_the_known():
  model = BusyStack(True, 'dot')
  with pytest.raises(ValueError, match="remat: 'dot'. Did you mean 'dots'"):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16)))
