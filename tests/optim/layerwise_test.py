import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.optim import layerwise


def unrolled():
  return {
    'patch_embed': {'kernel': jnp.ones((4, 4, 3, 2))},
    'cls': jnp.ones((1, 1, 2)),
    'pos_embed': jnp.ones((1, 5, 2)),
    'block_0': {'mlp': {'kernel': jnp.ones((2, 2))}},
    'block_1': {'mlp': {'kernel': jnp.ones((2, 2))}},
    'norm': {'scale': jnp.ones(2)},
    'head': {'kernel': jnp.ones((2, 3))},
  }


def test_rates_fall_with_the_distance_from_the_head():
  assert layerwise.multipliers(unrolled(), layer_decay=0.5) == {
    'patch_embed': {'kernel': 0.125},
    'cls': 0.125,
    'pos_embed': 0.125,
    'block_0': {'mlp': {'kernel': 0.25}},
    'block_1': {'mlp': {'kernel': 0.5}},
    'norm': {'scale': 1.0},
    'head': {'kernel': 1.0},
  }


def test_scanned_blocks_get_the_rates_of_unrolled_ones():
  params = unrolled()
  del params['block_0'], params['block_1']
  params['blocks'] = {'mlp': {'kernel': jnp.ones((2, 2, 2))}}
  mults = layerwise.multipliers(params, layer_decay=0.5)
  stacked = mults['blocks']['mlp']['kernel']
  assert stacked.shape == (2, 1, 1)
  np.testing.assert_array_equal(stacked.ravel(), [0.25, 0.5])
  assert mults['pos_embed'] == 0.125 and mults['norm']['scale'] == 1.0


def test_blocks_before_the_scanned_ones_count_too():
  params = unrolled() | {'blocks': {'mlp': {'kernel': jnp.ones((3, 2, 2))}}}
  mults = layerwise.multipliers(params, layer_decay=0.5)
  assert mults['block_0']['mlp']['kernel'] == 0.5**5
  assert mults['block_1']['mlp']['kernel'] == 0.5**4
  stacked = mults['blocks']['mlp']['kernel']
  np.testing.assert_array_equal(stacked.ravel(), [0.125, 0.25, 0.5])


def test_blocks_may_lie_deeper_and_be_more_than_ten():
  params = {
    'encoder': {f'block_{i}': {'kernel': jnp.ones(2)} for i in range(12)}
  }
  mults = layerwise.multipliers(params, layer_decay=0.5)['encoder']
  assert mults['block_2']['kernel'] == 0.5**10
  assert mults['block_11']['kernel'] == 0.5


@pytest.mark.parametrize('scan', [False, True])
def test_what_a_hybrid_has_before_its_blocks_is_the_slowest(scan):
  model = models.build('vit', 'R26+S/32', num_classes=10, scan=scan)
  image = jnp.zeros((1, 64, 64, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  mults = layerwise.multipliers(params, layer_decay=0.5)
  for name, tree in mults.items():
    slowest = max(np.max(mult) for mult in jax.tree.leaves(tree)) == 0.5**13
    assert slowest == (name in ('resnet', 'patch_embed', 'cls', 'pos_embed'))


def test_a_decay_out_of_range_is_an_error():
  with pytest.raises(ValueError, match='layer_decay=1.5'):
    layerwise.multipliers(unrolled(), layer_decay=1.5)


@pytest.mark.parametrize(
  'params, found',
  [
    ({'head': {'kernel': jnp.ones(2)}}, 'found 0'),
    (
      {f'stage_{i}': {'block_0': {'kernel': jnp.ones(2)}} for i in (0, 1)},
      r"found 2: \['stage_0', 'stage_1'\]",
    ),
  ],
)
def test_layer_decay_needs_one_stack_of_blocks(params, found):
  with pytest.raises(ValueError, match=found):
    layerwise.multipliers(params, layer_decay=0.5)


def test_per_layer_maps_over_scanned_blocks_only():
  norms = jax.tree_util.tree_map_with_path(
    layerwise.per_layer(jnp.sum),
    {'blocks': {'kernel': jnp.ones((3, 4))}, 'head': jnp.ones((3, 4))},
  )
  np.testing.assert_array_equal(norms['blocks']['kernel'], [4, 4, 4])
  np.testing.assert_array_equal(norms['head'], 12)
