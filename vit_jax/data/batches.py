"""Batches one after the other, whatever becomes of those who load them.

A batch is a function of the step alone, so what a worker process held can be
loaded again. When one dies (the kernel takes it for want of memory, someone
signals it), or when no batch comes in time, all of them are ended and new ones
begin with the batch that is due: no example is lost, none is seen twice. A
thread cannot be ended: without workers a batch that does not come is an error.
"""

import concurrent.futures
import dataclasses
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grain
from absl import flags

logger = logging.getLogger(__name__)

# How often new workers may begin with one and the same batch.
MAX_RESTARTS = 2


class StalledError(OSError):
  """Batches do not come, and what loads them might never end."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Batches:
  """The batches of the steps [start, stop); can be iterated over again.

  Attributes:
    load: step -> batch; it can be sent to another process.
    start: the first step.
    stop: the step after the last.
    num_threads: see `pipeline.pipeline`, as what follows.
    num_workers: processes.
    timeout: seconds to wait for a batch; None waits for ever.
  """

  load: Callable[[int], Any]
  start: int
  stop: int
  num_threads: int | None
  num_workers: int
  timeout: float | None

  def __iter__(self) -> Iterator[Any]:
    step, restarts = self.start, 0
    while step < self.stop:
      reader = _Reader(self._dataset(step))
      try:
        while step < self.stop:
          yield reader.read(self.timeout)
          step, restarts = step + 1, 0
      except StalledError as error:
        if not self.num_workers:
          raise StalledError(
            f'{error}: does the disk with the images still answer? Once it '
            'does, give the same command again. config.loader.timeout says '
            'how long to wait, and with config.loader.num_workers those who '
            'hang are replaced.'
          ) from error
        if restarts == MAX_RESTARTS:
          raise StalledError(
            f'{error}, {restarts + 1} times in a row. If it was -9, the memory '
            'did not suffice: lower config.loader.num_workers or '
            'config.loader.num_threads. If they hang, does the disk with the '
            'images still answer? Then give the same command again.'
          ) from error
        restarts += 1
        logger.warning('%s; others take their place.', error)
      finally:
        reader.end()

  def _dataset(self, start: int) -> grain.IterDataset:
    num_threads = self.num_threads
    if num_threads is None:
      num_threads = min(os.cpu_count() or 1, 16)
    dataset = (
      grain.MapDataset.range(start, self.stop)
      .map(self.load)
      .to_iter_dataset(
        grain.ReadOptions(
          num_threads=num_threads, prefetch_buffer_size=num_threads + 1
        )
      )
    )
    if not self.num_workers:
      return dataset
    # Grain reads flags of its own here; in a notebook nobody has parsed them.
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()
    return dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=self.num_workers),
      worker_init_fn=_live_and_die_with_the_run,
    )


class _Reader:
  """Asks for batches in a thread, which can be left behind if it hangs."""

  def __init__(self, dataset: grain.IterDataset):
    self._iterator = iter(dataset)
    self._thread = None

  def read(self, timeout: float | None) -> Any:
    """Returns the next batch.

    Raises:
      StalledError: if a worker died, or no batch came in `timeout` seconds.
    """
    answer = concurrent.futures.Future()
    self._thread = threading.Thread(
      target=_ask, args=(self._iterator, answer), daemon=True
    )
    self._thread.start()
    concurrent.futures.wait([answer], timeout)
    if not answer.done():
      raise StalledError(f'No batch came in {timeout:g} s')
    error = answer.exception()
    died = re.match(r'Worker process was .* exit code (-?\d+)', str(error))
    if died:
      raise StalledError(f'A data worker died with the code {died[1]}')
    return answer.result()

  def end(self):
    """Ends the threads and workers that load, even those that hang."""
    if self._thread and self._thread.is_alive():
      # Also those of others, of an evaluation or of the training: they hang
      # for the same reason, or are replaced.
      for worker in multiprocessing.active_children():
        if worker.name.startswith('grain-process-prefetch'):
          worker.kill()
      self._thread.join(5)  # Grain looks every second who is there.
    # What nothing can end, such as a read of a disk that is gone, is left.
    if not (self._thread and self._thread.is_alive()):
      self._iterator.close()


def _ask(iterator: Iterator[Any], answer: concurrent.futures.Future):
  try:
    answer.set_result(next(iterator))
  except BaseException as error:
    answer.set_exception(error)


def _live_and_die_with_the_run(*_):
  """Prepares a worker: ^C is for the run, whose end is the worker's as well."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def follow():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
