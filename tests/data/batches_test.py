"""Those who load batches die and hang; the batches are the same."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from vit_jax import data

pytestmark = pytest.mark.slow


def numbered():
  index = np.arange(60)
  image = np.zeros((60, 2, 2, 3), np.uint8)
  image[:, 0, 0, 0] = index
  return data.Arrays(image, (index % 3).astype(np.int32), ('a', 'b', 'c'))


def jitter(image, rng):
  """Slow, so that a worker does not have all batches before it is stopped."""
  time.sleep(0.02)
  image = image.copy()
  image[1, 1] = rng.integers(0, 256, 3)
  return image


class Deadly:
  """Ends the process that transforms the image of a number."""

  def __init__(self, number):
    self.number = number

  def __call__(self, image, rng):
    if image[0, 0, 0] == self.number:
      os.kill(os.getpid(), signal.SIGKILL)
    return image


def hang(image, rng):
  time.sleep(5)
  return image


def batches(transform, **options):
  return data.pipeline(
    numbered(),
    transform,
    **{'batch_size': 6, 'seed': 0, 'steps': 30, 'num_threads': 1, **options},
  )


def workers():
  return [
    worker
    for worker in multiprocessing.active_children()
    if worker.name.startswith('grain-process-prefetch')
  ]


@pytest.mark.parametrize('blow', [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_dies_is_replaced(blow, caplog):
  found = []
  for step, batch in enumerate(batches(jitter, num_workers=2)):
    found.append(batch)
    if step in (3, 17):
      os.kill(workers()[0].pid, blow)
  for a, b in zip(batches(jitter), found, strict=True):
    np.testing.assert_array_equal(a['image'], b['image'])
  assert caplog.text.count(f'died with the code {-blow}; others take') == 2
  assert not workers()


def test_a_worker_that_hangs_is_replaced(caplog):
  found = []
  # Long enough for new workers to begin, on however busy a machine.
  for step, batch in enumerate(batches(jitter, num_workers=2, timeout=60.0)):
    found.append(batch)
    if step == 3:
      os.kill(workers()[1].pid, signal.SIGSTOP)
  for a, b in zip(batches(jitter), found, strict=True):
    np.testing.assert_array_equal(a['image'], b['image'])
  assert caplog.text.count('No batch came in 60 s; others take') == 1
  assert not workers()


def test_a_batch_that_kills_every_worker_is_an_error():
  found = []
  with pytest.raises(data.StalledError, match='code -9, 3 times in a row.*the'):
    for batch in batches(Deadly(7), num_workers=1):
      found.append(batch)
  whole = [7 in batch['image'][:, 0, 0, 0] for batch in batches(jitter)]
  assert len(found) == whole.index(True)
  assert not workers()


def test_a_thread_that_hangs_is_an_error():
  with pytest.raises(data.StalledError, match=r'No batch came in 0\.5 s: does'):
    next(iter(batches(hang, timeout=0.5)))
