"""Losses per example, and their mean over the examples that count."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def softmax_cross_entropy(
  logits: Float[Array, '*b k'], labels: Num[Array, '*b k']
) -> Float[Array, '*b']:
  """Returns -sum_k labels * log softmax(logits), in float32.

  Args:
    logits: (..., k), of any floating type.
    labels: (..., k), one-hot or soft, a distribution over the k classes.
  """
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  return -jnp.sum(labels.astype(jnp.float32) * log_p, axis=-1)


def sigmoid_cross_entropy(
  logits: Float[Array, '*b k'], labels: Num[Array, '*b k']
) -> Float[Array, '*b']:
  """Returns the sum of k binary cross-entropies, in float32.

  The sum is the convention of the ViT papers, and what head biases of -10 or
  -6.9 are made for.

  Args:
    logits: (..., k), of any floating type.
    labels: (..., k), each in [0, 1], independent of each other.
  """
  logits = logits.astype(jnp.float32)
  labels = labels.astype(jnp.float32)
  log_p = jax.nn.log_sigmoid(logits)
  log_not_p = jax.nn.log_sigmoid(-logits)
  return -jnp.sum(labels * log_p + (1 - labels) * log_not_p, axis=-1)


def binary_cross_entropy(
  logits: Float[Array, '*b k'], labels: Num[Array, '*b k']
) -> Float[Array, '*b']:
  """Returns the mean of k binary cross-entropies, in float32.

  Every class of a mixed image counts as present, however small its part: the
  loss of DeiT III (arXiv:2204.07118) as its authors' program computes it.

  Args:
    logits: (..., k), of any floating type.
    labels: (..., k), above 0 for the classes that are present.
  """
  present = (labels > 0).astype(jnp.float32)
  return sigmoid_cross_entropy(logits, present) / logits.shape[-1]


def kl_divergence(
  logits: Float[Array, '*b k'],
  target: Float[Array, '*b k'],
  *,
  temperature: float = 1.0,
) -> Float[Array, '*b']:
  """Returns T^2 KL(p || q), p = softmax(target / T), q = softmax(logits / T).

  Distilling the knowledge in a neural network, arXiv:1503.02531, section 2: by
  the factor, gradients are of one size for all temperatures T. In the limit of
  a high one, the divergence is half the mean square of the difference of the
  logits, each less its mean (section 2.1).

  Args:
    logits: (..., k), of any floating type.
    target: (..., k), logits as well.
    temperature: above 0.
  """
  log_q = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
  log_p = jax.nn.log_softmax(target.astype(jnp.float32) / temperature)
  return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def masked_mean(
  values: Float[Array, ' b'], mask: Float[Array, ' b']
) -> Float[Array, '']:
  """Averages where the mask is 1; 0 if it is nowhere."""
  return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1)


LOSSES = {
  'softmax': softmax_cross_entropy,
  'sigmoid': sigmoid_cross_entropy,
  'binary': binary_cross_entropy,
}
# What a model trained with that loss takes for the probability of a class.
PROBABILITIES = {
  'softmax': jax.nn.softmax,
  'sigmoid': jax.nn.sigmoid,
  'binary': jax.nn.sigmoid,
}
