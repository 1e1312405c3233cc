import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import cpvt
from vit_jax.models.cpvt import CPVT, PositionedBlock
from vit_jax.models.vit import ViT

SMALL = dict(patch_size=4, width=8, depth=3, mlp_dim=16, num_heads=2)
IMAGE = jax.random.normal(jax.random.key(3), (2, 12, 20, 3))


def draw(**fields):
  """A small model and random parameters."""
  model, rng = CPVT(**SMALL | fields), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), IMAGE)['params']
  value = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(value, params)


def apply(model, params, image=IMAGE):
  return jax.jit(model.apply)({'params': params}, image)


@pytest.mark.parametrize('pool', ['token', 'gap'])
def test_without_positions_it_is_a_vit(pool):
  model, params = draw(pool=pool, num_pegs=0, num_classes=3)
  plain = ViT(**SMALL, pool=pool, pos_embed='none', gelu='erf', num_classes=3)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
    apply(model, params),
    apply(plain, params),
  )


@pytest.mark.parametrize('num_pegs', [1, 2, 3])
def test_positions_follow_the_first_blocks(num_pegs):
  _, params = draw(num_pegs=num_pegs)
  followed = ['peg' in params[f'block_{i}'] for i in range(3)]
  assert followed == [i < num_pegs for i in range(3)]


@pytest.mark.parametrize('tokens', [15, 16])
def test_a_class_token_has_no_position(tokens):
  block = PositionedBlock(num_heads=2, mlp_dim=16, grid=(3, 5))
  x = jax.random.normal(jax.random.key(2), (2, tokens, 8))
  shapes = jax.eval_shape(block.init, jax.random.key(0), x)['params']
  params = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), shapes)
  moved = jax.tree.map(jnp.ones_like, params['peg'])
  before = block.apply({'params': params}, x)
  after = block.apply({'params': params | {'peg': moved}}, x)
  difference = np.abs(after - before).max((0, 2))
  assert difference[-15:].min() > 1e-3
  assert not difference[:-15].any()


@pytest.mark.parametrize(('num_pegs', 'matters'), [(0, False), (1, True)])
def test_the_order_of_the_patches_matters_by_their_positions(num_pegs, matters):
  model, params = draw(num_pegs=num_pegs)
  flipped = jnp.concatenate([IMAGE[:, 4:], IMAGE[:, :4]], axis=1)
  difference = (
    apply(model, params, flipped).pooled - apply(model, params).pooled
  )
  assert bool(np.abs(difference).max() > 1e-3) == matters


def test_any_image_fits_any_parameters():
  model, params = draw(num_classes=3)
  for size in [(4, 4), (7, 33), (64, 40)]:
    image = jnp.ones((1, *size, 3))
    run = functools.partial(model.apply, {'params': params})
    (shape,) = [x.shape for x in jax.eval_shape(run, image).pyramid]
    assert shape == (1, size[0] // 4, size[1] // 4, 8)


def test_the_average_is_taken_over_the_normed_patches():
  model, params = draw(pool='gap')
  output = apply(model, params)
  np.testing.assert_allclose(
    output.pooled, output.pyramid[0].mean((1, 2)), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'pool': 'map'}, "Unknown pool: 'map'.*Known: token, gap"),
    ({'num_pegs': 4}, 'num_pegs=4 must lie between 0 and depth=3'),
    ({'num_pegs': -1}, 'num_pegs=-1 must lie between'),
    ({'patch_size': 16}, '12x20 is smaller than a patch of 16x16'),
  ],
)
def test_a_field_without_a_meaning_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    draw(**fields)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'L/16'. Did you mean"):
    cpvt.variant('L/16')
