"""The page is read as a browser reads it, by a parser of HTML."""

import base64
import html.parser
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from vit_jax import data, main, metrics
from vit_jax.data import Arrays
from vit_jax.tools import command
from vit_jax.tools import report as tool
from vit_jax.tools.work import judgement, report
from vit_jax.trained import load


class Page(html.parser.HTMLParser):
  """What of a page the tests look at."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.words, self.sources, self.alts = [], [], [], []
    self.feed(text)
    self.text = ' '.join(' '.join(self.words).split())

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.append(tag)
    for key in attrs.keys() & {'src', 'href'}:
      self.sources.append(attrs[key])
    if 'alt' in attrs:
      self.alts.append(attrs['alt'])

  def handle_data(self, data):
    self.words.append(data)


@pytest.fixture(scope='session')
def page(small_run):
  """The page that the command writes."""
  assert tool.main([f'--workdir={small_run}']) == 0
  return Page((small_run / report.FILE).read_text())


def test_the_page_says_what_the_run_says(page, small_run):
  for name in ('noise', 'test'):
    found = metrics.newest(small_run)
    assert f'{found[f"{name}/accuracy"]:.2%} accuracy on {name}' in page.text
    assert f'On {name}' in page.text
  assert 'model.patch_size 8 ' in page.text
  assert 'evals.noise.loss softmax' in page.text
  assert re.search(r'vit on \S+all.npz, step 4', page.text)


def test_the_page_stands_alone(page):
  assert not {'script', 'link', 'iframe'} & set(page.tags)
  assert all(x.startswith('data:image/') for x in page.sources)
  kinds = [x.partition(';')[0] for x in page.sources]
  # Curves, and for each set a matrix and a diagram.
  assert kinds.count('data:image/svg+xml') == 1 + 2 * 2
  for source in page.sources:
    content = base64.b64decode(source.partition('base64,')[2])
    if source.startswith('data:image/svg'):
      assert b'<svg' in content
    else:
      image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
      assert image.shape == (16, 16, 3)
  assert len(page.alts) == page.tags.count('img')


def test_the_same_run_is_the_same_page(small_run):
  assert report.render(small_run) == report.render(small_run)


def test_a_judgement_agrees_with_the_evaluator(small_run):
  trained = load(small_run)
  config = trained.run['config']
  source = data.open(config['data']['train'])
  found = judgement.judge(trained, source, preprocess=config['preprocess'])
  newest = metrics.newest(small_run)
  assert found.correct.mean() == pytest.approx(newest['noise/accuracy'])
  bins = judgement.calibration(found)
  assert bins.ece == pytest.approx(newest['noise/ece'], abs=1e-5)
  assert bins.counts.sum() == found.total == newest['noise/examples']


def test_the_most_confident_mistakes_are_kept(small_run):
  trained = load(small_run)
  preprocess = trained.run['config']['preprocess']
  source = data.open(trained.run['config']['data']['train'])
  whole = judgement.judge(trained, source, preprocess=preprocess)
  wrong = np.flatnonzero(~whole.correct)
  assert len(whole.worst) == min(len(wrong), 16) > 3
  few = judgement.judge(trained, source, preprocess=preprocess, num_worst=3)
  expected = wrong[np.argsort(-whole.confidence[wrong], kind='stable')[:3]]
  assert [x.name for x in few.worst] == [source.name(int(i)) for i in expected]
  transform = data.build_transforms(preprocess)
  rng = np.random.default_rng(0)
  for index, mistake in zip(expected, few.worst, strict=True):
    example = source[int(index)]
    np.testing.assert_array_equal(
      mistake.image, transform(example['image'], rng)
    )
    assert mistake.label == example['label'] != mistake.guess
    assert mistake.share < mistake.confidence


def test_some_examples_stand_for_many(small_run):
  trained = load(small_run)
  source = data.open(trained.run['config']['data']['train'])
  preprocess = trained.run['config']['preprocess']
  whole, part = (
    judgement.judge(trained, source, preprocess=preprocess, most=most)
    for most in (None, 5)
  )
  assert part.total == 20
  np.testing.assert_array_equal(part.label, whole.label[[0, 4, 9, 14, 19]])
  np.testing.assert_array_equal(part.guess, whole.guess[[0, 4, 9, 14, 19]])
  text = Page(report.render(small_run, most=5)).text
  assert 'of 5 examples are right' in text
  assert 'evenly spread over all 20.' in text


def judged(label, guess, confidence=None, k=3):
  label, guess = np.array(label), np.array(guess)
  if confidence is None:
    confidence = np.full(len(label), 0.5)
  names = tuple(f'c{i}' for i in range(k))
  return judgement.Judgement(
    names, label, guess, np.array(confidence), len(label), []
  )


def test_confusion_is_counted_by_hand():
  found = judged([0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 0, 1])
  matrix = [[1, 2, 0], [0, 1, 0], [1, 1, 0]]
  np.testing.assert_array_equal(judgement.confusion(found), matrix)
  pairs = judgement.confused_pairs(found, most=2)
  assert pairs == [(0, 1, 2, 3), (2, 0, 1, 2)]


def test_calibration_is_computed_by_hand():
  found = judged([0, 0, 0, 0], [0, 1, 0, 0], [0.1, 0.3, 0.9, 1.0])
  bins = judgement.calibration(found, num_bins=2)
  np.testing.assert_array_equal(bins.counts, [2, 2])
  np.testing.assert_allclose(bins.confidence, [0.2, 0.95])
  np.testing.assert_allclose(bins.accuracy, [0.5, 1.0])
  assert bins.ece == pytest.approx((0.3 + 0.05) / 2)


def test_many_classes_are_listed_by_their_pairs():
  label = np.repeat(np.arange(1000), 2)
  guess = label.copy()
  guess[:2] = 7  # class 0, both
  found = judged(label, guess, k=1000)
  shown = report._set('val', found)
  assert not shown['confusion'] and shown['num_classes'] == '1,000'
  assert shown['pairs'] == [('c0', 'c7', '2', '2')]
  assert report._set('val', judged(label, label, k=1000))['pairs'] == []


def test_only_classes_that_occur_are_chosen_from(small_run):
  trained = load(small_run)
  source = Arrays(
    np.zeros((4, 16, 16, 3), np.uint8),
    np.array([0, 2, 2, 0]),
    ('cat', 'cow', 'dog'),
  )
  found = judgement.judge(trained, source, preprocess=(), classes='present')
  assert found.class_names == ('cat', 'dog')
  assert found.label.tolist() == [0, 1, 1, 0]
  assert set(found.guess) <= {0, 1}


@pytest.fixture
def changed(small_run, tmp_path):
  """A copy of the run whose record is changed by a function."""

  def change(function, *, ignore=()):
    copy = tmp_path / '<b>run&'
    shutil.copytree(small_run, copy, ignore=shutil.ignore_patterns(*ignore))
    run = json.loads((copy / 'run.json').read_text())
    function(run)
    (copy / 'run.json').write_text(json.dumps(run))
    return copy

  return change


def test_names_are_text_and_nothing_else(changed, monkeypatch):
  names = ['<script>alert(1)</script>', '"><img src=x>', '&amp;']
  image = np.zeros((8, 8, 1), np.uint8)
  mistake = judgement.Mistake('/x/"<script>.png', image, 0, 1, 0.9, 0.1)
  found = judged([0, 1], [1, 2])._replace(
    class_names=tuple(names), worst=[mistake]
  )
  monkeypatch.setattr(
    report, '_sets', lambda *_, **__: [report._set('<i>', found)]
  )
  copy = changed(lambda run: run['config'].update(seed='<script>'))
  page = Page(report.render(copy))
  assert not {'script', 'i'} & set(page.tags)
  assert '<b>run&' in page.text and 'On <i>' in page.text
  assert '"><img src=x> 90%' in page.text and '"<script>.png' in page.text
  assert 'seed <script>' in page.text
  assert page.tags.count('img') == 1 + 2 + 1


def test_data_that_are_gone_are_named(changed):
  def lose(run):
    run['config']['evals']['noise']['data'] = '/nowhere'

  page = Page(report.render(changed(lose)))
  assert 'could not be looked at: ' in page.text and '/nowhere' in page.text
  assert page.text.count('examples are right') == 1


def test_a_run_without_classifiers_and_checkpoints_has_a_page(changed):
  def strip(run):
    run['config']['evals'] = {'knn': {'name': 'knn', 'data': '', 'train': ''}}

  copy = changed(strip, ignore=('checkpoints', 'metrics.jsonl'))
  page = Page(report.render(copy))
  assert 'no checkpoint yet' in page.text
  assert 'has reported nothing yet' in page.text
  assert not page.sources and 'On knn' not in page.text


def test_a_run_that_is_finished_stays_so(tmp_path, capsys):
  main.write_report(tmp_path)  # there is no run
  said = capsys.readouterr().err
  assert said.startswith('There is no report: ') and len(said.splitlines()) == 1


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['--workdir=/nowhere'], 'no run directory'),
    (['--step=3'], 'no checkpoint of step 3'),
  ],
)
def test_a_mistake_is_one_line(small_run, args, message):
  if '--step=3' in args:
    args = [*args, f'--workdir={small_run}']
  said = command(lambda: tool.main(args))
  assert message in said and '\n' not in said
