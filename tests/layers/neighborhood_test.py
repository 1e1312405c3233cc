import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.neighborhood import (
  NeighborhoodAttention,
  neighborhood_attention,
)
from vit_jax.layers.window import pairwise
from vit_jax.ops import kernels
from vit_jax.ops.kernels import dot_product_attention


def draw(*size, kernel_size, heads=2, batch=2):
  """A query, key and value of maps of this size, and a table of biases."""
  rng = np.random.default_rng(0)
  shapes = [(batch, *size, heads, 4)] * 3
  shapes += [(2 * kernel_size - 1, 2 * kernel_size - 1, heads)]
  return [jnp.asarray(rng.normal(size=x), jnp.float32) for x in shapes]


def neighbors(n, *, kernel_size, dilation):
  """For each token of an axis, the nearest among those in step with it."""
  return [
    sorted(range(i % dilation, n, dilation), key=lambda j: abs(j - i))[
      :kernel_size
    ]
    for i in range(n)
  ]


def by_the_definition(query, key, value, table, *, dilation):
  """Attention of all tokens to all, of which few are left."""
  b, h, w, *heads = query.shape
  kernel_size = (len(table) + 1) // 2
  options = dict(kernel_size=kernel_size, dilation=dilation)
  rows, columns = neighbors(h, **options), neighbors(w, **options)
  seen = np.zeros((h, w, h, w), bool)
  steps = np.zeros((2, h, w, h, w), int)
  for y, x in np.ndindex(h, w):
    for i in rows[y]:
      for j in columns[x]:
        seen[y, x, i, j] = True
        steps[:, y, x, i, j] = (i - y) // dilation, (j - x) // dilation
  at = steps.reshape(2, h * w, h * w) + kernel_size - 1
  bias = jnp.asarray(table)[*at].transpose(2, 0, 1)[None]
  query, key, value = (x.reshape(b, h * w, *heads) for x in (query, key, value))
  mixed = dot_product_attention(
    query,
    key,
    value,
    bias=bias,
    mask=jnp.asarray(seen.reshape(1, 1, h * w, h * w)),
  )
  return mixed.reshape(b, h, w, *heads)


# A window that covers an axis; tiles that come out even and not; the same in
# lattices of two lengths, and of one.
@pytest.mark.parametrize(
  ('size', 'kernel_size', 'dilation'),
  [((3, 5), 3, 1), ((10, 6), 3, 1), ((11, 7), 3, 2), ((21, 10), 5, 2)],
)
def test_a_token_attends_to_the_nearest_of_its_lattice(
  size, kernel_size, dilation
):
  args = draw(*size, kernel_size=kernel_size)
  weight = jnp.sin(jnp.arange(args[0].size)).reshape(args[0].shape)

  def ours(query, key, value, table):
    return neighborhood_attention(
      query, key, value, table=table, dilation=dilation
    )

  def theirs(*args):
    return by_the_definition(*args, dilation=dilation)

  def output_and_gradients(attend):
    loss = lambda *args: jnp.sum(attend(*args) * weight)
    return jax.jit(
      lambda *args: (attend(*args), jax.grad(loss, range(4))(*args))
    )

  jax.tree.map(
    lambda actual, expected: np.testing.assert_allclose(
      actual, expected, rtol=1e-4, atol=1e-5
    ),
    output_and_gradients(ours)(*args),
    output_and_gradients(theirs)(*args),
  )


def test_a_window_as_large_as_the_map_is_full_attention():
  *qkv, table = draw(5, 5, kernel_size=5)
  actual = jax.jit(neighborhood_attention)(*qkv, table=table)
  # Differences of positions are counted from the key there.
  bias = jax.jit(lambda x: pairwise(x[::-1, ::-1], window=(5, 5))[None])(table)
  tokens = [x.reshape(2, 25, 2, 4) for x in qkv]
  expected = jax.jit(dot_product_attention)(*tokens, bias=bias)
  np.testing.assert_allclose(
    actual.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6
  )


def eqns(jaxpr):
  """All equations of a program."""
  for eqn in jaxpr.eqns:
    yield eqn
    for inner in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')
    ):
      if hasattr(inner, 'jaxpr'):
        yield from eqns(inner.jaxpr)


def program(side):
  """The gradient of all that enters, for a square map."""
  args = draw(side, side, kernel_size=7, batch=1)
  loss = lambda query, key, value, table: jnp.sum(
    neighborhood_attention(query, key, value, table=table)
  )
  return jax.make_jaxpr(jax.grad(loss, range(4)))(*args)


def test_memory_is_linear_in_the_number_of_tokens():
  small, large = (
    max(v.aval.size for eqn in eqns(program(side).jaxpr) for v in eqn.outvars)
    for side in (28, 56)
  )
  assert large == 4 * small


def test_nothing_is_gathered_or_scattered():
  names = {eqn.primitive.name for eqn in eqns(program(28).jaxpr)}
  assert 'dot_general' in names
  assert not [x for x in names if 'gather' in x or 'scatter' in x]


def test_no_fused_kernel_sees_the_minus_infinities(monkeypatch):
  # Which kernel is chosen depends on the device, which is a CPU here.
  monkeypatch.setattr(kernels, 'choose_kernel', lambda *_, **__: 'cudnn')
  *qkv, table = draw(6, 6, kernel_size=3)
  neighborhood_attention(*qkv, table=table)


def test_a_map_smaller_than_a_window_is_enlarged_with_zeros():
  module = NeighborhoodAttention(num_heads=2, kernel_size=3)
  x = jax.random.normal(jax.random.key(0), (2, 4, 7, 8))
  fresh = jax.eval_shape(module.init, jax.random.key(0), x)
  # So that zeros have a key and a value as well.
  params = jax.tree.map(lambda x: jnp.full(x.shape, 0.3), fresh)
  attend = jax.jit(functools.partial(module.apply, params, dilation=2))
  padded = jnp.pad(x, ((0, 0), (0, 2), (0, 0), (0, 0)))
  np.testing.assert_allclose(
    attend(x), attend(padded)[:, :4], rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ('size', 'kernel_size', 'dilation', 'message'),
  [
    ((8, 8), 4, 1, 'kernel_size=4 must be an odd number above 1'),
    ((8, 8), 1, 1, 'kernel_size=1 must be an odd number above 1'),
    ((8, 8), 3, 0, 'dilation=0 must be at least 1'),
    ((8, 5), 3, 2, 'span 6 tokens, more than the 5 of the map'),
  ],
)
def test_a_neighbourhood_that_cannot_be_is_refused(
  size, kernel_size, dilation, message
):
  query, key, value, table = draw(*size, kernel_size=kernel_size)
  with pytest.raises(ValueError, match=message):
    neighborhood_attention(query, key, value, table=table, dilation=dilation)
