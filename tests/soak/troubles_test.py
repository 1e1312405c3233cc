"""Real runs whose data vanish or hang, and that are interrupted."""

import os
import signal
import time

import cv2
import pytest
from sklearn import datasets

from tests import runs

pytestmark = pytest.mark.soak


@pytest.fixture
def images(tmp_path):
  """A folder of 64 images in ten classes."""
  folder = tmp_path / 'images'
  digits = datasets.load_digits()
  for i, label in enumerate(digits.target[:64]):
    path = folder / str(label) / f'{i}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), digits.images[i] * 15)
  return folder


def started(images, workdir, *options):
  return runs.started(
    (
      *('-m', 'vit_jax.main', *runs.TINY, f'--workdir={workdir}'),
      *(f'--config.data.train={images}', '--config.duration=300 steps'),
      *('--config.eval_every=0 steps', '--config.checkpoint.every=9 steps'),
      *options,
    ),
    count=1,
  )


def wait_for_rows(workdir, running, *, count):
  until = time.monotonic() + runs.SECONDS
  while len(runs.without_times(workdir)) < count:
    assert running[0].poll() is None, running[0].communicate()
    assert time.monotonic() < until
    time.sleep(0.01)


def finish(images, workdir):
  with started(images, workdir) as running:
    codes, said = runs.ends(running)
  assert codes == [0], said
  return runs.without_times(workdir)


def of_session(process):
  """Ids of the processes that a run, in a session of its own, has left."""
  found = []
  for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
      if os.getsid(int(pid)) == process.pid:
        found.append(int(pid))
    except ProcessLookupError:
      pass
  return found


@pytest.mark.parametrize('workers', [0, 1])
def test_images_that_vanish_end_the_run_which_goes_on_exactly(
  images, tmp_path, workers
):
  option = f'--config.loader.num_workers={workers}'
  workdir, away = tmp_path / 'run', tmp_path / 'away'
  with started(images, workdir, option) as running:
    wait_for_rows(workdir, running, count=20)
    images.rename(away)
    codes, (said,) = runs.ends(running)
  assert codes == [1]
  (message,) = [line for line in said.splitlines() if 'Error' in line]
  assert message.startswith(f'Error: {images}/')
  assert 'png was there when this began, and is gone. Bring it back' in message
  away.rename(images)
  rows = finish(images, workdir)
  assert rows == finish(images, tmp_path / 'whole')
  runs.assert_same_checkpoint(workdir, tmp_path / 'whole', step=300)


def test_a_read_that_hangs_ends_the_run_which_goes_on_exactly(images, tmp_path):
  workdir, image = tmp_path / 'run', next(images.glob('*/*.png'))
  with started(images, workdir, '--config.loader.timeout=4') as running:
    wait_for_rows(workdir, running, count=20)
    image.rename(tmp_path / 'image')
    os.mkfifo(image)  # who reads it waits for one who writes
    codes, (said,) = runs.ends(running)
  assert codes == [1]
  assert said.splitlines()[-1].startswith('Error: No batch came in 4 s: does')
  (tmp_path / 'image').rename(image)
  assert finish(images, workdir) == finish(images, tmp_path / 'whole')
  runs.assert_same_checkpoint(workdir, tmp_path / 'whole', step=300)


@pytest.mark.parametrize(
  ('send', 'code'),
  [
    # ^C in a terminal reaches the workers too, and SLURM signals all.
    (lambda pid: os.killpg(pid, signal.SIGINT), -signal.SIGINT),
    (lambda pid: os.kill(pid, signal.SIGINT), -signal.SIGINT),
    (lambda pid: os.kill(pid, signal.SIGKILL), -signal.SIGKILL),
    (lambda pid: os.killpg(pid, signal.SIGTERM), 128 + signal.SIGTERM),
  ],
  ids=['^C', 'SIGINT', 'SIGKILL', 'SIGTERM'],
)
def test_a_run_that_ends_leaves_no_worker_behind(images, tmp_path, send, code):
  workdir = tmp_path / 'run'
  options = ('--config.loader.num_workers=1', '--config.duration=100000 steps')
  with started(images, workdir, *options) as running:
    wait_for_rows(workdir, running, count=5)
    assert len(of_session(running[0])) >= 2
    send(running[0].pid)
    codes, (said,) = runs.ends(running)
    until = time.monotonic() + 10
    while left := of_session(running[0]):
      assert time.monotonic() < until, (left, said)
      time.sleep(0.1)
  assert codes == [code], said
