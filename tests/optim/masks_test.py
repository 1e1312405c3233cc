import jax
import numpy as np
import pytest

from vit_jax.optim import masks

PARAMS = {
  'block_0': {'fc': {'kernel': np.ones((2, 2)), 'bias': np.ones(2)}},
  'head': {'kernel': np.ones((2, 3))},
}


def test_the_first_regex_that_matches_a_whole_name_wins():
  table = (('head/.*', 3.0), ('.*/kernel', 1.0), ('.*', 0.0))
  assert masks.match(PARAMS, table=table, what='mults') == {
    'block_0': {'fc': {'kernel': 1.0, 'bias': 0.0}},
    'head': {'kernel': 3.0},
  }


def test_shapes_do_as_well_as_arrays():
  shapes = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, PARAMS))
  table = (('.*', 2.0),)
  assert masks.match(shapes, table=table, what='mults')['head'] == {
    'kernel': 2.0
  }


def test_one_error_lists_idle_regexes_and_missed_parameters():
  table = (('heads/.*', 3.0), ('block_0', 0.0), ('.*/kernel', 1.0))
  with pytest.raises(ValueError) as error:
    masks.match(PARAMS, table=table, what='weight_decay_mults')
  assert str(error.value).splitlines() == [
    'weight_decay_mults does not fit the parameters.',
    'Regexes that match no parameter:',
    '  heads/.*',
    '  block_0',
    'Parameters that no regex matches:',
    '  block_0/fc/bias',
    'All parameters:',
    '  block_0/fc/bias',
    '  block_0/fc/kernel',
    '  head/kernel',
    "A regex matches whole names; end with ('.*', value) for the rest.",
  ]


def test_a_regex_that_only_earlier_ones_shadow_is_no_error():
  table = (('.*', 1.0), ('head/.*', 0.0))
  values = masks.match(PARAMS, table=table, what='mults')
  assert set(jax.tree.leaves(values)) == {1.0}
