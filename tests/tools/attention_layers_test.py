import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tools.untrained import MIXER, SWIN, VIT, noise, untrained
from vit_jax.layers.attention import DotProduct, MultiHeadAttention
from vit_jax.layers.neighborhood import neighborhood_attention
from vit_jax.tools.pictures import attention


def random(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize('masked', [False, True])
def test_weights_times_values_are_what_the_layer_returns(masked):
  tokens, bias = random(2, 5, 8), random(1, 2, 5, 5, seed=1)
  mask = jnp.tril(jnp.ones((5, 5), bool))[None, None] if masked else None
  layer = MultiHeadAttention(num_heads=2)
  params = layer.init(jax.random.key(0), tokens)
  seen = {}

  def see(next_fun, args, kwargs, context):
    output = next_fun(*args, **kwargs)
    if isinstance(context.module, DotProduct):
      seen['args'], seen['kwargs'] = args, kwargs
    return output

  with nn.intercept_methods(see):
    expected = layer.apply(params, tokens, bias=bias, mask=mask)
  query, key, value = seen['args']
  weights = attention.weights(query, key, **seen['kwargs'])
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
  if masked:
    assert np.all(np.triu(weights, 1) == 0)
  out = params['params']['out']
  mixed = jnp.einsum('bhqn,bnht->bqht', weights, value)
  actual = np.einsum('bqht,htd->bqd', mixed, out['kernel']) + np.array(
    out['bias']
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dilation', [1, 2])
def test_weights_of_neighbours_make_of_values_what_the_layer_does(dilation):
  query, key, value = (random(1, 6, 7, 2, 4, seed=i) for i in range(3))
  table = random(5, 5, 2, seed=3)
  weights = attention.neighborhood_weights(
    query, key, table=table, dilation=dilation
  )
  assert weights.shape == (1, 2, 42, 42)
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
  assert set(np.count_nonzero(weights, axis=-1).ravel()) == {9}
  actual = jnp.einsum('bhqn,bnht->bqht', weights, value.reshape(1, 42, 2, 4))
  expected = neighborhood_attention(
    query, key, value, table=table, dilation=dilation
  )
  np.testing.assert_allclose(
    actual, expected.reshape(actual.shape), rtol=1e-4, atol=1e-5
  )


def test_the_layers_of_a_vit_are_found_with_the_places_of_its_patches():
  trained = untrained('vit', size=(16, 24), **VIT)
  found = attention.layers(trained, noise((16, 24)))
  assert [x.name for x in found] == ['block_0/attn', 'block_1/attn']
  for layer in found:
    assert layer.weights.shape == (1, 2, 7, 7) and layer.grid == (2, 3)
    np.testing.assert_allclose(layer.weights.sum(-1), 1, rtol=1e-5)
    assert np.isnan(layer.queries[0, 0]).all()  # the class token
    np.testing.assert_array_equal(layer.queries[0, 1], [4, 4])
    np.testing.assert_array_equal(layer.queries[0, 6], [12, 20])
  assert not np.allclose(found[0].weights, found[1].weights)


def test_blocks_that_are_computed_twice_in_training_are_seen_as_well():
  plain = untrained('vit', **VIT)
  config = plain.run['config']
  config = {**config, 'model': {**config['model'], 'remat': 'nothing'}}
  again = plain._replace(run={**plain.run, 'config': config})
  for one, other in zip(
    attention.layers(plain, noise()),
    attention.layers(again, noise()),
    strict=True,
  ):
    np.testing.assert_array_equal(one.weights, other.weights)


def test_windows_of_swin_hold_neighbours_and_each_place_once():
  # 5 x 5 patches in windows of 3: filled up to 6 x 6, and shifted by 1.
  size = (20, 20)
  found = attention.layers(untrained('swin', size=size, **SWIN), noise(size))
  every = attention.centres((5, 5), size=size).reshape(-1, 2)
  for layer in found:
    assert layer.weights.shape == (4, 2, 9, 9) and layer.grid == (5, 5)
    there = layer.queries[~np.isnan(layer.queries[..., 0])]
    assert sorted(map(tuple, there)) == sorted(map(tuple, every))
    apart = np.abs(layer.queries[:, :, None] - layer.keys[:, None]).max(-1)
    seen = layer.weights.max(1)
    assert np.nanmax(np.where(seen > 0, apart, 0)) == 2 * 4
  plain, shifted = found
  # Put together at the far ends, those cut off do not see each other.
  assert plain.weights.min() > 0 and (shifted.weights == 0).any()
  assert plain.queries[0, 0].tolist() == [2, 2]
  assert shifted.queries[0, 0].tolist() == [6, 6]


def test_tokens_of_mobilevit_stand_on_a_grid_together():
  _, (h, w) = attention.rows(6, size=(32, 48))
  at, grid = attention._lanes(6, size=(32, 48))
  assert grid == (h, w) == (2, 3) and at.shape == (4, 6, 2)
  every = attention.centres((4, 6), size=(32, 48)).reshape(-1, 2)
  assert sorted(map(tuple, at.reshape(-1, 2))) == sorted(map(tuple, every))
  np.testing.assert_array_equal(np.diff(at[0, :3, 1]), 16)


@pytest.mark.parametrize(
  ('n', 'size', 'before', 'grid'),
  [
    (196, (224, 224), 0, (14, 14)),
    (197, (224, 224), 1, (14, 14)),
    (198, (224, 224), 2, (14, 14)),
    (7, (16, 24), 1, (2, 3)),
  ],
)
def test_rows_of_tokens_are_put_on_a_grid(n, size, before, grid):
  at, found = attention.rows(n, size=size)
  assert found == grid and at.shape == (1, n, 2)
  assert np.isnan(at[0, :before]).all() and not np.isnan(at[0, before:]).any()
  middle = [side / 2 / cells for side, cells in zip(size, grid, strict=True)]
  np.testing.assert_allclose(at[0, before], middle)
  np.testing.assert_allclose(np.array(size) - at[0, -1], middle)


def test_tokens_that_fit_no_grid_are_an_error():
  with pytest.raises(ValueError, match='23 tokens are no grid .* 224x224'):
    attention.rows(23, size=(224, 224))


def test_a_model_without_attention_says_which_have_it():
  with pytest.raises(ValueError, match=r'mlp_mixer has no attention .* swin'):
    attention.layers(untrained('mlp_mixer', **MIXER), noise())


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'number'),
  [
    *(('coatnet', 2), ('cpvt', 3), ('cvt', 3), ('deit', 3), ('dinat', 4)),
    *(('mobile_former', 5), ('mobilevit', 3), ('pvt', 3), ('pvt_v2', 3)),
    *(('swin_v2', 4), ('t2t_vit', 3), ('tnt', 3), ('twins_pcpvt', 3)),
  ],
)
def test_every_model_with_attention_shows_it(name, number):
  from configs import backbones

  side = {'t2t_vit': 48}.get(name, 24)
  trained = untrained(name, size=(side, side), **backbones.BACKBONES[name])
  found = attention.layers(trained, noise((side, side)))
  assert len(found) == number
  for layer in found:
    windows, _, queries, keys = layer.weights.shape
    assert layer.queries.shape == (windows, queries, 2)
    assert layer.keys.shape == (windows, keys, 2)
    np.testing.assert_allclose(layer.weights.sum(-1), 1, rtol=1e-4)
    places = layer.keys[~np.isnan(layer.keys[..., 0])]
    assert 0 < places.min() and places.max() < side


def test_several_images_are_seen_one_by_one():
  trained = untrained('vit', **VIT)
  images = [noise(), 255 - noise()]
  found = attention.on_each(trained, images)
  assert not np.allclose(found[0][1].weights, found[1][1].weights, rtol=1e-2)
  for layers, image in zip(found, images, strict=True):
    alone = attention.layers(trained, image)
    assert [x.name for x in layers] == [x.name for x in alone]
    for x, y in zip(layers, alone, strict=True):
      np.testing.assert_allclose(x.weights, y.weights, rtol=1e-5)
