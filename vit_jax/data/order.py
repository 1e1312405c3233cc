"""Which example a step reads, as a function of the step alone."""

import dataclasses
import functools

import grain
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
  """The examples of each step, and this process's share of them.

  Attributes:
    length: how many examples there are.
    batch_size: of all processes together.
    seed: of the permutations.
    repeats: how often a batch holds an example.
    process_index: of this process.
    process_count: how many share a batch.
    shuffled: whether each epoch is another permutation; otherwise the order is
      that of the source.
  """

  length: int
  batch_size: int
  seed: int = 0
  repeats: int = 1
  process_index: int = 0
  process_count: int = 1
  shuffled: bool = True

  def __post_init__(self):
    if not 0 <= self.seed < 2**32:
      raise ValueError(f'seed={self.seed} is not in [0, 2**32).')
    if self.batch_size < 1 or self.batch_size % self.process_count:
      raise ValueError(
        f'batch_size={self.batch_size} must be a positive multiple of '
        f'process_count={self.process_count}: each process loads equally many.'
      )
    if not 1 <= self.repeats <= self.batch_size:
      raise ValueError(
        f'repeats={self.repeats} is not in [1, {self.batch_size}], 1 to the '
        'batch size; 1 is no repeated augmentation.'
      )
    if not 0 <= self.process_index < self.process_count:
      raise ValueError(
        f'process_index={self.process_index} is not in '
        f'[0, {self.process_count}), the range of process_count.'
      )
    if not self.length:
      raise ValueError('The source holds no examples.')

  def positions(self, step: int) -> list[int]:
    """This process's, row by row: all first copies, all second ones, ..."""
    first = step * self.batch_size
    positions = range(first, first + self.batch_size)
    rows = self.batch_size // self.process_count
    start = self.process_index * rows
    return [
      position
      for copy in range(self.repeats)
      for position in positions[copy :: self.repeats]
    ][start : start + rows]

  def index(self, position: int) -> int:
    """The example at a position of the endless sequence of epochs."""
    epoch, index = divmod(position, self.length)
    if not self.shuffled:
      return index
    return grain.experimental.index_shuffle(
      index // self.repeats,
      max_index=self.length - 1,
      seed=_seed_of_epoch(self.seed, epoch),
      rounds=4,
    )


@functools.lru_cache(maxsize=16)
def _seed_of_epoch(seed: int, epoch: int) -> int:
  """Mixed, so that seed 1 is not seed 0 shifted by an epoch."""
  return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
