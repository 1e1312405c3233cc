"""Top-1 and top-5 accuracy, cross-entropy and calibration of a classifier."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.ops import losses
from vit_jax.types import Batch, Output, Params, State


def classification(
  predict: Callable[[Params, State, Batch], Output],
  batches: Callable[[], Iterable[Batch]],
  *,
  loss: str = 'softmax',
  num_bins: int = 15,
) -> Callable[[Params, State], dict[str, float]]:
  """Evaluates logits (b, k) against integer labels (b,).

  Args:
    predict: (params, state, batch) -> Output with logits.
    batches: returns one pass over the data.
    loss: 'softmax' or 'sigmoid', the loss the model was trained with.
    num_bins: bins of equal width for the expected calibration error.

  Returns:
    run(params, state) -> `accuracy`, `accuracy_top5` (if there are more than
    five classes), `loss`, `ece` (Naeini et al. 2015, in the form of Guo et al.
    2017, eq. 3: the gap between confidence and accuracy in each bin, weighted
    by how many examples fall into it) and `examples`, all as fractions or
    means over the examples whose mask is 1.
  """
  if loss not in losses.LOSSES:
    raise ValueError(f'Unknown {loss=}; there are {sorted(losses.LOSSES)}.')
  link, xent = losses.PROBABILITIES[loss], losses.LOSSES[loss]

  @jax.jit
  def measure(params, state, batch):
    logits = predict(params, state, batch).logits.astype(jnp.float32)
    return sums(
      logits,
      batch['label'],
      batch['mask'],
      loss=xent(logits, jax.nn.one_hot(batch['label'], logits.shape[-1])),
      probabilities=link(logits),
      num_bins=num_bins,
    )

  def run(params, state):
    total, pending = None, None
    for batch in batches():
      # One batch is computed while the sums of the one before are fetched.
      current = measure(params, state, batch)
      total = _add(total, pending)
      pending = current
    total = _add(total, pending)
    if total is None:
      raise ValueError('The evaluation set has no examples.')
    return summarize(total)

  return run


def sums(
  logits: Float[Array, 'b k'],
  label: Int[Array, 'b'],
  mask: Float[Array, 'b'],
  *,
  loss: Float[Array, 'b'],
  probabilities: Float[Array, 'b k'],
  num_bins: int,
) -> dict[str, Array]:
  """Returns sums over a batch that add up over batches; see `summarize`."""
  _, top = jax.lax.top_k(logits, min(5, logits.shape[-1]))
  hits = top == label[:, None]  # (B, 5)
  correct = hits[:, 0].astype(jnp.float32)
  confidence = probabilities.max(-1)
  bins = jnp.clip((confidence * num_bins).astype(jnp.int32), 0, num_bins - 1)
  per_bin = jax.nn.one_hot(bins, num_bins) * mask[:, None]  # (B, bins)
  total = {
    'examples': mask.sum(),
    'accuracy': (correct * mask).sum(),
    # A padded row may hold anything, even a loss that is not finite.
    'loss': jnp.where(mask > 0, loss, 0.0).sum(),
    'bin_confidence': per_bin.T @ confidence,
    'bin_correct': per_bin.T @ correct,
  }
  if logits.shape[-1] > 5:
    total['accuracy_top5'] = (hits.any(-1) * mask).sum()
  return total


def summarize(total: dict[str, np.ndarray | np.floating]) -> dict[str, float]:
  """Turns sums over the whole set into means."""
  examples = float(total['examples'])
  if not examples:
    raise ValueError('No example of the evaluation set could be read.')
  gap = np.abs(total['bin_confidence'] - total['bin_correct']).sum()
  names = ('accuracy', 'accuracy_top5', 'loss')
  means = {
    name: float(total[name]) / examples for name in names if name in total
  }
  return {**means, 'ece': float(gap) / examples, 'examples': examples}


def _add(total, device_sums):
  if device_sums is None:
    return total
  host = jax.tree.map(
    lambda x: np.asarray(x, np.float64), jax.device_get(device_sums)
  )
  return host if total is None else jax.tree.map(np.add, total, host)
