import shlex
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from vit_jax.tools import sweep

LINES = {
  'configs/augreg.py:B_16': 12,
  'configs/augreg_pretrain.py:Ti_16': 28,
  'configs/scaling_laws.py:digits': 24,
}


@pytest.fixture
def parse(monkeypatch):
  """What `python -m vit_jax.main` makes of a command."""

  def parsed(line):
    python, dash_m, module, *args = shlex.split(line)
    assert [python, dash_m, module] == ['python', '-m', 'vit_jax.main']
    # Where config_flags looks for the values that are changed.
    monkeypatch.setattr(sys, 'argv', [module, *args])
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', flag_values=values)
    flags.DEFINE_string('workdir', None, 'help', flag_values=values)
    values(sys.argv)
    return values

  return parsed


def shell_lines(capsys):
  """What a shell makes of the output: it leaves comments out."""
  lines = capsys.readouterr().out.splitlines()
  return [line for line in lines if not line.startswith('#')]


def test_the_numbers_of_the_paper_come_first_as_comments(capsys):
  sweep.main(['configs/augreg_pretrain.py:B_16'])
  lines = capsys.readouterr().out.splitlines()
  table = [line.split() for line in lines[:60] if line.startswith('#   B_16')]
  assert table == [['#', 'B_16', '79.84', '81.63', '83.46', '85.49']]


@pytest.mark.parametrize('config', LINES)
def test_every_line_is_a_command_with_a_directory_of_its_own(
  config, capsys, parse
):
  sweep.main(
    [config, '--workdir=my runs', '--config.data.train=/a b', '--config.seed=3']
  )
  lines = shell_lines(capsys)
  assert len(lines) == LINES[config]
  directories = set()
  for line in lines:
    values = parse(line)
    assert values.config.seed == 3
    assert values.config.data.train == '/a b'
    directories.add(values.workdir)
  assert len(directories) == len(lines)
  assert all(name.startswith('my runs/') for name in directories)


def test_an_index_picks_one_line(capsys, parse):
  config = 'configs/augreg.py:B_16,cifar100'
  sweep.main([config])
  lines = shell_lines(capsys)
  sweep.main([config, '--index=7'])
  assert capsys.readouterr().out.splitlines() == [lines[7]]
  values = parse(lines[7])
  assert values.config.optim.learning_rate == 0.001
  assert values.config.duration == '10000 steps'
  assert values.config.optim.schedule.warmup == '500 steps'
  assert values.config.transforms[0]['size'] == 384


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['configs/augreg.py:B_16', '--index=12'], r'not in \[0, 12\)'),
    (['configs/augreg.py:B_16,cifar10'], "'cifar10'. Did you mean 'cifar100'"),
    (['configs/quickstart.py'], 'defines no sweep'),
  ],
)
def test_a_sweep_that_is_not_there_is_an_error(args, message):
  with pytest.raises(ValueError, match=message):
    sweep.main(args)
