import contextlib
import io
import json
import logging
import os
import sys
import termios
import time

import pytest

from vit_jax import metrics


@pytest.fixture
def clock(monkeypatch):
  """A clock that moves only when the test says so: clock(seconds)."""
  now = [100.0]

  def move(seconds):
    now[0] += seconds

  monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  return move


def write(workdir, steps, *, first_step=0):
  with metrics.Writer(workdir, first_step=first_step, total_steps=10) as writer:
    for step in steps:
      writer.scalars(step, {'train/loss': step / 2})


def written(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_rows_that_are_about_to_be_repeated_are_dropped(tmp_path):
  write(tmp_path, [1, 2, 3, 4])
  write(tmp_path, [3, 4, 5], first_step=2)
  rows = written(tmp_path)
  assert [row['step'] for row in rows] == [1, 2, 3, 4, 5]
  assert rows[2] == {'step': 3, 'train/loss': 1.5}


def test_a_last_line_cut_short_is_dropped(tmp_path):
  write(tmp_path, [1, 2])
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"step": 3, "train/lo')
  assert [row['step'] for row in metrics.read_rows(path)] == [1, 2]
  write(tmp_path, [3], first_step=2)
  assert [row['step'] for row in written(tmp_path)] == [1, 2, 3]


def test_a_run_that_starts_again_and_again_keeps_the_newest_event_files(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(metrics, 'MAX_EVENT_FILES', 3)
  for age in range(5):
    path = tmp_path / f'events.out.tfevents.{age}'
    path.write_text('')
    os.utime(path, (0, 1000 - age))
  write(tmp_path, [1, 2])
  left = {path.name.split('.')[3] for path in tmp_path.glob('events.*')}
  assert {'0', '1'} < left and len(left) == 3
  write(tmp_path, [2, 3], first_step=1)
  assert [row['step'] for row in written(tmp_path)] == [1, 2, 3]


def test_a_run_without_reports_has_no_rows(tmp_path):
  assert metrics.read_rows(tmp_path / 'metrics.jsonl') == []
  assert metrics.newest(tmp_path) == {}


def test_the_newest_value_of_each_metric_counts(tmp_path):
  with metrics.Writer(tmp_path, first_step=0, total_steps=2) as writer:
    writer.scalars(1, {'train/loss': 3.0, 'test/loss': 4.0})
    writer.scalars(2, {'train/loss': 1.0})
  assert metrics.newest(tmp_path) == {'train/loss': 1.0, 'test/loss': 4.0}


def test_a_line_tells_step_share_time_left_and_what_matters(
  tmp_path, capsys, clock
):
  with metrics.Writer(
    tmp_path, first_step=499, total_steps=2000, began=time.monotonic()
  ) as writer:
    clock(1000)
    writer.advance(500)  # compilation
    clock(50)
    writer.scalars(
      1000,
      {
        'train/loss': 0.123456,
        'train/grad_norm': 5.0,
        'images_per_second': 12345.6,
        'step_seconds': 0.1,
        'test/examples': 360.0,
      },
    )
  # 500 steps took 50 s, 1,000 are left.
  expected = '1,000/2,000  50%  eta 01:40  train/loss 0.1235  images/s 12,346'
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('First step after 1000.0 s')
  assert lines[1] == expected
  assert written(tmp_path)[0]['train/grad_norm'] == 5.0


def test_steps_stand_below_each_other(tmp_path, capsys, clock):
  write(tmp_path, [9, 10])
  nine, ten = capsys.readouterr().out.splitlines()
  assert nine.index('/') == ten.index('/')


@pytest.fixture
def stdout(monkeypatch):
  """Replaces standard output; returns what reads all that was written since."""

  def replace(reader, writer):
    monkeypatch.setattr(sys, 'stdout', os.fdopen(writer, 'w'))
    os.set_blocking(reader, False)

    def read():
      parts = []
      with contextlib.suppress(BlockingIOError):  # there is no more
        while True:
          parts.append(os.read(reader, 2**16))
      return b''.join(parts).decode()

    return read

  return replace


def terminal():
  """A terminal of 90 columns: what it shows is read from the first."""
  reader, writer = os.openpty()
  termios.tcsetwinsize(writer, (40, 90))
  return reader, writer


def on_screen(text):
  """The lines that a terminal shows after this; `\\r` goes back to column 0."""
  lines = []
  for line in text.replace('\r\n', '\n').split('\n'):
    shown = ''
    for part in line.split('\r'):
      shown = part + shown[len(part) :]
    lines.append(shown.rstrip())
  return lines


def test_in_a_terminal_one_line_is_rewritten_below_the_others(tmp_path, stdout):
  read = stdout(*terminal())
  with metrics.Writer(tmp_path, first_step=0, total_steps=40) as writer:
    writer.advance(1)
    writer.advance(10)
    writer.scalars(10, {'train/loss': 0.25})
    before = read()
    writer.scalars(10, {'test/accuracy': 0.5})
    *lines, bar = on_screen(before + read())
  assert [line.split()[0] for line in lines] == ['First', '10/40', '10/40']
  assert '25%|' in bar and '10/40 [' in bar and 'train/loss 0.25' in bar
  # It is gone when the run is over.
  assert on_screen(read())[-1] == ''


def test_a_log_file_has_plain_lines_at_once_and_no_bar(tmp_path, stdout):
  read = stdout(*os.pipe())
  with metrics.Writer(tmp_path, first_step=0, total_steps=40) as writer:
    writer.advance(1)
    writer.scalars(1, {'train/loss': 0.25})
    assert read().splitlines()[1].startswith(' 1/40   2%  eta')
    writer.advance(2)
    writer.message('said')
  assert read() == 'said\n'


def test_a_notebook_has_the_bar_as_well(tmp_path, monkeypatch):
  kind = type('OutStream', (io.StringIO,), {'__module__': 'ipykernel.iostream'})
  monkeypatch.setattr(sys, 'stdout', kind())
  with metrics.Writer(tmp_path, first_step=0, total_steps=40) as writer:
    for step in range(1, 41):
      writer.advance(step)
      writer.scalars(step, {'train/loss': 1 / step})
  assert '\r  2%|' in sys.stdout.getvalue()
  lines = on_screen(sys.stdout.getvalue())
  assert len(lines) == 1 + 40 + 1 and '|' not in ''.join(lines)


def test_training_has_a_line_for_each_per_cent_or_minute(
  tmp_path, capsys, clock
):
  with metrics.Writer(tmp_path, first_step=0, total_steps=10_000) as writer:
    for step in range(1, 1001):
      writer.scalars(step, {'train/loss': 1.0})
      clock(2.5)
    writer.scalars(1000, {'test/loss': 1.0})
  shown = [line.split('/')[0] for line in capsys.readouterr().out.splitlines()]
  assert len(written(tmp_path)) == 1001
  # A per cent is 100 steps, a minute 24.
  first = [1, 25, 49, 73, 97, 100, 124, 148, 172, 196, 200]
  assert [int(x.replace(',', '')) for x in shown[:11]] == first
  assert len(shown) == 5 + 9 * 5 + 1 + 1
  assert shown[-2:] == [' 1,000', ' 1,000']


def test_a_warning_does_not_tear_the_bar(tmp_path, stdout, monkeypatch):
  read = stdout(*terminal())
  handler = logging.StreamHandler(sys.stdout)
  monkeypatch.setattr(logging.root, 'handlers', [handler])
  with metrics.Writer(tmp_path, first_step=0, total_steps=40) as writer:
    writer.advance(1)
    logging.getLogger('vit_jax').warning('a bad image')
    *lines, bar = on_screen(read())
  assert lines[-1] == 'a bad image' and '1/40' in bar
  assert logging.root.handlers == [handler]


def test_a_clock_counts_neither_compilation_nor_what_is_not_a_step(clock):
  timer = metrics.Clock(flops=10, batch_size=8)
  clock(1000)  # compilation
  timer.stepped()
  assert timer.report() == {}
  for _ in range(4):
    with timer.waiting():
      clock(0.5)
    clock(1.5)
    timer.stepped()
  assert timer.report() == {
    'images_per_second': 4.0,
    'step_seconds': 2.0,
    'data_seconds': 0.5,
    'compute_seconds': 1.5,
  }
  clock(1000)  # an evaluation
  timer.restart()
  clock(4)
  timer.stepped()
  assert timer.report()['step_seconds'] == 4.0
  assert timer.report() == {}


def test_utilisation_is_the_rate_over_the_peak_of_all_devices(
  clock, monkeypatch
):
  monkeypatch.setattr(metrics, 'peak_flops', lambda kind: 1000.0)
  timer = metrics.Clock(flops=500, batch_size=8)
  timer.stepped()
  clock(2)
  timer.stepped()
  # 8 images of 500 FLOP in 2 s, on 8 devices of 1,000 FLOP/s.
  assert timer.report()['mfu'] == pytest.approx(0.25)


@pytest.mark.parametrize(
  ('kind', 'teraflops'),
  [
    ('NVIDIA H200', 989),
    ('NVIDIA H100 80GB HBM3', 989),
    ('NVIDIA A100-SXM4-40GB', 312),
    ('TPU v3', 61.5),
    ('TPU v4', 275),
    ('TPU v5', 459),
    ('TPU v5p', 459),
    ('TPU v5 lite', 197),
    ('TPU v6 lite', 918),
  ],
)
def test_the_peak_of_a_device_is_found_by_its_name(kind, teraflops):
  assert metrics.peak_flops(kind) == teraflops * 1e12


def test_the_peak_of_an_unknown_device_is_not_made_up():
  assert metrics.peak_flops('cpu') is None


def test_without_wandb_the_remedy_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(ValueError, match='pip install wandb'):
    metrics.Writer(tmp_path, first_step=0, total_steps=1, wandb_project='mine')


def test_wandb_gets_every_row_and_the_config(tmp_path, monkeypatch):
  calls = []

  class Wandb:
    def init(self, **options):
      calls.append(options['config'])
      return self

    def log(self, values, *, step):
      calls.append((step, values))

    def finish(self):
      calls.append('finished')

  monkeypatch.setitem(sys.modules, 'wandb', Wandb())
  with metrics.Writer(
    tmp_path,
    first_step=0,
    total_steps=1,
    wandb_project='mine',
    config={'seed': 0},
  ) as writer:
    writer.scalars(1, {'train/loss': 1.0})
  assert calls == [{'seed': 0}, (1, {'train/loss': 1.0}), 'finished']
