import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import tnt
from vit_jax.models.tnt import TNT, Block, Transformer

SMALL = dict(
  patch_size=8, word_width=4, word_heads=2, width=8, num_heads=2, depth=1
)
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


def draw(image=IMAGE, **fields):
  """A small model and random parameters."""
  model, rng = TNT(**SMALL | fields), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  value = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(value, params)


def apply(model, params, image=IMAGE):
  return jax.jit(model.apply)({'params': params}, image)


def words(params, image, *, depth=0):
  """The words of each sentence before the blocks, or after all of them."""
  model = TNT(**SMALL | dict(depth=depth))
  said = functools.partial(
    model.apply, capture_intermediates=True, mutable=['intermediates']
  )
  _, captured = jax.jit(said)({'params': params}, image)
  found = captured['intermediates']
  if depth == 0:
    return found['word_embed']['__call__'][0]
  return found[f'block_{depth - 1}']['inner']['__call__'][0]


def test_the_parameters_start_as_in_the_reference():
  block = Block(word_heads=2, num_heads=2)
  tokens = jnp.zeros((6, 4, 16)), jnp.zeros((1, 7, 32))
  params = jax.jit(block.init)(jax.random.key(0), tokens)['params']
  assert set(params) == {'inner', 'said', 'outer'}
  for name, array in {
    'attention of words': params['inner']['attn']['qkv']['kernel'],
    'MLP of sentences': params['outer']['mlp']['fc1']['kernel'],
    'from words to sentences': params['said']['proj']['kernel'],
  }.items():
    np.testing.assert_allclose(array.std(), 0.02, rtol=0.1, err_msg=name)
  assert params['outer']['attn']['qkv'].keys() == {'kernel'}
  assert params['said']['proj'].keys() == {'kernel'}
  assert not params['inner']['mlp']['fc1']['bias'].any()
  _, params = draw()
  assert params['said']['proj'].keys() == {'kernel', 'bias'}


@pytest.mark.parametrize('depth', [0, 1])
def test_words_see_their_sentence_and_no_other(depth):
  _, params = draw(depth=depth)
  # The second of 2 x 3 sentences; what it borders on stays the same.
  changed = IMAGE.at[:, :8, 8:16].multiply(-1.0)
  before, after = (words(params, x, depth=depth) for x in (IMAGE, changed))
  moved = np.abs(before - after).reshape(2, 6, -1).max((0, 2))
  np.testing.assert_array_equal(moved > 1e-6, np.arange(6) == 1)


def test_a_word_sees_pixels_of_those_above_and_to_its_left():
  _, params = draw(depth=0)
  # The last pixel of a sentence, which belongs to the last of its 2 x 2 words.
  changed = IMAGE.at[:, 7, 7].multiply(-1.0)
  before, after = words(params, IMAGE), words(params, changed)
  moved = np.abs(before - after)[0].max(-1)
  np.testing.assert_array_equal(moved > 1e-6, [[False, False], [False, True]])
  # And the last of its first word.
  changed = IMAGE.at[:, 3, 3].multiply(-1.0)
  assert (np.abs(before - words(params, changed))[0].max(-1) > 1e-6).all()


def test_what_words_say_reaches_their_sentence_but_not_the_class_token():
  model, params = draw(depth=1)
  # Nobody looks at anybody in the outer transformer, and words come in alone.
  for part in ('attn', 'mlp'):
    params['block_0']['outer'][part] = jax.tree.map(
      jnp.zeros_like, params['block_0']['outer'][part]
    )
  params['said'] = jax.tree.map(jnp.zeros_like, params['said'])
  changed = IMAGE.at[:, :8, 8:16].multiply(-1.0)
  before, after = apply(model, params), apply(model, params, changed)
  np.testing.assert_array_equal(before.pooled, after.pooled)
  moved = np.abs(before.pyramid[0] - after.pyramid[0]).max((0, 3))
  np.testing.assert_array_equal(
    moved > 1e-6, [[False, True, False], [False, False, False]]
  )


def test_norms_have_the_epsilon_of_the_reference():
  block = Transformer(num_heads=2)
  x = 1e-3 * jax.random.normal(jax.random.key(1), (1, 3, 4))
  params = jax.eval_shape(block.init, jax.random.key(0), x)['params']
  params = jax.tree.map(lambda p: jnp.zeros(p.shape), params)
  # All that is left is gelu(100 + norm2(x)) = 100 + norm2(x).
  params['norm2']['scale'] = jnp.ones(4)
  params['mlp']['fc1']['kernel'] = jnp.eye(4, 16)
  params['mlp']['fc1']['bias'] = jnp.full(16, 100.0)
  params['mlp']['fc2']['kernel'] = jnp.eye(16, 4)
  y = jax.jit(block.apply)({'params': params}, x) - x - 100
  z = np.asarray(x) - np.asarray(x).mean(-1, keepdims=True)
  expected = z / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(y, expected, atol=1e-4)


def test_what_does_not_fill_a_patch_is_left_out():
  model, params = draw(num_classes=3)
  image = jax.random.normal(jax.random.key(4), (1, 23, 31, 3))
  cut, whole = (apply(model, params, x) for x in (image, image[:, :16, :24]))
  jax.tree.map(np.testing.assert_array_equal, cut, whole)


def test_drop_path_rises_over_the_blocks_and_drops_both_transformers(
  monkeypatch,
):
  rates = []

  def spy(self, x, *, rate, train):
    rates.append((x.shape, rate))
    return x

  monkeypatch.setattr(tnt.DropPath, '__call__', spy)
  model = TNT(**SMALL | dict(depth=3, drop_path=0.2))
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
  jax.eval_shape(functools.partial(model.init, train=True), rngs, IMAGE)
  of_words, of_sentences = (12, 4, 4), (2, 7, 8)
  np.testing.assert_allclose(
    [rate for _, rate in rates], np.repeat([0, 0.1, 0.2], 4), atol=1e-7
  )
  shapes = [of_words, of_words, of_sentences, of_sentences]
  assert [shape for shape, _ in rates] == 3 * shapes


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'patch_size': 32}, '16x24 is smaller than a patch of 32x32: enlarge'),
    ({'num_heads': 3}, 'num_heads=3 does not divide width=8'),
    ({'word_heads': 3}, 'num_heads=3 does not divide width=4'),
  ],
)
def test_a_field_without_a_meaning_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    draw(**fields)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'L'.*Ti, S, B"):
    tnt.variant('L')
