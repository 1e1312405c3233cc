import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.models.vit import HYBRIDS, SIZES, Block, ViT, variant

SMALL = dict(patch_size=4, width=8, depth=1, mlp_dim=16, num_heads=2)
IMAGE = jnp.ones((2, 8, 12, 3))

# As in google-research/vision_transformer, at 224 pixels and 1000 classes.
PARAMS = {
  'Ti/16': 5_717_416,
  'S/16': 22_050_664,
  'S/32': 22_878_952,
  'B/8': 86_576_872,
  'B/16': 86_567_656,
  'B/32': 88_224_232,
  'L/16': 304_326_632,
  'L/32': 306_535_400,
  'H/14': 632_045_800,
  'R+Ti/16': 6_337_704,
  'R26+S/32': 36_431_912,
  'R26+B/32': 101_383_976,
  'R50+B/16': 98_659_112,
  'R50+L/32': 328_994_856,
}
PARAMS_GAP = {
  'S/16': 22_049_896,
  'S/32': 22_878_184,
  'B/16': 86_566_120,
  'B/32': 88_222_696,
}


def count(size=224, **fields):
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  model = models.build('vit', num_classes=1000, scan=True, **fields)
  params = jax.eval_shape(model.init, jax.random.key(0), image)
  return sum(x.size for x in jax.tree.leaves(params))


def init(image=IMAGE, **fields):
  """A small model and parameters as they start."""
  model = ViT(**SMALL | fields)
  return model, jax.jit(model.init)(jax.random.key(0), image)['params']


def draw(image=IMAGE, **fields):
  """A small model and random parameters."""
  model, rng = ViT(**SMALL | fields), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  value = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(value, params)


def apply(model, params, image=IMAGE, **kwargs):
  predict = functools.partial(model.apply, **kwargs)
  return jax.jit(predict)({'params': params}, image)


@pytest.mark.parametrize('name', PARAMS)
def test_parameters_are_as_many_as_published(name):
  assert count(variant=name) == PARAMS[name]


@pytest.mark.parametrize('name', PARAMS_GAP)
def test_parameters_without_class_token_are_as_many_as_published(name):
  assert count(variant=name, pool='gap') == PARAMS_GAP[name]


@pytest.mark.parametrize(
  ('name', 'millions'),
  [('s/28', 5.615), ('s/16', 5.244), ('B/28', 87.68), ('So400m/14', 413.6)]
  + [('L/14', 304.2), ('g/14', 1012.6), ('G/14', 1844.4), ('e/14', 3807.2)],
)
def test_parameters_round_to_the_published_millions(name, millions):
  digits = len(str(millions).partition('.')[2])
  assert round(count(variant=name) / 1e6, digits) == millions


def test_the_hybrid_r_ti_16_has_49_tokens():
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  model = models.build('vit', 'R+Ti/16')
  output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
  assert output.pyramid[0].shape == (1, 7, 7, 192)


def test_any_patch_size_goes_with_any_size():
  assert variant('g/7') == SIZES['g'] | {'patch_size': 7}
  assert variant('R50+L/32') == HYBRIDS['R50+L/32']


def test_the_parameters_start_as_in_the_paper():
  _, params = init(num_classes=3, head_bias=-10.0, representation_size=4)
  assert not params['head']['kernel'].any()
  np.testing.assert_array_equal(params['head']['bias'], np.full(3, -10.0))
  assert not params['cls'].any()
  assert params['pos_embed'].shape == (1, 7, 8)
  assert 0.015 < params['pos_embed'].std() < 0.025
  assert set(params) == {
    *('patch_embed', 'cls', 'pos_embed', 'block_0', 'norm', 'pre_logits'),
    'head',
  }
  assert set(params['block_0']) == {'norm1', 'attn', 'norm2', 'mlp'}


def test_scanned_blocks_start_differently():
  _, params = init(scan=True, depth=2)
  kernel = params['blocks']['mlp']['fc1']['kernel']
  assert kernel.shape == (2, 8, 16)
  assert jnp.abs(kernel[0] - kernel[1]).max() > 0.1


def test_the_class_token_has_a_position_if_positions_are_learned():
  model, params = draw()
  shift = jnp.arange(8.0)  # not constant: norms would take it away
  moved = params | {'pos_embed': params['pos_embed'].at[:, 0].add(shift)}
  before = apply(model, params).pooled
  after = apply(model, moved).pooled
  assert jnp.abs(after - before).max() > 1e-2


def test_the_class_token_stands_nowhere_if_positions_are_fixed():
  model, params = draw(depth=0, pos_embed='none')
  without = apply(model, params)
  with_table = apply(model.clone(pos_embed='sincos2d'), params)
  np.testing.assert_array_equal(with_table.pooled, without.pooled)
  moved = np.abs(with_table.pyramid[0] - without.pyramid[0]).max(-1)
  assert moved.min() > 0.01


def test_drop_path_drops_both_branches_of_a_block():
  block = Block(num_heads=2, mlp_dim=16)
  tokens = jax.random.normal(jax.random.key(2), (4, 3, 8))
  params = jax.jit(block.init)(jax.random.key(0), tokens)
  rngs = {'dropout': jax.random.key(1)}
  rate = 1 - 1e-6
  out = block.apply(params, tokens, drop_path=rate, train=True, rngs=rngs)
  np.testing.assert_array_equal(out, tokens)


def test_the_average_is_taken_over_the_normed_patches():
  model, params = draw(pool='gap')
  output = apply(model, params)
  np.testing.assert_allclose(
    output.pooled, output.pyramid[0].mean((1, 2)), rtol=1e-5, atol=1e-6
  )


def test_the_pyramid_holds_the_patches_at_their_places():
  # Without positions, the two equal halves of an image give equal maps; cls
  # must not shift them.
  half = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
  image = jnp.concatenate([half, half], axis=2)
  model, params = draw(image, pos_embed='none')
  (feature_map,) = apply(model, params, image).pyramid
  assert feature_map.shape == (1, 2, 4, 8)
  np.testing.assert_allclose(
    feature_map[:, :, :2], feature_map[:, :, 2:], rtol=1e-4, atol=1e-5
  )


def test_without_positions_the_order_of_the_patches_does_not_matter():
  image = jax.random.normal(jax.random.key(0), (1, 8, 12, 3))
  flipped = jnp.concatenate([image[:, 4:], image[:, :4]], axis=1)
  model, params = draw(image, pos_embed='none')
  np.testing.assert_allclose(
    apply(model, params, flipped).pooled,
    apply(model, params, image).pooled,
    rtol=1e-4,
    atol=1e-5,
  )


def test_a_layer_scale_of_zero_leaves_the_tokens_alone():
  deep, params = draw(layer_scale=0.0, pool='gap')
  for name in ('scale1', 'scale2'):
    params['block_0'][name]['scale'] *= 0
  np.testing.assert_allclose(
    apply(deep, params).pooled,
    apply(deep.clone(depth=0), params).pooled,
    rtol=1e-5,
    atol=1e-6,
  )


def test_dropout_acts_in_training_only():
  model, params = draw(dropout=0.5, pool='gap')
  quiet = apply(model, params).pooled
  np.testing.assert_allclose(quiet[0], quiet[1], rtol=1e-5, atol=1e-6)
  rngs = {'dropout': jax.random.key(0)}
  noisy = apply(model, params, train=True, rngs=rngs).pooled
  assert jnp.abs(noisy[0] - noisy[1]).max() > 0.01


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'pool': 'tok'}, "Unknown pool: 'tok'. Did you mean 'token'"),
    ({'pos_embed': 'learn'}, "Unknown pos_embed: 'learn'.*'learned'"),
    ({'drop_path': 1.5}, r'drop_path=1.5 must lie in \[0, 1\)'),
    ({'num_heads': 3}, 'num_heads=3 does not divide width=8'),
    ({'patch_size': 16}, '8x12 is smaller than a patch of 16x16'),
  ],
)
def test_a_field_without_a_meaning_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    init(**fields)
