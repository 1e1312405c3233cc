import json
import shutil

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from vit_jax import models
from vit_jax.tools.scaling_laws import main as scaling_laws_main
from vit_jax.tools.work import scaling_laws, zoo
from vit_jax.tools.work.scaling_laws import Law, Point

points = st.lists(
  st.builds(
    Point,
    name=st.just('run'),
    compute=st.integers(1, 9).map(float),
    error=st.integers(1, 9).map(float),
    params=st.just(1),
  ),
  max_size=12,
)


@pytest.mark.parametrize(
  'values', [(0.63, 0.32, 0.12, 0.52), (0.26, 0.35, 0.09, 0.01), (2, 0.8, 0, 3)]
)
@pytest.mark.parametrize('unit', [1e9, 1e21])
def test_a_fit_finds_the_law_that_made_the_points(values, unit):
  law = Law(*values, unit=unit)
  compute = np.geomspace(unit, 1e5 * unit, 10)
  found = scaling_laws.fit(compute, law(compute))
  np.testing.assert_allclose(found, law, rtol=0.01, atol=1e-4)


def test_a_fit_of_noisy_points_predicts_ten_times_the_compute():
  law = Law(0.63, 0.32, 0.12, 0.52, unit=1e15)
  compute = np.geomspace(1e15, 1e20, 12)
  noise = np.exp(0.01 * np.random.default_rng(0).normal(size=12))
  found = scaling_laws.fit(compute, law(compute) * noise)
  np.testing.assert_allclose(found(1e21), law(1e21), rtol=0.05)


@hypothesis.given(points)
def test_the_frontier_is_what_no_point_beats(points):
  frontier = scaling_laws.frontier(points)
  for point in points:
    beaten = any(
      other.compute <= point.compute
      and other.error <= point.error
      and other[1:3] != point[1:3]
      for other in points
    )
    assert beaten != (point in frontier)
  for before, after in zip(frontier, frontier[1:], strict=False):
    assert before.compute < after.compute and before.error > after.error


def test_a_run_is_read_as_what_it_spent_and_what_it_reached(small_run):
  point = scaling_laws.read(small_run, metric='noise/accuracy')
  run = json.loads((small_run / 'run.json').read_text())
  model = models.build(**{**run['config']['model'], 'num_classes': 3})
  params, forward = zoo.cost(model, size=16)
  assert point.compute == 3 * forward * 4 * 8
  assert point.params == params
  last = json.loads((small_run / 'metrics.jsonl').read_text().splitlines()[-1])
  assert point.error == 1 - last['noise/accuracy']
  loss = scaling_laws.read(small_run, metric='noise/loss')
  assert loss.error == last['noise/loss']


def test_a_metric_that_was_not_measured_is_answered_by_those_that_were(
  small_run,
):
  with pytest.raises(ValueError, match="'val/accuracy'.*'noise/accuracy'"):
    scaling_laws.read(small_run, metric='val/accuracy')


@pytest.mark.parametrize(
  ('error', 'message'),
  [([0.5, 0.4, 0.3, 0.2], 'has 4 points'), ([0.4, 0.3, 0.2, 0.1, 0], 'of 0')],
)
def test_what_cannot_be_fitted_is_an_error(error, message):
  compute = np.geomspace(1e9, 1e12, len(error))
  with pytest.raises(ValueError, match=message):
    scaling_laws.fit(compute, np.array(error))


def test_runs_are_drawn_with_their_frontier(small_run, tmp_path, capsys):
  """Seven runs, of which the one of 64 steps is worse than a shorter one."""
  for step in (4, 8, 16, 32, 64, 128, 256):
    workdir = tmp_path / 'runs' / f'steps_{step}'
    workdir.mkdir(parents=True)
    shutil.copy(small_run / 'run.json', workdir)
    loss = 3.0 if step == 64 else 2 * step**-0.5
    row = {'step': step, 'test/loss': loss}
    (workdir / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  output = tmp_path / 'out.png'
  scaling_laws_main(
    [f'{tmp_path}/runs/*', '--metric=test/loss', f'--output={output}']
  )
  out = capsys.readouterr().out
  assert output.read_bytes().startswith(b'\x89PNG')
  assert 'steps_32' in out and 'steps_64' not in out
  assert '7 runs, drawn in' in out
