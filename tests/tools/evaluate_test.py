import json

import pytest
import rich.table

from vit_jax import metrics, tools
from vit_jax.tools import command, evaluate
from vit_jax.tools.work import evaluate as work


def as_json(capsys, *args):
  assert evaluate.main(['--json', *map(str, args)]) == 0
  return json.loads(capsys.readouterr().out)


def test_the_sets_of_the_config_give_what_the_run_reported(small_run, capsys):
  results = as_json(capsys, f'--workdir={small_run}')
  assert results.keys() == {'noise', 'test'}
  assert results['noise']['examples'] == 20
  reported = metrics.newest(small_run)
  for name, values in results.items():
    for metric, value in values.items():
      expected = pytest.approx(reported[f'{name}/{metric}'], rel=1e-5)
      assert value == expected, f'{name}/{metric}'


def test_what_was_held_out_in_training_is_held_out_again(small_run, capsys):
  results = as_json(capsys, f'--workdir={small_run}')
  assert results['test']['examples'] == 2  # a tenth of 20


def test_other_data_take_the_place_of_those_of_the_config(
  small_run, images, capsys
):
  whole = f'{images}/all.npz'
  parts = [f'{whole}[:7]', f'{whole}[7:]']
  results = as_json(
    capsys, f'--workdir={small_run}', *(f'--data={x}' for x in [whole, *parts])
  )
  assert list(results) == [whole, *parts]
  assert [results[x]['examples'] for x in parts] == [7, 13]
  # Every example once: the parts make up the whole.
  for metric in ('accuracy', 'loss'):
    total = sum(results[x][metric] * results[x]['examples'] for x in parts)
    assert total / 20 == pytest.approx(results[whole][metric], rel=1e-5)


def test_the_batch_size_changes_nothing(small_run, images, capsys):
  args = (f'--workdir={small_run}', f'--data={images}/all.npz')
  (expected,) = as_json(capsys, *args).values()
  (result,) = as_json(capsys, *args, '--batch_size=24').values()
  assert result == pytest.approx(expected, rel=1e-5)


def test_an_earlier_step_can_be_asked(small_run, capsys):
  before = as_json(capsys, f'--workdir={small_run}', '--step=2')
  after = as_json(capsys, f'--workdir={small_run}')
  assert before['noise']['loss'] != after['noise']['loss']


def test_the_table_has_a_row_for_each_set(small_run, capsys):
  evaluate.main([f'--workdir={small_run}'])
  out = capsys.readouterr().out
  assert out.startswith(f'{small_run}, step 4\n')  # in one line
  for word in ('noise', 'test', 'accuracy', 'loss', 'ece', 'examples'):
    assert word in out


def test_a_title_is_one_line_however_narrow_the_terminal(capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '20')
  title = 'runs/a name with words, [step] 1,000'
  tools.show(rich.table.Table('data'), title=title)
  assert capsys.readouterr().out.startswith(title + '\n')


@pytest.mark.parametrize(
  ('workdir', 'args', 'message'),
  [
    ('images', [], 'is no run directory'),
    ('run', ['--step=3'], r'no checkpoint of step 3; .*\[2, 4\]'),
    ('run', ['--data=/no/such/folder'], '/no/such/folder'),
    ('run', ['--batch_size=12'], 'does not split over 8 devices'),
    ('run', ['--data=digits:test'], 'has the classes'),
    ('run', ['--train=digits'], 'few_shot and knn only'),
  ],
)
def test_a_mistake_is_one_short_message(
  small_run, images, workdir, args, message
):
  workdir = {'run': small_run, 'images': images}[workdir]
  said = command(lambda: evaluate.main([f'--workdir={workdir}', *args]))
  assert isinstance(said, str) and said.startswith('Error: ')
  with pytest.raises(ValueError, match=message):
    evaluate.main([f'--workdir={workdir}', *args])


def test_features_are_judged_by_examples_of_the_run_or_others(
  small_run, images, capsys
):
  whole = f'{images}/all.npz'
  args = (f'--workdir={small_run}', '--evaluator=few_shot')
  own = as_json(capsys, *args)
  assert own.keys() == {'noise', 'test'} and own['test']['examples'] == 2
  data = f'--data={whole}'
  # What was held out in training is still not among the examples of the run.
  assert as_json(capsys, *args, data)[whole] == own['noise']
  other = as_json(capsys, *args, data, f'--train={whole}')[whole]
  assert other.keys() == own['noise'].keys() and other != own['noise']


def test_different_evaluators_share_a_table(small_run, capsys, monkeypatch):
  probe = {'name': 'knn', 'train': '', 'data': '', 'k': (3,)}
  suite = {'judged': {'name': 'classification', 'data': ''}, 'probed': probe}
  monkeypatch.setitem(work.SUITES, 'few_shot', lambda **_: suite)
  evaluate.main([f'--workdir={small_run}', '--suite=few_shot'])
  out = capsys.readouterr().out
  for word in ('judged', 'probed', 'accuracy', '3nn'):
    assert word in out


def test_a_suite_that_is_not_here_says_so(small_run, monkeypatch, tmp_path):
  run = f'--workdir={small_run}'
  absent = {'name': 'knn', 'train': f'{tmp_path}/a', 'data': f'{tmp_path}/b'}
  suite = {'absent': absent | {'optional': True}}
  monkeypatch.setitem(work.SUITES, 'robustness', lambda **_: suite)
  with pytest.raises(ValueError, match='None of these data sets is here'):
    evaluate.main([run, '--suite=robustness'])
