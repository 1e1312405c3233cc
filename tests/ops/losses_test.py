import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.ops import losses

SUMS = [losses.softmax_cross_entropy, losses.sigmoid_cross_entropy]
every_loss = pytest.mark.parametrize('loss', losses.LOSSES.values())


def draw(*shape):
  rng = np.random.default_rng(0)
  logits = rng.normal(scale=3, size=shape).astype(np.float32)
  labels = rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])
  return jnp.asarray(logits), jnp.asarray(labels, jnp.float32)


def test_softmax_cross_entropy_has_its_closed_form():
  logits, labels = draw(5, 7)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(
    losses.softmax_cross_entropy(logits, labels),
    -(labels * np.log(p)).sum(-1),
    rtol=1e-5,
  )


def test_sigmoid_cross_entropy_sums_over_the_classes():
  logits, labels = draw(5, 7)
  p = 1 / (1 + np.exp(-logits))
  np.testing.assert_allclose(
    losses.sigmoid_cross_entropy(logits, labels),
    -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum(-1),
    rtol=1e-5,
  )


def test_binary_cross_entropy_takes_each_class_of_a_mixture_for_present():
  logits, _ = draw(2, 4)
  mixed = jnp.asarray([[0.99, 0, 0.01, 0], [0, 1, 0, 0]])
  present = np.asarray([[1, 0, 1, 0], [0, 1, 0, 0]])
  p = 1 / (1 + np.exp(-logits))
  np.testing.assert_allclose(
    losses.binary_cross_entropy(logits, mixed),
    -np.log(np.where(present, p, 1 - p)).mean(-1),
    rtol=1e-5,
  )


@every_loss
def test_a_loss_keeps_the_leading_axes(loss):
  assert loss(*draw(2, 3, 4)).shape == (2, 3)
  assert loss(*draw(4)).shape == ()


@every_loss
def test_a_loss_is_computed_in_float32(loss):
  logits, labels = draw(5, 7)
  logits = logits.astype(jnp.bfloat16)
  low = loss(logits, labels)
  assert low.dtype == jnp.float32
  # As exact as if the rounded logits had come in float32.
  np.testing.assert_array_equal(low, loss(logits.astype(jnp.float32), labels))


@every_loss
def test_a_loss_of_huge_logits_is_finite_and_so_is_its_gradient(loss):
  logits = jnp.asarray([[1e4, -1e4, 0.0]])
  labels = jnp.asarray([[0, 1, 0]])
  value, grad = jax.value_and_grad(lambda x: loss(x, labels).sum())(logits)
  expected = 2e4 if loss in SUMS else 2e4 / 3
  np.testing.assert_allclose(value, expected, rtol=1e-3)
  assert np.isfinite(grad).all()


@pytest.mark.parametrize('loss', SUMS)
def test_the_gradient_is_the_error_of_the_probability(loss):
  logits, labels = draw(2, 3)
  squash = jax.nn.softmax if loss is SUMS[0] else jax.nn.sigmoid
  grad = jax.grad(lambda x: loss(x, labels).sum())(logits)
  np.testing.assert_allclose(grad, squash(logits) - labels, atol=1e-6)


def test_the_divergence_has_its_closed_form_and_the_factor_of_the_temperature():
  logits, _ = draw(5, 7)
  target = logits[::-1]
  p, q = (jax.nn.softmax(x / 3.0) for x in (target, logits))
  np.testing.assert_allclose(
    losses.kl_divergence(logits, target, temperature=3.0),
    9 * (p * np.log(p / q)).sum(-1),
    rtol=1e-4,
    atol=1e-6,
  )


def test_at_a_high_temperature_the_divergence_is_a_square_of_centred_logits():
  logits, _ = draw(6, 7)
  target = logits[::-1]
  centred = (logits - target) - (logits - target).mean(-1, keepdims=True)
  limit = (centred**2).mean(-1) / 2
  far = lambda temperature: np.max(
    np.abs(
      losses.kl_divergence(logits, target, temperature=temperature) - limit
    )
    / limit
  )
  assert far(100.0) < 0.03 < far(10.0) < far(1.0)


def test_a_masked_mean_is_a_sum_over_a_sum_and_zero_without_examples():
  values = jnp.array([1.0, 5.0, 9.0])
  assert losses.masked_mean(values, jnp.array([1.0, 0.0, 1.0])) == 5
  assert losses.masked_mean(values, jnp.zeros(3)) == 0
