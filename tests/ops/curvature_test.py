import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.ops import curvature

rng = np.random.default_rng(0)


@pytest.mark.parametrize('sign', [1, -1])
def test_the_eigenvalue_of_largest_magnitude_is_found(sign):
  a = rng.normal(size=(30, 6))
  matrix = jnp.asarray(sign * a.T @ a / 30, jnp.float32)

  def product(vector):
    x = matrix @ jnp.concatenate([vector['x'], vector['y']])
    return {'x': x[:2], 'y': x[2:]}

  like = {'x': jnp.ones(2), 'y': jnp.ones(4)}
  found = curvature.largest_eigenvalue(
    product, like, iterations=300, tolerance=1e-7
  )
  values = np.linalg.eigvalsh(np.asarray(matrix))
  assert found == pytest.approx(values[np.abs(values).argmax()], rel=1e-3)


def test_the_leading_eigenvalues_come_in_order():
  # Those of largest magnitude are negative: not among the largest.
  values = np.array([-9, -8, 5, 4, 3, 2, 1, 0.5, 0.2, 0, 0, -1])
  q, _ = np.linalg.qr(rng.normal(size=(12, 12)))
  matrix = jnp.asarray((q * values) @ q.T, jnp.float32)

  def product(vector):
    x = matrix @ jnp.concatenate([vector['x'], vector['y'].ravel()])
    return {'x': x[:2], 'y': x[2:].reshape(2, 5)}

  found = curvature.leading_eigenvalues(
    product, {'x': jnp.ones(2), 'y': jnp.ones((2, 5))}, number=4, tolerance=1e-6
  )
  np.testing.assert_allclose(found, [5, 4, 3, 2], rtol=1e-4)


def test_a_product_is_that_of_the_whole_hessian():
  x = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)
  params = jnp.asarray(rng.normal(size=12), jnp.float32)
  vector = jnp.asarray(rng.normal(size=12), jnp.float32)

  def loss(params):
    return jnp.sum(jnp.tanh(x @ params[:9].reshape(3, 3)) @ params[9:] ** 2)

  expected = jax.hessian(loss)(params) @ vector
  product = jax.jit(functools.partial(curvature.hessian_product, loss))
  np.testing.assert_allclose(
    product(params, vector), expected, rtol=1e-4, atol=1e-5
  )
