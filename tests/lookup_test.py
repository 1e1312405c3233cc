import pickle

import pytest

from vit_jax.lookup import choose, pick, unknown


def scaled(x, *, factor, shift=0):
  return factor * x + shift


TABLE = {'scaled': scaled}


def test_choose_finds_the_entry():
  assert choose({'a': 1, 'b': 2}, word='b', kind='letter') == 2


def test_an_unknown_word_is_answered_with_the_nearest():
  with pytest.raises(ValueError, match="pool: 'tokem'.*mean 'token'"):
    choose({'token': 0, 'map': 1}, word='tokem', kind='pool')


def test_all_known_words_are_listed_even_if_none_is_near():
  assert 'Known: x, y' in str(unknown('word', known=('x', 'y'), kind='axis'))


def test_pick_binds_the_options_and_can_be_sent_to_another_process():
  picked = pick(TABLE, spec={'name': 'scaled', 'factor': 3}, kind='map')
  assert pickle.loads(pickle.dumps(picked))(2) == 6


def test_what_the_caller_gives_cannot_be_an_option():
  spec = {'name': 'scaled', 'factor': 3}
  picked = pick(TABLE, spec=spec, kind='map', given=['shift'])
  assert picked(2, shift=1) == 7
  with pytest.raises(ValueError, match="option of map 'scaled': 'shift'"):
    pick(TABLE, spec={**spec, 'shift': 1}, kind='map', given=['shift'])


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    ({'factor': 3}, 'names no map; add "name"'),
    ({'name': 'scale', 'factor': 3}, "Unknown map: 'scale'.*'scaled'"),
    ({'name': 'scaled', 'facto': 3}, "'facto'. Did you mean 'factor'"),
    ({'name': 'scaled'}, "needs 'factor'"),
  ],
)
def test_a_spec_that_does_not_fit_is_refused(spec, message):
  with pytest.raises(ValueError, match=message):
    pick(TABLE, spec=spec, kind='map')
