"""What the pictures show, as arrays."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tools.untrained import CLASSES, MIXER, SWIN, VIT, noise, untrained
from vit_jax import checkpoint, data, experiment, models
from vit_jax.layers.window import pairwise
from vit_jax.ops import losses
from vit_jax.step import make_init, make_step
from vit_jax.tools.pictures import (
  attention,
  attention_maps,
  batches,
  distance,
  filters,
  landscape,
  positions,
)
from vit_jax.types import Output

SIZE = (16, 16)


def layer(weights, *, grid=(2, 2), name='block_0/attn'):
  """One window of patches, after a class token if there is one more."""
  at, grid = attention.rows(weights.shape[-1], size=SIZE)
  return attention.Layer(name, weights[None], at, at, grid)


def random_weights(seed, *, heads=2, n=5):
  weights = np.random.default_rng(seed).random((heads, n, n))
  return weights / weights.sum(-1, keepdims=True)


def test_a_map_shows_the_row_of_the_token_that_asks():
  weights = random_weights(0)
  maps, at = attention_maps.look(layer(weights), size=SIZE)
  assert at is None  # the class token
  np.testing.assert_allclose(maps, 5 * weights[:, 0, 1:].reshape(2, 2, 2))
  maps, at = attention_maps.look(layer(weights), size=SIZE, query=(1.0, 15.0))
  assert at == (4, 12)
  np.testing.assert_allclose(maps, 5 * weights[:, 2, 1:].reshape(2, 2, 2))


def test_without_a_class_token_the_middle_asks():
  maps, at = attention_maps.look(layer(random_weights(0, n=9)), size=SIZE)
  assert at == (8, 8) and maps.shape == (2, 3, 3)


def test_a_map_of_a_window_leaves_out_what_is_outside():
  size = (24, 24)
  (found, _) = attention.layers(
    untrained('swin', size=size, **SWIN), noise(size)
  )
  maps, at = attention_maps.look(found, size=size, query=(23.0, 23.0))
  assert at == (22, 22) and maps.shape == (2, 6, 6)
  assert not np.isnan(maps[:, 3:, 3:]).any()
  assert np.isnan(maps[:, :3]).all() and np.isnan(maps[:, :, :3]).all()
  np.testing.assert_allclose(np.nanmean(maps, axis=(1, 2)), 1, rtol=1e-5)


def test_rollout_is_the_product_of_the_layers_with_their_residuals():
  a, b = random_weights(0), random_weights(1)
  mixed = [(x.mean(0) + np.eye(5)) / 2 for x in (a, b)]
  flow = mixed[1] @ mixed[0]  # the first layer acts first
  actual = attention_maps.rollout([layer(a), layer(b)])
  np.testing.assert_allclose(actual, 5 * flow[0, 1:].reshape(2, 2))


def test_rollout_without_a_class_token_reads_the_mean_of_all():
  a = random_weights(0, n=4)
  expected = ((a.mean(0) + np.eye(4)) / 2).mean(0)
  actual = attention_maps.rollout([layer(a)])
  np.testing.assert_allclose(actual, 4 * expected.reshape(2, 2))


def test_rollout_ends_with_what_a_pooling_query_gathers():
  a, pool = random_weights(0, n=4), np.array([[[0.7, 0.1, 0.2, 0.0]]])
  last = attention.Layer(
    *('pool/attn', pool[None], np.full((1, 1, 2), np.nan)),
    *(layer(a).keys, (2, 2)),
  )
  expected = pool[0, 0] @ ((a.mean(0) + np.eye(4)) / 2)
  actual = attention_maps.rollout([layer(a), last])
  np.testing.assert_allclose(actual, 4 * expected.reshape(2, 2))


def test_rollout_through_windows_is_an_error():
  size = (24, 24)
  found = attention.layers(untrained('swin', size=size, **SWIN), noise(size))
  with pytest.raises(ValueError, match='windows, or maps of several sizes'):
    attention_maps.rollout(found)


def test_attention_to_oneself_reaches_nowhere_and_to_all_the_mean_distance():
  heads = np.stack([np.eye(9), np.full((9, 9), 1 / 9)])
  found = distance.mean_distance(layer(heads))
  at = attention.centres((3, 3), size=SIZE).reshape(-1, 2)
  mean = np.mean([[np.hypot(*(a - b)) for a in at] for b in at])
  np.testing.assert_allclose(found, [0, mean])


def test_a_class_token_has_no_distance():
  weights = np.zeros((1, 5, 5))
  weights[0, 0, 4] = 1  # its own attention does not count,
  weights[0, 1:, 0] = 0.5  # nor what goes to it.
  weights[0, [1, 2, 3, 4], [2, 1, 4, 3]] = 0.5
  assert distance.mean_distance(layer(weights)) == pytest.approx(8)
  pool = attention.Layer(
    *('pool/attn', np.full((1, 2, 1, 4), 0.25), np.full((1, 1, 2), np.nan)),
    *(attention.centres((2, 2), size=SIZE).reshape(1, 4, 2), (2, 2)),
  )
  assert np.isnan(distance.mean_distance(pool)).all()
  with pytest.raises(ValueError, match='no distance'):
    distance.draw([[pool]], size=SIZE)


def test_two_places_of_a_square_are_half_a_side_apart_on_average():
  # (2 + sqrt(2) + 5 asinh(1)) / 15 of the side.
  assert distance.uniform_distance((100, 100)) == pytest.approx(52.14, rel=2e-3)


def test_biases_by_difference_are_the_table_that_they_come_from():
  table = np.random.default_rng(0).normal(size=(3, 5, 4))
  bias = pairwise(jnp.asarray(table), window=(2, 3))[None]
  found = positions.by_difference(np.asarray(bias), (2, 3))
  np.testing.assert_allclose(found, table, rtol=1e-6)


@pytest.mark.parametrize('name', ['swin', 'swin_v2'])
def test_the_biases_of_each_layer_of_swin_are_found(name):
  trained = untrained(name, size=(24, 24), **SWIN)
  found = positions.tables(trained)
  assert [x.name for x in found] == ['stage_0/block_0', 'stage_0/block_1']
  assert {x.bias.shape for x in found} == {(5, 5, 2)}
  if name == 'swin':
    for i, x in enumerate(found):
      block = trained.params['stage_0'][f'block_{i}']
      expected = block['position_bias']['table']
      np.testing.assert_allclose(x.bias, expected, rtol=1e-6)


def test_similar_positions_are_compared_by_their_angle():
  table = np.array([[[1.0, 0], [2, 0]], [[0, 3], [-1, 0]]])
  expected = [[[1, 1], [0, -1]], [[0, 0], [1, 0]]]
  found = positions.similarity(table)
  np.testing.assert_allclose(found[0, 0], expected[0], atol=1e-12)
  np.testing.assert_allclose(found[1, 0], expected[1], atol=1e-12)


@pytest.mark.parametrize('pos_embed', ['learned', 'sincos2d'])
def test_position_embeddings_are_those_of_the_patches(pos_embed):
  trained = untrained('vit', size=(16, 24), pos_embed=pos_embed, **VIT)
  (table,) = positions.embeddings(trained).values()
  assert table.shape == (2, 3, 16)
  if pos_embed == 'learned':
    expected = trained.params['pos_embed'][0, 1:]
    np.testing.assert_array_equal(table.reshape(6, 16), expected)


def test_a_model_without_positions_says_which_have_them():
  with pytest.raises(ValueError, match=r'mlp_mixer adds no positions .* vit'):
    positions.draw(untrained('mlp_mixer', **MIXER))


def test_components_of_filters_are_the_patterns_they_are_made_of():
  patterns = np.linalg.qr(np.random.default_rng(0).normal(size=(48, 2)))[0].T
  # Shares of variance of 9 and 1 in 10, about a mean that is none of them.
  parts = np.array([[3, 1], [3, -1], [-3, 1], [-3, -1]]) @ patterns
  kernel = (parts + 5).T.reshape(4, 4, 3, 4)
  found, share = filters.components(kernel, most=2)
  np.testing.assert_allclose(share, [0.9, 0.1])
  cosine = np.abs(found.reshape(2, -1) @ patterns.T)
  np.testing.assert_allclose(cosine, np.eye(2), atol=1e-9)


def test_the_first_layer_is_that_which_reads_the_pixels():
  first = filters.first_layer(untrained('vit', **VIT))
  assert first.name == 'patch_embed/proj' and first.cuts
  assert first.kernel.shape == (8, 8, 3, 16)
  stem = untrained(
    *('resnet',),
    **dict(stem_width=4, widths=(8,), depths=(1,), bottleneck=False),
  )
  first = filters.first_layer(stem)
  assert not first.cuts and first.kernel.shape[2:] == (3, 4)


def test_a_direction_is_as_long_as_the_model_filter_by_filter():
  params = untrained('vit', **VIT).params
  found = landscape.direction(params, seed=0)
  other = landscape.direction(params, seed=1)
  for path, axes in (
    (('block_0', 'attn', 'qkv'), 0),
    (('block_0', 'attn', 'out'), (0, 1)),
    (('block_1', 'mlp', 'fc1'), 0),
    (('patch_embed', 'proj'), (0, 1, 2)),
  ):
    x, d, e = params, found, other
    for key in (*path, 'kernel'):
      x, d, e = x[key], d[key], e[key]
    length = lambda a, axes=axes: np.sqrt((np.asarray(a) ** 2).sum(axes))
    np.testing.assert_allclose(length(d), length(x), rtol=1e-5)
    assert not np.allclose(d, x) and not np.allclose(d, e)
  for x in (found['pos_embed'], found['norm'], found['head']['bias']):
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(x))


def test_the_middle_of_the_landscape_is_the_loss_of_the_model():
  trained = untrained('vit', **VIT)
  image = np.stack([noise(), 255 - noise(), noise()[::-1]])
  label, ones = np.array([0, 1, 2]), np.ones(3, np.float32)
  whole = [{'image': image, 'label': label, 'mask': ones}]
  parts = [{k: x[i] for k, x in whole[0].items()} for i in ([0, 1], [2])]
  steps, loss = landscape.surface(trained, parts, reach=0.5, points=3, seed=0)
  assert steps.tolist() == [-0.5, 0, 0.5] and loss.shape == (3, 3)

  def mean(params):
    batch = jax.tree.map(jnp.asarray, whole[0])
    logits = trained.predict(params, trained.state, batch).logits
    each = losses.softmax_cross_entropy(logits, jax.nn.one_hot(label, 3))
    return float(each.mean())

  assert loss[1, 1] == pytest.approx(mean(trained.params), rel=1e-5)
  first, second = (landscape.direction(trained.params, seed=i) for i in (0, 1))
  # Rows are steps along the second direction.
  moved = jax.tree.map(
    lambda x, a, b: x - 0.5 * a + 0.5 * b, trained.params, first, second
  )
  assert loss[2, 0] == pytest.approx(mean(moved), rel=1e-4)


class Spy(nn.Module):
  """Tells what it is given, and is soon compiled."""

  tell: Callable[[np.ndarray], None]
  num_classes: int

  @nn.compact
  def __call__(self, image, *, train=False):
    jax.debug.callback(self.tell, image)
    pooled = image.mean((1, 2))
    return Output(
      nn.Dense(self.num_classes, name='head')(pooled), pooled, (image,)
    )


def test_a_batch_is_what_a_step_of_the_training_gives_the_model(
  small_run, monkeypatch
):
  given = []
  spy = models.Architecture(Spy, dict, ())
  monkeypatch.setitem(models.MODELS, 'spy', spy)
  run = checkpoint.read_run(small_run)
  config = run['config'] | {
    'model': {'name': 'spy', 'tell': lambda x: given.append(np.asarray(x))},
    'objective': {'name': 'classification', 'mixup': 0.5, 'cutmix': 0.5},
    'augment': ({'name': 'flip'},),
    'evals': {},
  }
  trained = untrained('vit', **VIT)._replace(run={**run, 'config': config})
  seen = batches.load(trained, step=3)
  built = experiment.build(config)
  batch = next(
    iter(
      data.pipeline(
        built.source,
        data.build_transforms(config['transforms']),
        batch_size=config['batch_size'],
        seed=config['seed'],
        start=2,
        steps=1,
        num_threads=0,
      )
    )
  )
  state = jax.jit(make_init(built))()._replace(step=jnp.int32(2))
  jax.block_until_ready(jax.jit(make_step(built))(state, batch))
  jax.effects_barrier()
  np.testing.assert_allclose(seen.image, given[-1], atol=1e-6)
  np.testing.assert_allclose(seen.labels.sum(-1), 1, rtol=1e-5)
  own = seen.labels[np.arange(8), batch['label']]
  assert np.all(own > 0) and np.any(own < 1)


def test_a_caption_gives_the_shares_of_mixed_classes():
  names = CLASSES
  say = lambda *row: batches.caption(np.array(row, float), class_names=names)
  assert say(0, 1, 0) == 'cow'
  assert say(0.25, 0, 0.75) == 'dog: 75%\ncat: 25%'
  assert say(0, 0, 0) == 'no class'


def test_a_published_model_tells_nothing_of_its_batches():
  with pytest.raises(ValueError, match=r'untrained vit says nothing .*workdir'):
    batches.load(untrained('vit', **VIT), step=1)
  with pytest.raises(ValueError, match='give --data='):
    landscape.read(untrained('vit', **VIT), address='', number=4)
