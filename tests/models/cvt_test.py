import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import layers
from vit_jax.models import cvt
from vit_jax.models.cvt import Block, ConvAttention, CvT
from vit_jax.ops.kernels import dot_product_attention

SMALL = dict(widths=(8, 16), depths=(1, 2), num_heads=(2, 4))
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))
SIZE = (5, 4)  # of a map, behind a class token


@functools.cache
def attention():
  """A layer, tokens, and random variables."""
  layer = ConvAttention(num_heads=2, size=SIZE)
  tokens = jax.random.normal(jax.random.key(0), (1, 21, 8))
  init = functools.partial(layer.init, train=False)
  variables = jax.jit(init)(jax.random.key(1), tokens)
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), jnp.float32)
  return (
    layer,
    tokens,
    variables | {'params': jax.tree.map(draw, variables['params'])},
  )


def attend(variables, tokens):
  layer, _, _ = attention()
  return jax.jit(functools.partial(layer.apply, train=False))(variables, tokens)


def test_the_class_token_passes_the_convolutions_by():
  _, tokens, variables = attention()
  before = attend(variables, tokens)
  params = variables['params']
  # Only the query of a token depends on this.
  conv = jax.tree.map(lambda x: -x, params['q_conv'])
  after = attend(variables | {'params': params | {'q_conv': conv}}, tokens)
  change = np.abs(after - before).max((0, 2))
  assert change[0] < 1e-6 and change[1:].min() > 1e-3


def test_what_is_compared_is_that_of_the_neighbours():
  _, tokens, variables = attention()
  # All keys and values of the map are the same, not those of the class token.
  params = dict(variables['params'])
  zero = functools.partial(jax.tree.map, jnp.zeros_like)
  params |= {'k_conv': zero(params['k_conv']), 'v_conv': zero(params['v_conv'])}
  moved = tokens.at[0, 1 + 4 * 2 + 1].add(1.0)  # row 2, column 1
  before, after = (
    attend(variables | {'params': params}, x) for x in (tokens, moved)
  )
  change = np.abs(after - before).max((0, 2))[1:].reshape(SIZE)
  expected = np.zeros(SIZE, bool)
  expected[1:4, :3] = True
  np.testing.assert_array_equal(change > 1e-5, expected)


def test_keys_are_a_quarter_and_products_scaled_by_the_width(monkeypatch):
  layer, tokens, variables = attention()
  seen = []

  def spy(query, key, value, *, scale, **options):
    seen.append((query.shape, key.shape, value.shape, scale))
    return dot_product_attention(query, key, value, scale=scale, **options)

  monkeypatch.setattr(layers.attention, 'dot_product_attention', spy)
  layer.apply(variables, tokens, train=False)
  few = (1, 1 + 3 * 2, 2, 4)
  assert seen == [((1, 21, 2, 4), few, few, 8**-0.5)]


def test_drop_path_rises_in_the_last_stage_alone(monkeypatch):
  rates = []

  def spy(make_block, tokens, *, drop_path, **_):
    rates.append(drop_path)
    return tokens

  monkeypatch.setattr(cvt, 'apply_blocks', spy)
  model = CvT(**SMALL | dict(drop_path=0.4))
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  assert rates == [0.0, 0.4]


def test_the_gelu_is_the_quick_one_unless_another_is_asked_for():
  assert CvT(**SMALL).gelu == 'quick'
  x = jax.random.normal(jax.random.key(0), (1, 20, 8))
  blocks = {
    gelu: Block(SIZE, num_heads=2, gelu=gelu) for gelu in ('quick', 'erf')
  }
  variables = jax.jit(blocks['erf'].init)(jax.random.key(0), x)
  out = {name: jax.jit(b.apply)(variables, x) for name, b in blocks.items()}
  assert np.abs(out['erf'] - out['quick']).max() > 1e-5


def test_the_parameters_start_as_in_the_reference():
  fields = dict(widths=(32,), depths=(1,), num_heads=(2,), num_classes=50)
  params = jax.jit(CvT(**fields).init)(jax.random.key(0), IMAGE)['params']
  stage = params['stage_0']
  block = stage['block_0']
  for array, deviation in (
    (stage['patch_embed']['kernel'], (1 / (3 * 49 * 3)) ** 0.5),
    (block['attn']['k_conv']['conv']['kernel'], (1 / (3 * 9)) ** 0.5),
    (block['attn']['k']['kernel'], 0.02),
    (block['attn']['out']['kernel'], 0.02),
    (block['mlp']['fc1']['kernel'], 0.02),
    (params['head']['kernel'], 0.02),
  ):
    np.testing.assert_allclose(array.std(), deviation, rtol=0.1)


def test_the_features_are_the_normed_class_token():
  model = CvT(**SMALL)
  variables = jax.jit(model.init)(jax.random.key(0), IMAGE)
  params = variables['params']
  assert 'cls' in params['stage_1'] and 'cls' not in params['stage_0']
  pooled = jax.jit(model.apply)(variables, IMAGE).pooled
  np.testing.assert_allclose(pooled.mean(-1), 0, atol=1e-4)
  np.testing.assert_allclose(pooled.std(-1), 1, rtol=0.03)


@pytest.mark.parametrize(
  ('size', 'fine', 'coarse'),
  [
    ((3, 3), (1, 1), (1, 1)),
    ((5, 35), (1, 9), (1, 5)),
    ((16, 7), (4, 2), (2, 1)),
  ],
)
def test_any_image_fits_any_parameters(size, fine, coarse):
  model = CvT(**SMALL)
  fresh = lambda image: jax.eval_shape(model.init, jax.random.key(0), image)
  image = jnp.ones((1, *size, 3))
  assert fresh(image) == fresh(IMAGE)
  pyramid = jax.eval_shape(model.apply, fresh(image), image).pyramid
  assert [x.shape for x in pyramid] == [(1, *fine, 8), (1, *coarse, 16)]


@pytest.mark.parametrize(
  ('fields', 'image', 'message'),
  [
    ({}, jnp.ones((1, 2, 40, 3)), '2x40 has no patch: enlarge'),
    ({'depths': (1,)}, IMAGE, r'depths=\(1,\).* must all have a number'),
    ({'gelu': 'fast'}, IMAGE, "gelu: 'fast'.*quick"),
  ],
)
def test_what_has_no_meaning_is_refused(fields, image, message):
  model = CvT(**SMALL | fields)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), image)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: '24'.*Known: 13, 21, W24"):
    cvt.variant('24')
