"""How a classifier does on a set, example by example: one pass over it."""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vit_jax import data
from vit_jax.data.sources import Subset
from vit_jax.ops import losses
from vit_jax.trained import Trained

BATCH_SIZE = 64


class Mistake(NamedTuple):
  """An image that was taken for something else.

  Attributes:
    name: of the example in its source.
    image: uint8, as it entered the model.
    label, guess: numbers of classes.
    confidence: probability of the guess.
    share: probability of the label.
  """

  name: str
  image: UInt8[np.ndarray, 'h w c']
  label: int
  guess: int
  confidence: float
  share: float


class Judgement(NamedTuple):
  """What a model makes of a set of n examples.

  Attributes:
    class_names: (k,), those that it chose from.
    label, guess: (n,), numbers of classes.
    confidence: (n,), probability of the guess.
    total: examples in the whole set, of which n were looked at.
    worst: its most confident mistakes, the worst first.
  """

  class_names: tuple[str, ...]
  label: Int[np.ndarray, ' n']
  guess: Int[np.ndarray, ' n']
  confidence: Float[np.ndarray, ' n']
  total: int
  worst: list[Mistake]

  @property
  def correct(self) -> Bool[np.ndarray, ' n']:
    """Whether a guess is right."""
    return self.label == self.guess


class Bins(NamedTuple):
  """A set, by the confidence of the model.

  Attributes:
    counts: examples in each of b bins of equal width over [0, 1].
    confidence, accuracy: means over the examples of a bin, NaN without any.
    ece: expected calibration error, see `evaluators.classification`.
  """

  counts: Int[np.ndarray, ' b']
  confidence: Float[np.ndarray, ' b']
  accuracy: Float[np.ndarray, ' b']
  ece: float


def judge(
  trained: Trained,
  source: data.Source,
  *,
  preprocess: Sequence[Mapping[str, Any]],
  loss: str = 'softmax',
  classes: str = 'all',
  most: int | None = None,
  num_worst: int = 16,
) -> Judgement:
  """Lets a model classify a set, or some of it, evenly spread.

  Args:
    trained: the model.
    source: the set, each example with one label.
    preprocess: of its images.
    loss: that the model was trained with.
    classes: between which it chooses, see `evaluators.classification`.
    most: examples, at most; None for all.
    num_worst: mistakes that are kept, at most.

  Raises:
    ValueError: if there is none that can be read, or one has several labels.
  """
  total = len(source)
  chosen = np.arange(total)
  if most is not None and most < total:
    chosen = np.unique(np.linspace(0, total - 1, most).astype(int))
  names = trained.run['class_names']
  among = _present(source) if classes == 'present' else np.arange(len(names))
  link = losses.PROBABILITIES[loss]

  @jax.jit
  def ask(params, state, batch):
    logits = trained.predict(params, state, batch).logits[:, among]
    probabilities = link(logits)
    label = jnp.searchsorted(among, batch['label'])
    share = jnp.take_along_axis(probabilities, label[:, None], axis=1)[:, 0]
    return label, logits.argmax(-1), probabilities.max(-1), share

  part = Subset(source, chosen)
  config = trained.run['config']
  batches = data.one_pass(
    part,
    data.build_transforms(preprocess),
    batch_size=BATCH_SIZE,
    num_threads=config['loader']['num_threads'],
  )
  rows: list[tuple[int, int, float]] = []
  worst: list[tuple[float, int, Mistake]] = []
  for number, batch in enumerate(batches):
    if batch['label'].ndim != 1:
      raise ValueError('Its images have several labels each.')
    answers = map(np.asarray, ask(trained.params, trained.state, batch))
    for row, (label, guess, confidence, share) in enumerate(
      zip(*answers, strict=True)
    ):
      index = number * BATCH_SIZE + row
      if not batch['mask'][row] or index >= len(part):
        continue
      rows.append((int(label), int(guess), float(confidence)))
      if label != guess:
        mistake = Mistake(
          name=part.name(index),
          image=batch['image'][row],
          label=int(label),
          guess=int(guess),
          confidence=float(confidence),
          share=float(share),
        )
        # Of those that are equally bad, the first.
        push = heapq.heappush if len(worst) < num_worst else heapq.heappushpop
        push(worst, (mistake.confidence, -index, mistake))
  if not rows:
    raise ValueError('None of its images could be read.')
  label, guess, confidence = map(np.array, zip(*rows, strict=True))
  return Judgement(
    class_names=tuple(names[k] for k in among),
    label=label,
    guess=guess,
    confidence=confidence,
    total=total,
    worst=[mistake for _, _, mistake in sorted(worst, reverse=True)],
  )


def _present(source: data.Source) -> np.ndarray:
  labels = source.labels
  if labels is None:
    labels = [source[i]['label'] for i in range(len(source))]
  return np.unique(labels)


def confusion(judgement: Judgement) -> Int[np.ndarray, 'k k']:
  """How often a class (row) was taken for a class (column)."""
  k = len(judgement.class_names)
  matrix = np.zeros((k, k), int)
  np.add.at(matrix, (judgement.label, judgement.guess), 1)
  return matrix


def confused_pairs(
  judgement: Judgement, *, most: int
) -> list[tuple[int, int, int, int]]:
  """The most frequent mistakes: label, guess, how often, of how many.

  Without the matrix, which would be large where classes are many.
  """
  wrong = ~judgement.correct
  pairs, counts = np.unique(
    np.stack([judgement.label[wrong], judgement.guess[wrong]]),
    axis=1,
    return_counts=True,
  )
  sizes = np.bincount(judgement.label, minlength=len(judgement.class_names))
  order = np.argsort(-counts, kind='stable')[:most]
  return [
    (int(a), int(b), int(n), int(sizes[a]))
    for (a, b), n in zip(pairs.T[order], counts[order], strict=True)
  ]


def calibration(judgement: Judgement, *, num_bins: int = 15) -> Bins:
  """Compares confidence with accuracy, bin by bin."""
  bins = (judgement.confidence * num_bins).astype(int).clip(0, num_bins - 1)
  counts = np.bincount(bins, minlength=num_bins)
  sums = [
    np.bincount(bins, weights=x, minlength=num_bins)
    for x in (judgement.confidence, judgement.correct)
  ]
  with np.errstate(invalid='ignore'):
    confidence, accuracy = (x / counts for x in sums)
  gap = np.abs(sums[0] - sums[1]).sum()
  return Bins(counts, confidence, accuracy, float(gap / counts.sum()))
