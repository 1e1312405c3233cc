"""Where numbers go: the console, `metrics.jsonl`, TensorBoard, W&B."""

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
import tqdm.contrib.logging

from vit_jax import chips


def peak_flops(device_kind: str) -> float | None:
  """Returns a device's dense bfloat16 peak in FLOP/s, None if not known."""
  chip = chips.find(device_kind)
  return chip.peak_flops if chip else None


# Between two lines of training on the console, unless a per cent of the run
# has passed; in seconds. A run of days would fill its log file.
QUIET = 60


class Histogram(NamedTuple):
  """What is known of many numbers.

  Attributes:
    least, largest: of them, ().
    sum, sum_of_squares: of them, ().
    limits: of buckets, (k,): a number is in the first that it does not exceed.
    counts: of the numbers in each bucket, (k,).
  """

  least: Any
  largest: Any
  sum: Any
  sum_of_squares: Any
  limits: Any
  counts: Any


class Writer:
  """Writes one row of scalars a report; only the first process writes.

  The files hold every row. The console has a line for each evaluation, and for
  training as many as can be read, see `QUIET`; below them, in a terminal and in
  a notebook, a bar that is rewritten in place.

  On resume the rows after `first_step` are dropped, because the steps that
  they report are about to be repeated: no row is missing and none is twice.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    first_step: int,
    total_steps: int,
    began: float | None = None,
    wandb_project: str = '',
    config: Mapping | None = None,
  ):
    self._first = first_step
    self._total = total_steps
    self._stepped = None
    self._began = time.monotonic() if began is None else began
    self._writes = jax.process_index() == 0
    self._wandb = None
    self._bar = None
    self._shown = (-1, 0.0)  # per cent and time of the newest line of training
    self._exits = contextlib.ExitStack()
    if not self._writes:
      return
    # Imports torch where it is installed, which no tool should wait for.
    import tensorboardX

    self._path = path = workdir / 'metrics.jsonl'
    kept = [row for row in read_rows(path) if row['step'] <= first_step]
    partial = path.with_suffix('.partial')
    partial.write_text(''.join(json.dumps(row) + '\n' for row in kept))
    partial.replace(path)
    self._file = path.open('a')
    _forget_oldest(workdir)
    self._board = tensorboardX.SummaryWriter(
      str(workdir), purge_step=first_step + 1 if first_step else None
    )
    if wandb_project:
      self._wandb = _start_wandb(wandb_project, workdir, config)

  def advance(self, step: int):
    """Moves the progress bar; says how long the first step took to come."""
    if self._stepped is None:
      self._stepped = time.monotonic()
      seconds = self._stepped - self._began
      self.message(f'First step after {seconds:.1f} s: setting up, compiling.')
      if self._writes:
        self._bar = self._exits.enter_context(_bar(step, self._total))
        # A warning does not tear the bar either.
        self._exits.enter_context(tqdm.contrib.logging.logging_redirect_tqdm())
    elif self._writes:
      self._bar.update(step - self._bar.n)

  def scalars(self, step: int, values: Mapping[str, float]):
    """Writes one row for this step."""
    if not self._writes:
      return
    try:
      self._file.write(json.dumps({'step': step, **values}) + '\n')
      self._file.flush()
    except OSError as error:
      raise OSError(
        f'{self._path} could not be written: {error.strerror}. The run stops. '
        'Make room there, and give the same command again.'
      ) from error
    for name, value in values.items():
      self._board.add_scalar(name, value, step)
    if self._wandb:
      self._wandb.log(dict(values), step=step)
    trains = any(name.startswith('train/') for name in values)
    if self._bar is not None and trains:
      self._bar.set_postfix_str(_shown(values), refresh=False)
    if not trains or self._is_due(step):
      self.message(self._line(step, values))

  def images(self, step: int, values: Mapping[str, np.ndarray]):
    """Shows pictures, uint8 (h, w, 3), in TensorBoard."""
    if self._writes:
      for name, value in values.items():
        self._board.add_image(name, value, step, dataformats='HWC')

  def histograms(self, step: int, values: Mapping[str, Histogram]):
    """Shows how numbers are distributed, in TensorBoard."""
    if self._writes:
      for name, x in values.items():
        self._board.add_histogram_raw(
          name,
          min=float(x.least),
          max=float(x.largest),
          num=int(x.counts.sum()),
          sum=float(x.sum),
          sum_squares=float(x.sum_of_squares),
          bucket_limits=x.limits.tolist(),
          bucket_counts=x.counts.tolist(),
          global_step=step,
        )

  def message(self, text: str):
    """Prints a line without tearing the progress bar."""
    if self._writes:
      tqdm.tqdm.write(text)
      sys.stdout.flush()  # a pipe would keep it for long

  def _is_due(self, step: int) -> bool:
    """Whether it is time for another line of training."""
    percent, now = 100 * step // self._total, time.monotonic()
    due = percent > self._shown[0] or now - self._shown[1] >= QUIET
    if due:
      self._shown = percent, now
    return due

  def __enter__(self):
    return self

  def __exit__(self, *_):
    """Flushes and closes everything."""
    self._exits.close()
    if self._writes:
      # What does not fit on the disk was told when it was written.
      for file in (self._file, self._board):
        with contextlib.suppress(OSError):
          file.close()
      if self._wandb:
        self._wandb.finish()

  def _line(self, step: int, values: Mapping[str, float]) -> str:
    done = f'{step:>{len(f"{self._total:,}")},}/{self._total:,}'
    eta = self._eta(step)
    return f'{done} {step / self._total:4.0%}  eta {eta}  {_shown(values)}'

  def _eta(self, step: int) -> str:
    # The first step came with all that is done once.
    steps = step - self._first - 1
    if self._stepped is None or not steps:
      return '?'
    seconds = (time.monotonic() - self._stepped) / steps
    return tqdm.tqdm.format_interval(seconds * (self._total - step))


def _bar(step: int, total: int) -> tqdm.tqdm:
  """A bar below the lines, in a terminal and in a notebook only.

  It stands where the lines go, so that none of the two is anywhere without the
  other (`| tee log` is no terminal), and its time left is that of the lines.
  """
  in_notebook = type(sys.stdout).__module__.startswith('ipykernel.')
  return tqdm.tqdm(
    total=total,
    initial=step,
    unit='step',
    file=sys.stdout,
    disable=False if in_notebook else None,
    # Notebooks know no width.
    **({'ncols': 100} if in_notebook else {'dynamic_ncols': True}),
    mininterval=0.5,
    smoothing=0,
    leave=False,
  )


class Clock:
  """Tells how long steps take, and how much of that is waiting for data."""

  def __init__(self, flops: int, batch_size: int):
    """Starts when the first step is done: compilation does not count.

    Args:
      flops: of a training step on one image.
      batch_size: images a step, over all devices.
    """
    self._flops = flops
    self._batch_size = batch_size
    self._steps = None
    self._waited = 0.0
    self._since = 0.0

  def restart(self):
    """Forgets the time until now, such as an evaluation's."""
    self._steps, self._waited, self._since = 0, 0.0, time.perf_counter()

  @contextlib.contextmanager
  def waiting(self):
    """Counts the time inside as waiting for data."""
    began = time.perf_counter()
    yield
    self._waited += time.perf_counter() - began

  def stepped(self):
    """Counts a step that is done."""
    if self._steps is None:
      self.restart()
    else:
      self._steps += 1

  def report(self) -> dict[str, float]:
    """Returns what was measured since the last report, and restarts.

    Returns:
      `images_per_second`; seconds a step, `step_seconds`, of which
      `data_seconds` passed waiting for data and `compute_seconds` did not;
      and `mfu`, model FLOP/s over the devices' bfloat16 peak, if it is known.
    """
    if not self._steps:
      return {}
    seconds = (time.perf_counter() - self._since) / self._steps
    waited = self._waited / self._steps
    values = {
      'images_per_second': self._batch_size / seconds,
      'step_seconds': seconds,
      'data_seconds': waited,
      'compute_seconds': seconds - waited,
    }
    if peak := peak_flops(jax.devices()[0].device_kind):
      rate = values['images_per_second'] * self._flops
      values['mfu'] = rate / (peak * jax.device_count())
    self.restart()
    return values


# What older ones say is in `metrics.jsonl`, whole.
MAX_EVENT_FILES = 50
# In the files, but not on the console.
HIDDEN = {
  'step_seconds',
  'data_seconds',
  'compute_seconds',
  'examples',
  'grad_norm',
  'learning_rate',
  'skipped_in_a_row',
}
SHORT = {'images_per_second': 'images/s'}


def _shown(values: Mapping[str, float]) -> str:
  """What matters of a row, for people."""
  return '  '.join(
    f'{SHORT[name] if name in SHORT else name} {number(value)}'
    for name, value in values.items()
    if name.rpartition('/')[2] not in HIDDEN
  )


def number(value: float) -> str:
  """Writes a value for people."""
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'


def read_rows(path: pathlib.Path) -> list[dict]:
  """Reads `metrics.jsonl`; a last line that a kill cut short is dropped."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows


def newest(workdir: pathlib.Path) -> dict[str, float]:
  """Returns the newest value of each metric of a run."""
  values = {}
  for row in read_rows(workdir / 'metrics.jsonl'):
    values.update(row)
  values.pop('step', None)
  return values


def _forget_oldest(workdir: pathlib.Path):
  """Deletes event files of TensorBoard; each start of a run adds one."""
  events = sorted(
    workdir.glob('events.out.tfevents.*'), key=lambda x: x.stat().st_mtime
  )
  for path in events[: -MAX_EVENT_FILES + 1]:
    path.unlink()


def _start_wandb(project: str, workdir: pathlib.Path, config: Mapping | None):
  try:
    import wandb
  except ImportError as e:
    raise ValueError(
      f'config.wandb is {project!r}, and W&B is not installed: '
      '`pip install wandb`, or leave config.wandb empty.'
    ) from e
  return wandb.init(
    project=project,
    name=workdir.name,
    id=workdir.name,
    dir=str(workdir),
    config=dict(config or {}),
    resume='allow',
  )
