"""The command itself: what it says when all is well, and when it is not."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

SMALL = (
  *('--config=configs/quickstart.py', '--config.duration=2 steps'),
  *('--config.batch_size=16', '--config.model.width=16'),
  *('--config.model.depth=1', '--config.data.train=digits:train[:32]'),
)
# What is wrong, on how many devices, and what the message says.
MISTAKES = {
  'no config': ((), 1, '--config=configs/quickstart.py'),
  'a misspelt key': (
    (*SMALL, '--config.optim.learning_rat=1'),
    1,
    "'learning_rat'. Did you mean 'learning_rate'",
  ),
  'an unknown variant': (
    ('--config=configs/augreg.py:C_16',),
    1,
    "no model 'C_16'; there are .*'B_16'",
  ),
  'a batch that does not split': (
    (*SMALL, '--config.batch_size=12'),
    8,
    'batch_size=12 does not split over 8 devices; the nearest .* is 16',
  ),
  'the directory of another run': (
    (*SMALL, '--config.seed=1'),
    1,
    r'- config.seed: 0\s*\+ config.seed: 1',
  ),
}


def command(module, *args, devices=1):
  return subprocess.run(
    [sys.executable, '-m', module, *map(str, args)],
    capture_output=True,
    text=True,
    env=os.environ
    | {
      'JAX_NUM_CPU_DEVICES': str(devices),
      'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # for a fast compilation
    },
  )


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run: its directory, and what the command said."""
  workdir = tmp_path_factory.mktemp('main') / 'run'
  return workdir, command('vit_jax.main', *SMALL, f'--workdir={workdir}')


def test_a_good_run_ends_with_a_command_that_works(run):
  workdir, result = run
  assert result.returncode == 0, result.stderr
  assert re.search(r'Done: .*test/accuracy 0\.\d+', result.stdout)
  assert f'The run lies in {workdir}.' in result.stdout
  assert f'tensorboard --logdir={workdir}' in result.stdout
  assert f'Look at it in {workdir}/report.html' in result.stdout
  assert 'accuracy on test' in (workdir / 'report.html').read_text()
  (line,) = [x for x in result.stdout.splitlines() if 'tools.predict' in x]
  python, _, module, *args = shlex.split(line)
  assert python == 'python' and f'--workdir={workdir}' in args
  predicted = command(module, *args, '--json')
  assert predicted.returncode == 0, predicted.stderr
  images = json.loads(predicted.stdout)
  assert [len(image['classes']) for image in images] == [3] * 5


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_short_message_and_exit_code_1(run, mistake):
  workdir, _ = run
  args, devices, message = MISTAKES[mistake]
  result = command(
    'vit_jax.main', *args, f'--workdir={workdir}', devices=devices
  )
  assert result.returncode == 1
  assert result.stderr.startswith('Error: ')
  assert re.search(message, result.stderr), result.stderr
  assert 'Traceback' not in result.stderr
  assert len(result.stderr.splitlines()) < 10
