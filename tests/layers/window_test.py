import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.window import (
  largest_window,
  merge,
  pad_to_multiple,
  pairwise,
  partition,
  shift_mask,
  within_windows,
)

some = hypothesis.settings(deadline=None, max_examples=4)
sides = st.tuples(st.integers(1, 4), st.integers(1, 4))
numbers = st.tuples(st.integers(1, 3), st.integers(1, 3))


def places(size):
  """(1, h, w, 2): the row and the column of each token."""
  grid = np.stack(np.mgrid[: size[0], : size[1]], axis=-1)
  return jnp.asarray(grid[None], jnp.float32)


def total(tokens, mask):
  """Instead of attention, the sum of all that may be seen."""
  n = tokens.shape[1]
  mask = jnp.ones((1, 1, n, n)) if mask is None else mask
  mask = jnp.tile(mask, (len(tokens) // len(mask), 1, 1, 1))
  return jnp.einsum('bqn,bnd->bqd', mask[:, 0].astype(float), tokens)


def sum_of_windows(x, *, window, shift):
  """The same token by token; shifted windows begin at -shift."""
  b, h, w, _ = x.shape
  row = (np.arange(h) - shift[0]) // window[0]
  column = (np.arange(w) - shift[1]) // window[1]
  same = row[:, None] == row[None]
  alike = column[:, None] == column[None]
  return np.einsum('hy,wx,byxd->bhwd', same, alike, np.asarray(x))


@some
@hypothesis.given(window=sides, number=numbers)
def test_merging_undoes_partition(window, number):
  size = window[0] * number[0], window[1] * number[1]
  x = jnp.concatenate([places(size), -places(size)])
  tokens = partition(x, window=window)
  assert tokens.shape == (2 * number[0] * number[1], window[0] * window[1], 2)
  np.testing.assert_array_equal(merge(tokens, window=window, size=size), x)


def test_windows_and_their_tokens_go_row_by_row():
  tokens = partition(places((4, 6)), window=(2, 3))
  np.testing.assert_array_equal(
    tokens[1], [[0, 3], [0, 4], [0, 5], [1, 3], [1, 4], [1, 5]]
  )
  np.testing.assert_array_equal(tokens[2, 0], [2, 0])


@some
@hypothesis.given(window=sides, number=numbers, data=st.data())
def test_who_may_be_seen_is_as_far_away_as_before_the_roll(
  window, number, data
):
  size = window[0] * number[0], window[1] * number[1]
  shift = tuple(data.draw(st.integers(0, side - 1)) for side in window)
  rolled = jnp.roll(places(size), (-shift[0], -shift[1]), axis=(1, 2))
  before = np.asarray(partition(rolled, window=window))
  now = np.asarray(partition(places(size), window=window))
  apart = lambda x: x[:, :, None] - x[:, None]
  expected = (apart(before) == apart(now)).all(-1)
  np.testing.assert_array_equal(
    shift_mask(size, window=window, shift=shift), expected
  )


@some
@hypothesis.given(window=sides)
def test_a_table_is_read_at_the_difference_of_query_and_key(window):
  h, w = window
  table = np.random.default_rng(0).normal(size=(2 * h - 1, 2 * w - 1, 3))
  bias = pairwise(jnp.asarray(table, jnp.float32), window=window)
  row, column = np.mgrid[:h, :w].reshape(2, -1)
  expected = table[
    row[:, None] - row[None] + h - 1, column[:, None] - column[None] + w - 1
  ]
  np.testing.assert_allclose(bias, expected.transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize('size', [(9, 6), (7, 4), (5, 2), (3, 6), (2, 2)])
@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('traced', [False, True])
def test_a_token_sees_its_window_and_nothing_else(size, shifted, traced):
  """Multiples of 3, sizes that need padding, and maps within one window."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, *size, 4)), jnp.float32)
  window = largest_window(x.shape, side=3)
  shift = [int(shifted and n > 3) for n in size]
  run = lambda x, shifted: within_windows(
    total, x, window=window, shifted=shifted
  )
  actual = jax.jit(run)(x, shifted) if traced else run(x, shifted)
  expected = sum_of_windows(x, window=window, shift=shift)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_padding_is_at_the_bottom_and_the_right():
  x = pad_to_multiple(jnp.ones((1, 3, 4, 1)), sides=(2, 3))
  assert x.shape == (1, 4, 6, 1)
  assert x[:, :3, :4].all() and x.sum() == 12
