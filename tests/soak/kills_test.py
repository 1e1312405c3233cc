"""Training is killed in every phase, again and again, and nothing is lost.

  python -m pytest -m soak tests/soak
  SOAK_KILLS=500 SOAK_SEED=7 python -m pytest -m soak tests/soak

Three fifths of the kills fall on runs of one process, the others on runs of two
of which one or both die. Each run must end as one that was never killed, bit by
bit: parameters, optimiser, reports, and the data of every step.
"""

import collections
import contextlib
import itertools
import os
import random
import re
import resource
import signal
import time

import numpy as np
import pytest
from sklearn import datasets

from tests import runs

pytestmark = pytest.mark.soak

KILLS = int(os.getenv('SOAK_KILLS', '50'))
SEED = int(os.getenv('SOAK_SEED', random.randrange(2**32)))
STEPS, EVAL_EVERY, KILLS_A_RUN = 80, 8, 12
# What a process does, in this order, then in turn.
PHASES = ('importing', 'restoring', 'stepping', 'saving', 'evaluating')
COMMAND = (
  *('-m', 'tests.soak.noted', '{workdir}/notes', *runs.TINY),
  '--workdir={workdir}',
  '--config.data.train={data}[:64]',
  '--config.evals.test.data={data}[64:114]',
  f'--config.duration={STEPS} steps',
  f'--config.eval_every={EVAL_EVERY} steps',
  '--config.checkpoint.every=5 steps',
  '--config.model.depth=1',
)


class Life:
  """Processes of a run, from their start to their end, seen from outside."""

  def __init__(self, workdir, running):
    self.workdir, self.running = workdir, running
    self._notes = self._noted()
    self.began = time.monotonic()

  def _noted(self):
    path = self.workdir / 'notes.0'
    return path.stat().st_size if path.exists() else 0

  def phase(self):
    """What the first process does now, or did when it died."""
    if self._noted() == self._notes:
      lock = self.workdir / '.lock'
      mine = f'process {self.running[0].pid} '
      restoring = lock.exists() and lock.read_text().startswith(mine)
      return 'restoring' if restoring else 'importing'
    if any((self.workdir / 'checkpoints').glob('*tmp*')):
      return 'saving'
    step, judged = self._reported()
    return 'stepping' if step % EVAL_EVERY or judged else 'evaluating'

  def _reported(self):
    """The step of the last report, and whether that is an evaluation's."""
    with (self.workdir / 'metrics.jsonl').open('rb') as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
      lines = file.read().decode().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith('}\n')]
    if not whole:
      return 1, False
    step = int(re.search(r'"step": (\d+)', whole[-1])[1])
    return step, 'test/loss' in whole[-1]

  def reaches(self, phase):
    """Waits; returns the seconds since the start, None if a process ended."""
    while all(process.poll() is None for process in self.running):
      if self.phase() == phase:
        return time.monotonic() - self.began
      assert time.monotonic() < self.began + runs.SECONDS
      time.sleep(0.003)


class Runs:
  """Starts runs of the same config, of so many processes."""

  def __init__(self, folder, *, count):
    self.folder, self.count = folder, count
    digits = datasets.load_digits()
    self._data = folder / 'digits.npz'
    image = np.stack([digits.images * 15] * 3, -1).astype(np.uint8)
    np.savez(self._data, image=image, label=digits.target)

  @contextlib.contextmanager
  def start(self, name):
    """Starts or goes on with a run; yields its processes."""
    workdir = self.folder / name
    workdir.mkdir(exist_ok=True)
    words = [x.format(workdir=workdir, data=self._data) for x in COMMAND]
    with (
      (self.folder / f'{name}.log').open('a') as log,
      runs.started(words, count=self.count, output=log) as running,
    ):
      yield running

  def finish(self, name):
    """Lets a run go to its end; returns when it reached the phases."""
    with self.start(name) as running:
      life = Life(self.folder / name, running)
      times = {phase: life.reaches(phase) for phase in PHASES[:3]}
      codes, _ = runs.ends(running)
    assert set(codes) == {0}, (self.folder / f'{name}.log').read_text()
    return times

  def check(self, name):
    """Compares a run with the one that was never killed."""
    assert self._seen(name) == self._seen('whole')
    runs.assert_same_checkpoint(
      self.folder / name, self.folder / 'whole', step=STEPS
    )

  def _seen(self, name):
    """Reports, checkpoints, and the data of each step in each process."""
    workdir = self.folder / name
    notes = [
      {*(workdir / f'notes.{i}').read_text().splitlines()}
      for i in range(self.count)
    ]
    # A step that was repeated took the same data, or it has a second line.
    assert all(len(lines) == STEPS for lines in notes)
    checkpoints = sorted(os.listdir(workdir / 'checkpoints'))
    return runs.without_times(workdir), checkpoints, notes


def kill_once(life, draw, aim, times):
  """Kills in the phase, or whenever; returns the phase that it hit."""
  importing, restoring = times['restoring'], times['stepping']
  if aim in ('importing', 'any'):
    longest = importing if aim == 'importing' else 1.5 * restoring
  else:
    if life.reaches(aim) is None:
      return None
    longest = restoring - importing if aim == 'restoring' else 0.05
  time.sleep(draw.uniform(0, longest))
  if any(process.poll() is not None for process in life.running):
    return None
  victims = [process for process in life.running if draw.random() < 0.5]
  for process in victims or [draw.choice(life.running)]:
    process.kill()
    process.wait()
  phase = life.phase()
  if len(victims) < len(life.running):
    # The launcher kills the others a moment later.
    time.sleep(draw.uniform(0, 1))
  return phase


@pytest.fixture(scope='module', params=[1, 2])
def soaked(request, tmp_path_factory):
  """Runs of one or two processes, one of which was never killed."""
  soaked = Runs(tmp_path_factory.mktemp('soaked'), count=request.param)
  soaked.times = soaked.finish('whole')
  return soaked


def test_killed_at_any_moment_a_run_ends_bit_identical(soaked, capsys):
  draw = random.Random(f'{SEED}, {soaked.count}')
  wanted = KILLS - 2 * KILLS // 5 if soaked.count == 1 else 2 * KILLS // 5
  aims = itertools.cycle((*PHASES, 'any'))
  began = time.monotonic()
  kills, finished = collections.Counter(), 0
  while kills.total() < wanted:
    name = f'run{finished}'
    for _ in range(min(KILLS_A_RUN, wanted - kills.total())):
      with soaked.start(name) as running:
        life = Life(soaked.folder / name, running)
        phase = kill_once(life, draw, next(aims), soaked.times)
      if phase is None:  # it is at its end
        break
      kills[phase] += 1
      with capsys.disabled():
        print(phase, end=' ', flush=True)
    soaked.finish(name)
    soaked.check(name)
    finished += 1
  seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
  with capsys.disabled():
    print(
      f'\n{soaked.count} process(es), SOAK_SEED={SEED}: {finished} runs of '
      f'{STEPS} steps, {kills.total()} kills, '
      f'{time.monotonic() - began:.0f} s; CPU time till now {seconds:.0f} s'
    )
    for phase in PHASES:
      print(f'  {phase:10} {kills[phase]:4}')
  assert wanted < 12 or set(kills) == set(PHASES)


@pytest.mark.parametrize('again', [False, True])
def test_sigterm_saves_and_a_second_one_does_no_harm(soaked, again):
  name = f'terminated{again}'
  with soaked.start(name) as running:
    life = Life(soaked.folder / name, running)
    assert life.reaches('stepping')
    # Other than the schedule says: the first save is that of the signal.
    running[-1].send_signal(signal.SIGTERM)
    if again:
      assert life.reaches('saving')
      for process in running:
        process.send_signal(signal.SIGTERM)
    codes, _ = runs.ends(running)
  # Launchers see 143 as well when the signal itself ends a process.
  saved = {128 + signal.SIGTERM}
  assert set(codes) <= (saved | {-signal.SIGTERM} if again else saved)
  soaked.finish(name)
  soaked.check(name)
