"""Several processes, one run: how they meet, agree and part.

Each process drives the devices that it sees and loads its share of a batch;
the arrays are global, so that nothing else in the house knows how many there
are. The meeting itself, and the watch over who is alive, are jax's:
https://docs.jax.dev/en/latest/multi_process.html
"""

import contextlib
import fcntl
import logging
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

logger = logging.getLogger(__name__)

# Launchers that jax knows, and where they say how many processes they started.
LAUNCHERS = {'ompi': 'OMPI_COMM_WORLD_SIZE', 'slurm': 'SLURM_STEP_NUM_TASKS'}
# Processes that end a run together do so within so many seconds. One that
# fails alone takes the others with it after as long.
PARTING = 20


class Terminated(Exception):
  """The run was asked to stop, and has saved its state."""


def meet(
  *,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  timeout: int = 300,
) -> None:
  """Joins the other processes of this run; must come before jax is used.

  What is not given is taken from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
  and JAX_PROCESS_ID, or found by jax on a TPU pod, under SLURM and under Open
  MPI. A process that nobody launched with others stays alone.

  Args:
    coordinator: 'host:port' of process 0; any free port.
    num_processes: of the run; 1 stays alone wherever it is.
    process_id: of this process, from 0.
    timeout: how many seconds to wait for the others. Then the process says so
      and ends, with code 1.

  Raises:
    ValueError: if what is given is not enough, or not possible.
  """
  coordinator = coordinator or os.getenv('JAX_COORDINATOR_ADDRESS')
  num_processes = _number(num_processes, 'JAX_NUM_PROCESSES')
  process_id = _number(process_id, 'JAX_PROCESS_ID')
  given = {
    '--coordinator': coordinator,
    '--num_processes': num_processes,
    '--process_id': process_id,
  }
  missing = [flag for flag, value in given.items() if value is None]
  launched = is_launched()
  if num_processes == 1 or (len(missing) == len(given) and not launched):
    return
  if missing and not launched:
    raise ValueError(
      'Several processes need --coordinator=HOST:PORT, --num_processes and '
      '--process_id, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and '
      f'JAX_PROCESS_ID; {" and ".join(missing)} is missing. One process needs '
      'none of them, or --num_processes=1.'
    )
  if coordinator and not coordinator.rpartition(':')[2].isdigit():
    raise ValueError(f'{coordinator=} is not of the form HOST:PORT.')
  if not missing and not 0 <= process_id < num_processes:
    raise ValueError(f'{process_id=} is not in [0, {num_processes=}).')
  waits_for = (
    'other processes'
    if missing
    else f'{num_processes} processes to meet at {coordinator}'
  )
  with _patience(
    f'Process {"?" if process_id is None else process_id} waited {timeout} s '
    f'for {waits_for}, and they are not complete. Those that came say so, as '
    'this one does: look for the ids that do not, and whether they reach the '
    'address. --coordinator_timeout waits longer; --num_processes=1 runs '
    'alone.',
    seconds=timeout,
  ):
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      cluster_detection_method=None if missing else 'deactivate',
      # Its own end of patience is an abort without a word.
      initialization_timeout=timeout + 60,
      shutdown_timeout_seconds=PARTING,
    )


def is_launched() -> bool:
  """Whether jax can find out by itself who belongs to this run."""
  if any(int(os.getenv(count, '1')) > 1 for count in LAUNCHERS.values()):
    return True
  # Where jax finds TPUs it prefers them. It reads GKE's list of the hosts of
  # their slice, or asks Google's metadata server, unless it must not.
  return 'tpu' in (jax.config.jax_platforms or '') and (
    'TPU_WORKER_HOSTNAMES' in os.environ
    or 'TPU_SKIP_MDS_QUERY' not in os.environ
  )


def where() -> str:
  """' in process 1 of 4', to say whose message it is; '' for one alone."""
  if not jax.distributed.is_initialized() or jax.process_count() == 1:
    return ''
  return f' in process {jax.process_index()} of {jax.process_count()}'


def check_shared(directory: pathlib.Path) -> None:
  """Raises a ValueError unless this is the same directory for all processes."""
  if jax.process_count() == 1:
    return
  # A name of its own: file systems remember what was not there a moment ago.
  now = multihost_utils.broadcast_one_to_all(np.int32(time.time() % 2**31))
  probe = directory / f'.shared_{now}'
  if jax.process_index() == 0:
    directory.mkdir(parents=True, exist_ok=True)
    probe.touch()
  multihost_utils.sync_global_devices('written')
  seen = multihost_utils.process_allgather(np.array(probe.exists()))
  if jax.process_index() == 0:
    probe.unlink()
  if not seen.all():
    raise ValueError(
      f'{directory} is not one directory that all processes share: what '
      f'process 0 writes there is not seen by {np.flatnonzero(~seen)}. Give a '
      '--workdir on a file system that all hosts mount.'
    )


@contextlib.contextmanager
def alone_in(directory: pathlib.Path) -> Iterator[None]:
  """Holds a directory for this run; all of its processes must ask.

  Process 0 locks a file in it (flock). The kernel takes the lock back when that
  process ends, however it ends. Locks reach as far as the file system carries
  them: two hosts that mount one directory by NFS see each other's only where
  its lock service runs, and by some other network file systems not at all.

  Raises:
    ValueError: if another run holds it.
  """
  holder, file = b'', None
  if jax.process_index() == 0:
    directory.mkdir(parents=True, exist_ok=True)
    file = os.open(directory / '.lock', os.O_RDWR | os.O_CREAT, 0o666)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = os.read(file, 99) or b'a process'
    except OSError as error:
      logger.warning(
        '%s cannot be locked (%s): see to it that no other run writes there.',
        *(directory, error.strerror),
      )
    else:
      with contextlib.suppress(OSError):  # a full disk; it only tells who it is
        os.ftruncate(file, 0)
        os.write(
          file, f'process {os.getpid()} on {socket.gethostname()}'.encode()
        )
  try:
    if jax.process_count() > 1:
      padded = np.frombuffer(holder.ljust(99, b'\0'), np.uint8)
      holder = multihost_utils.broadcast_one_to_all(padded)
      holder = np.asarray(holder).tobytes().rstrip(b'\0')
    if holder:
      raise ValueError(
        f'{directory} is in use by another run, {holder.decode()}. Wait for it '
        'or stop it, or give another --workdir.'
      )
    yield
  finally:
    if file is not None:
      os.close(file)


@contextlib.contextmanager
def termination() -> Iterator[Callable[[int], bool]]:
  """Yields a function of the step: whether to save after it, and to stop.

  That is so once SIGTERM, by which clusters announce that they take a machine
  away, came to any process. All processes must ask after every step, and get
  the same answer. A second SIGTERM to a single process ends it at once. After
  ^C the function raises KeyboardInterrupt, if that has not ended the run yet.
  """
  came, interrupted = threading.Event(), threading.Event()

  def terminate(*_):
    came.set()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

  def interrupt(*args):
    interrupted.set()
    signal.default_int_handler(*args)

  def stops_after(step):
    if interrupted.is_set():
      # It came where exceptions are lost, such as in a callback.
      raise KeyboardInterrupt
    return came.is_set() or multihost_utils.reached_preemption_sync_point(step)

  handlers = {}
  if threading.current_thread() is threading.main_thread():
    handlers[signal.SIGINT] = interrupt
    # Of several processes jax's own handler spreads the word.
    if jax.process_count() == 1:
      handlers[signal.SIGTERM] = terminate
  previous = {name: signal.signal(name, handlers[name]) for name in handlers}
  try:
    yield stops_after
  finally:
    for name, handler in previous.items():
      signal.signal(name, handler or signal.SIG_DFL)


def _number(value: int | None, variable: str) -> int | None:
  if value is not None or not (text := os.getenv(variable)):
    return value
  if not text.isdigit():
    raise ValueError(f'{variable}={text!r} is not a number.')
  return int(text)


@contextlib.contextmanager
def _patience(message: str, *, seconds: float) -> Iterator[None]:
  """Ends the process with a message unless what is inside is done in time."""

  def give_up():
    print(f'Error: {message}', file=sys.stderr, flush=True)
    os._exit(1)  # jax cannot be interrupted here

  timer = threading.Timer(seconds, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
