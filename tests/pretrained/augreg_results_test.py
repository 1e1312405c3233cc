"""What is known of AugReg's models: the paper's table, the index, a choice."""

import csv

import pytest

from vit_jax.pretrained import augreg, augreg_results

# All of the index, https://storage.googleapis.com/vit_models/augreg/index.csv.
COLUMNS = (
  'name,ds,epochs,lr,aug,wd,do,sd,best_val,final_val,final_test,adapt_ds,'
  'adapt_lr,adapt_steps,adapt_resolution,adapt_final_val,adapt_final_test,'
  'params,infer_samples_per_sec,filename,adapt_filename'
).split(',')
BEST = augreg.RECOMMENDED['B_16']
OTHER = BEST._replace(aug='none')


def row(file, *, upstream, task='imagenet2012', side=384, val, test, speed=138):
  return {
    'ds': file.dataset,
    'filename': str(file),
    'final_val': upstream,
    'adapt_ds': task,
    'adapt_resolution': side,
    'adapt_final_val': val,
    'adapt_final_test': test,
    'infer_samples_per_sec': speed,
  }


@pytest.fixture
def rows(tmp_path):
  path = tmp_path / 'index.csv'
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(
      [
        row(OTHER, upstream=0.4, val=0.99, test=0.98),
        row(BEST, upstream=0.5, val=0.90, test=0.85),
        row(BEST, upstream=0.5, val=0.92, test=0.84),
        row(BEST, upstream=0.5, val=0.91, test=0.86),
        row(BEST, upstream=0.5, side=224, val=0.9, test=0.81, speed=659),
        row(BEST, upstream=0.5, task='cifar100', val=0.9, test=0.9),
        row(BEST._replace(dataset='i1k'), upstream=0.8, val=0.8, test=0.79),
      ]
    )
  return augreg.read_index(path)


def test_the_index_is_judged_as_the_paper_chooses(rows):
  found = augreg_results.from_index(rows)
  assert [(x.dataset, x.resolution, x.accuracy) for x in found] == [
    ('i21k', 384, 84.0),  # the best on validation data, not on the test's
    ('i21k', 224, 81.0),
    ('i1k', 384, 79.0),
  ]
  assert found[0].upstream == BEST and found[0].size == 'B_16'
  assert [x.images_per_second for x in found] == [138, 659, 138]
  (cifar,) = augreg_results.from_index(rows, task='cifar100')
  assert cifar.accuracy == 90.0


def test_an_unknown_task_is_named(rows):
  with pytest.raises(ValueError, match='no task .pets.; .*cifar100, imagenet'):
    augreg_results.from_index(rows, task='pets')


def test_the_table_agrees_with_the_catalogue():
  found = {
    x.size: x
    for x in augreg_results.published()
    if (x.dataset, x.resolution) == ('i21k', 384)
  }
  assert found.keys() == augreg.FINE_TUNED.keys()
  for size, (_, accuracy) in augreg.FINE_TUNED.items():
    assert found[size].accuracy == accuracy
    assert found[size].upstream == augreg.RECOMMENDED[size]


def test_more_pixels_are_slower_and_more_accurate():
  found = augreg_results.published()
  assert len(found) == 9 * 3 * 2
  for low, high in zip(found[:27], found[27:], strict=True):
    assert (low.size, low.dataset) == (high.size, high.dataset)
    assert low.images_per_second > high.images_per_second
    assert low.accuracy < high.accuracy


def test_the_frontier_is_what_nothing_beats():
  found = augreg_results.published()
  kept = augreg_results.frontier(found)
  for x in found:
    beaten = any(
      y.images_per_second >= x.images_per_second
      and y.accuracy >= x.accuracy
      and y != x
      for y in found
    )
    assert beaten == (x not in kept)


def test_the_most_accurate_that_is_fast_enough_is_chosen():
  found = [x for x in augreg_results.published() if x.resolution == 384]
  chosen = augreg_results.choose(found, images_per_second=500.0)
  assert (chosen.size, chosen.accuracy) == ('R26_S_32', 83.85)
  assert augreg_results.choose(found).size == 'R50_L_32'
  with pytest.raises(ValueError, match='fastest, R_Ti_16 .* makes 2426'):
    augreg_results.choose(found, images_per_second=1e6)
  with pytest.raises(ValueError, match='no results'):
    augreg_results.choose([])
