import pytest

from vit_jax.layers.choice import choose, unknown


def test_choose_finds_the_entry():
  assert choose({'a': 1, 'b': 2}, word='b', kind='letter') == 2


def test_an_unknown_word_is_answered_with_the_nearest():
  with pytest.raises(ValueError, match="pool 'tokem'.*mean 'token'"):
    choose({'token': 0, 'map': 1}, word='tokem', kind='pool')


def test_all_known_words_are_listed_even_if_none_is_near():
  assert 'Known: x, y' in str(unknown('word', known=('x', 'y'), kind='axis'))
