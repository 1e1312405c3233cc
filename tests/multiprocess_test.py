"""Several processes are one run: started as a user starts them, on the CPU."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from tests.runs import (
  ROOT,
  SECONDS,
  TINY,
  assert_same_checkpoint,
  ends,
  started,
)
from tests.runs import without_times as rows
from vit_jax import checkpoint, processes, sharding
from vit_jax.train import train


def main(*args, **options):
  """Runs the command in several processes, all of which must succeed."""
  with started(('-m', 'vit_jax.main', *TINY, *args), **options) as running:
    codes, said = ends(running)
  assert set(codes) == {0}, '\n'.join(said)
  return said


def assert_rows_close(some, others, *, rtol):
  assert len(some) == len(others)
  for one, other in zip(some, others, strict=True):
    assert one == pytest.approx(other, rel=rtol)


def wait_for_rows(workdir, running, *, count):
  """Waits until a run has reported so often."""
  until = time.monotonic() + SECONDS
  while len(rows(workdir)) < count:
    assert all(process.poll() is None for process in running)
    assert time.monotonic() < until
    time.sleep(0.05)


def test_two_processes_do_what_one_does(tiny_config, tmp_path):
  """The same examples, losses and counts, written once and by both."""
  said = main(f'--workdir={tmp_path / "two"}', count=2, devices=4)
  assert 'Done: ' in said[0] and 'Done: ' not in said[1]
  assert not any('6/6' in line for line in said[1].splitlines())
  train(tiny_config, tmp_path / 'one')
  # Sums of float32 in another order; another batch or mask is off by 1e-2.
  assert_rows_close(rows(tmp_path / 'two'), rows(tmp_path / 'one'), rtol=1e-5)
  assert {
    row['test/examples']
    for row in rows(tmp_path / 'two')
    if 'test/examples' in row
  } == {50}
  assert checkpoint.steps(tmp_path / 'two') == [4, 6]
  # One process goes on where two stopped, and finds that all is done.
  before = rows(tmp_path / 'two')
  train(tiny_config, tmp_path / 'two')
  assert rows(tmp_path / 'two') == before


def test_sigterm_to_one_process_saves_and_stops_all(
  tiny_config, tmp_path, monkeypatch
):
  """After a step that no schedule names; another number goes on from it."""
  long = ('--config.duration=10000 steps', '--config.checkpoint.every=0 steps')
  command = ('-m', 'vit_jax.main', *TINY, *long, f'--workdir={tmp_path}')
  with started(
    (*command, '--config.eval_every=0 steps'), count=2, devices=1
  ) as running:
    wait_for_rows(tmp_path, running, count=3)
    running[1].send_signal(signal.SIGTERM)
    codes, said = ends(running)
  assert codes == [143, 143], '\n'.join(said)
  (step,) = checkpoint.steps(tmp_path)
  assert all(f'Terminated after step {step},' in text for text in said)
  before = rows(tmp_path)
  assert [row['step'] for row in before] == list(range(1, step + 1))
  # Here it is one process of eight devices.
  tiny_config.duration = '10000 steps'
  tiny_config.checkpoint.every = tiny_config.eval_every = '0 steps'

  @contextlib.contextmanager
  def two_steps():
    yield lambda now: now == step + 2

  monkeypatch.setattr(processes, 'termination', two_steps)
  with pytest.raises(processes.Terminated, match=f'after step {step + 2}'):
    train(tiny_config, tmp_path)
  assert rows(tmp_path)[:step] == before
  assert checkpoint.steps(tmp_path) == [step, step + 2]


def test_a_process_that_never_comes_is_an_error_that_says_so(tmp_path):
  command = ('-m', 'vit_jax.main', *TINY, f'--workdir={tmp_path / "run"}')
  with started(
    (*command, '--coordinator_timeout=3'), count=3, ids=(0, 2)
  ) as running:
    codes, said = ends(running)
  assert codes == [1, 1]
  for i, text in zip((0, 2), said, strict=True):
    assert f'Error: Process {i} waited 3 s for 3 processes to meet' in text
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_four_processes_evaluate_every_example_once(tmp_path):
  """50 images over 4 processes of 2 devices, also by k-NN and probes."""
  evals = (
    "--config.evals.near={'name': 'knn', 'data': 'digits:test[:50]', "
    "'train': 'digits:train[:30]', 'k': (3,)}",
    "--config.evals.probe={'name': 'few_shot', 'data': 'digits:test[:50]', "
    "'train': 'digits:train[:30]', 'shots': (1,)}",
    "--config.evals.present={'name': 'classification', "
    "'data': 'digits:test[:50]', 'classes': 'present'}",
  )
  for count, devices in ((4, 2), (1, 8)):
    main(
      *evals, f'--workdir={tmp_path / str(count)}', count=count, devices=devices
    )
  four, one = rows(tmp_path / '4'), rows(tmp_path / '1')
  assert_rows_close(four, one, rtol=1e-5)
  for name in ('test', 'near', 'probe', 'present'):
    assert four[-1][f'{name}/examples'] == 50


@pytest.mark.slow
@pytest.mark.parametrize('axis', ['fsdp', 'tensor'])
def test_parameters_may_be_split_over_processes(tmp_path, axis):
  """With scanned blocks, and SAM's groups side by side."""
  options = (
    *(f'--config.mesh.{axis}=4', '--config.model.num_heads=4'),
    *('--config.model.scan=True', '--config.duration=2 steps'),
    "--config.optim.sam={'rho': 0.05, 'group_size': 4}",
  )
  for count, devices in ((2, 2), (1, 4)):
    main(
      *options,
      f'--workdir={tmp_path / str(count)}',
      count=count,
      devices=devices,
    )
  assert_rows_close(rows(tmp_path / '2'), rows(tmp_path / '1'), rtol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_goes_through_any_number_of_devices_unchanged(tmp_path):
  """8 -> 4 -> 1 -> 8 devices, in 4, 2, 1 and 2 processes."""
  main(
    '--config.mesh.fsdp=2', f'--workdir={tmp_path / "0"}', count=4, devices=2
  )
  chain = [(2, 2, 4), (1, 1, 1), (2, 4, 2)]
  for i, (count, devices, fsdp) in enumerate(chain):
    command = ('tests/resave.py', tmp_path / str(i), tmp_path / str(i + 1))
    with started(
      (*map(str, command), f'--fsdp={fsdp}'), count=count, devices=devices
    ) as running:
      codes, said = ends(running)
    assert set(codes) == {0}, '\n'.join(said)
    assert_same_checkpoint(tmp_path / '0', tmp_path / str(i + 1), step=6)


@pytest.mark.slow
def test_two_processes_branch_off_a_run_together(tmp_path):
  trunk, branch = tmp_path / 'trunk', tmp_path / 'branch'
  for init, workdir in (('', trunk), (f'{trunk}@4', branch)):
    main(f'--config.init.run={init}', f'--workdir={workdir}', count=2)
  assert_same_checkpoint(trunk, branch, step=6)
  assert rows(branch) == rows(trunk)[-3:]


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_when_one_process_dies_the_others_end(tmp_path, victim):
  long = '--config.duration=100000 steps'
  command = ('-m', 'vit_jax.main', *TINY, long, f'--workdir={tmp_path}')
  with started(command, count=2) as running:
    wait_for_rows(tmp_path, running, count=5)
    running[victim].kill()
    codes, said = ends(running)
  assert codes[victim] == -signal.SIGKILL
  assert codes[1 - victim] != 0, said


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'coordinator': 'a:1'}, '--num_processes and --process_id is missing'),
    ({'coordinator': 'a', 'num_processes': 2, 'process_id': 0}, 'HOST:PORT'),
    (
      {'coordinator': 'a:1', 'num_processes': 2, 'process_id': 2},
      'process_id=2',
    ),
  ],
)
def test_half_an_address_is_refused(given, message):
  with pytest.raises(ValueError, match=message):
    processes.meet(**given)


def test_the_variables_stand_for_the_flags(monkeypatch):
  monkeypatch.setenv('JAX_PROCESS_ID', 'x')
  with pytest.raises(ValueError, match="JAX_PROCESS_ID='x' is not a number"):
    processes.meet()
  monkeypatch.setenv('JAX_PROCESS_ID', '1')
  monkeypatch.setenv('JAX_NUM_PROCESSES', '2')
  with pytest.raises(ValueError, match='; --coordinator is missing'):
    processes.meet()


@pytest.mark.parametrize(
  ('environment', 'launched'),
  [
    ({}, False),
    ({'SLURM_STEP_NUM_TASKS': '1', 'SLURM_NTASKS': '4'}, False),
    ({'SLURM_STEP_NUM_TASKS': '4'}, True),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, True),
    ({'KUBERNETES_SERVICE_HOST': '10.0.0.1'}, False),
  ],
)
def test_a_process_is_alone_unless_a_launcher_started_several(
  monkeypatch, environment, launched
):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert processes.is_launched() == launched
  if not launched:
    processes.meet()
  processes.meet(num_processes=1)
  assert not jax.distributed.is_initialized()


def test_sigterm_to_a_process_alone_is_noticed_once():
  before = signal.getsignal(signal.SIGTERM)
  with processes.termination() as stops_after:
    assert not stops_after(1)
    signal.raise_signal(signal.SIGTERM)
    assert stops_after(2)
    # The next one ends the process at once.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  assert signal.getsignal(signal.SIGTERM) == before
  with processes.termination() as stops_after:
    assert not stops_after(3)


def test_an_interrupt_that_was_lost_is_noticed_after_the_step():
  before = signal.getsignal(signal.SIGINT)
  with processes.termination() as stops_after:
    assert not stops_after(1)
    with contextlib.suppress(KeyboardInterrupt):  # as a finalizer would
      signal.raise_signal(signal.SIGINT)
      pytest.fail('^C has no effect')
    with pytest.raises(KeyboardInterrupt):
      stops_after(2)
  assert signal.getsignal(signal.SIGINT) == before


def test_a_process_alone_has_all_of_a_batch():
  assert sharding.share(sharding.make_mesh(tensor=2)) == (0, 1)


HOLD = """
import pathlib, sys
from vit_jax import processes
with processes.alone_in(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  sys.stdin.read()
"""


def hold(directory):
  """Starts a process that holds a directory, as a run does."""
  process = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(directory)],
    cwd=ROOT,
    text=True,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  assert process.stdout.readline() == 'held\n'
  return process


def test_a_directory_is_held_by_one_run_until_it_is_killed(tmp_path):
  process = hold(tmp_path / 'run')
  try:
    message = rf'run is in use by another run, process {process.pid} on \S+\. '
    with pytest.raises(ValueError, match=message) as error:
      with processes.alone_in(tmp_path / 'run'):
        pytest.fail('There are two.')
    assert '\n' not in str(error.value)
  finally:
    process.kill()
    process.communicate()
  for _ in range(2):
    with processes.alone_in(tmp_path / 'run'):
      with pytest.raises(ValueError, match=f'process {os.getpid()} on'):
        with processes.alone_in(tmp_path / 'run'):
          pytest.fail('There are two.')


def test_a_run_does_not_start_where_another_is(tiny_config, tmp_path):
  with processes.alone_in(tmp_path):
    with pytest.raises(ValueError, match='in use by another run'):
      train(tiny_config, tmp_path)
  assert os.listdir(tmp_path) == ['.lock']


def test_where_nothing_can_be_locked_a_warning_says_so(
  tmp_path, monkeypatch, caplog
):
  def no_locks(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, 'flock', no_locks)
  with processes.alone_in(tmp_path):
    assert f'{tmp_path} cannot be locked (No locks available)' in caplog.text


@pytest.mark.slow
def test_all_processes_of_a_second_run_are_refused(tmp_path):
  process = hold(tmp_path)
  try:
    command = ('-m', 'vit_jax.main', *TINY, f'--workdir={tmp_path}')
    with started(command, count=2) as running:
      codes, said = ends(running)
  finally:
    process.kill()
    process.communicate()
  assert codes == [1, 1], '\n'.join(said)
  for text in said:
    assert f'in use by another run, process {process.pid} on ' in text


@pytest.mark.slow
def test_two_processes_go_on_from_the_checkpoint_before_a_damaged_one(
  tmp_path,
):
  damaged, whole = tmp_path / 'damaged', tmp_path / 'whole'
  main(f'--workdir={damaged}', count=2)
  shutil.copytree(damaged, whole)
  (data, *_) = (damaged / 'checkpoints' / '6' / 'model' / 'd').iterdir()
  data.write_bytes(data.read_bytes()[:-1])
  said = main(f'--workdir={damaged}', count=2)
  assert '6 is damaged: model/d/' in said[0] and ' is damaged' not in said[1]
  assert (damaged / 'checkpoints' / '6.damaged').is_dir()
  assert_same_checkpoint(whole, damaged, step=6)
  assert rows(damaged) == rows(whole)
