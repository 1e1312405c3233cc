"""A long run takes no more memory, open files or disk than a short one.

python -m pytest -m slow -s tests/resources_test.py
"""

import pathlib
import statistics
import subprocess
import sys
import time

import pytest

from vit_jax import checkpoint, metrics

STEPS = 10_000
COMMAND = (
  *(sys.executable, '-m', 'vit_jax.main', '--config=configs/quickstart.py'),
  f'--config.duration={STEPS} steps',
  '--config.batch_size=8',
  '--config.model.width=16',
  '--config.model.depth=1',
  '--config.model.mlp_dim=16',
  '--config.log_every=10 steps',
  '--config.eval_every=250 steps',
  '--config.checkpoint.every=250 steps',
)


def used(pid, workdir):
  """Resident MiB, open files, and MiB of checkpoints."""
  process = pathlib.Path('/proc', str(pid))
  (resident,) = (
    int(line.split()[1]) / 1024
    for line in (process / 'status').read_text().splitlines()
    if line.startswith('VmRSS')
  )
  return resident, len(list((process / 'fd').iterdir())), size(workdir)


def size(directory):
  sizes = []
  for path in directory.rglob('*'):
    try:
      sizes.append(path.stat().st_size)
    except FileNotFoundError:  # It has just been replaced.
      continue
  return sum(sizes) / 2**20


@pytest.mark.slow
def test_memory_files_and_disk_stay_as_they_are_over_10_000_steps(tmp_path):
  samples = {}
  with (tmp_path / 'log').open('wb') as log:
    process = subprocess.Popen(
      [*COMMAND, f'--workdir={tmp_path / "run"}'], stdout=log, stderr=log
    )
    while process.poll() is None:
      time.sleep(2)
      rows = metrics.read_rows(tmp_path / 'run' / 'metrics.jsonl')
      try:
        sample = used(process.pid, tmp_path / 'run' / 'checkpoints')
      except (ValueError, OSError):  # It has just ended.
        continue
      samples[rows[-1]['step'] if rows else 0] = sample
  assert process.returncode == 0, (tmp_path / 'log').read_text()
  for thousand in range(STEPS // 1000):
    part = [x for step, x in samples.items() if step // 1000 == thousand]
    resident = statistics.median(x[0] for x in part) if part else 0
    print(f'from step {thousand},000: {resident:.1f} MiB resident')
  # What is made once, such as buffers and compiled programs, is there by then.
  early = [x for step, x in samples.items() if 2_000 <= step < 4_000]
  late = [x for step, x in samples.items() if 8_000 <= step < STEPS]
  assert len(early) > 5 and len(late) > 5
  for name, of_early, of_late, tolerance in zip(
    ('resident MiB', 'open files', 'MiB of checkpoints'),
    zip(*early, strict=True),
    zip(*late, strict=True),
    (0.02, 0, 0.02),
    strict=True,
  ):
    before, after = statistics.median(of_early), statistics.median(of_late)
    print(f'{name}: {before:.1f} at steps 2,000-4,000, {after:.1f} at the end')
    assert after <= before * (1 + tolerance), name
  # The two latest, and the best.
  assert len(checkpoint.steps(tmp_path / 'run')) <= 3
  rows = metrics.read_rows(tmp_path / 'run' / 'metrics.jsonl')
  assert len(rows) == STEPS // 10 + STEPS // 250
