import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import mobilevit
from vit_jax.models.mobilevit import (
  Block,
  InvertedResidual,
  Mixer,
  MobileViT,
  fold,
  resize,
  unfold,
)

SMALL = dict(
  widths=(8, 8),
  residuals=(1,),
  token_widths=(8,),
  depths=(1,),
  expansion=2,
  feature_width=32,
)
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(h=st.integers(1, 4), w=st.integers(1, 4))
def test_folding_undoes_unfolding(h, w):
  x = np.arange(2 * 2 * h * 2 * w * 3, dtype=np.float32)
  x = jnp.asarray(x.reshape(2, 2 * h, 2 * w, 3))
  tokens = unfold(x)
  assert tokens.shape == (2, 4, h * w, 3)
  np.testing.assert_array_equal(fold(tokens, size=(2 * h, 2 * w)), x)


def test_a_row_of_tokens_has_one_position_of_every_patch():
  x = jax.random.normal(jax.random.key(0), (1, 4, 6, 2))
  tokens = unfold(x)
  # Position 2 is at the bottom left, patch 4 in the middle of the second row.
  np.testing.assert_array_equal(tokens[0, 2, 4], x[0, 3, 2])


def test_attention_stays_with_one_position_of_the_patches():
  block = Block(dropout=0.0)
  tokens = jax.random.normal(jax.random.key(0), (1, 4, 6, 8))
  variables = jax.jit(block.init)(jax.random.key(1), tokens)
  run = jax.jit(block.apply)
  # Of every second component: a norm takes away what all have.
  moved = tokens.at[0, 2, 1, ::2].add(1.0)
  change = np.abs(run(variables, moved) - run(variables, tokens))
  change = change.max((0, 3))
  assert change[2].min() > 0 and not change[[0, 1, 3]].any()


@pytest.mark.parametrize(
  ('width', 'stride', 'added'), [(8, 1, True), (8, 2, False), (4, 1, False)]
)
@pytest.mark.parametrize('size', [(4, 6), (1, 1)])
def test_what_keeps_its_shape_is_added(width, stride, added, size):
  x = jax.random.normal(jax.random.key(0), (1, *size, 8))
  module = InvertedResidual(width, stride=stride, expansion=2)
  init = functools.partial(module.init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), x)
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape), variables)
  y = module.apply(zero, x, train=False)
  if added:
    np.testing.assert_array_equal(y, x)
  else:
    assert y.shape[-1] == width and not y.any()


def test_resizing_is_linear_between_centres():
  x = jnp.array([0.0, 1.0, 2.0]).reshape(1, 1, 3, 1)
  np.testing.assert_allclose(
    resize(x, size=(2, 4))[0, :, :, 0],
    [[0, 0.625, 1.375, 2]] * 2,
    rtol=1e-4,
  )
  # Nothing is smoothed on the way back.
  x = jnp.arange(4.0).reshape(1, 1, 4, 1)
  np.testing.assert_allclose(
    resize(x, size=(1, 3)).ravel(), [1 / 6, 1.5, 17 / 6], rtol=1e-4
  )
  assert resize(x, size=(1, 4)) is x


@pytest.mark.parametrize('silent', ['attn', 'mlp'])
def test_dropout_strikes_both_branches_in_training_only(silent):
  block = Block(dropout=0.5)
  tokens = jax.random.normal(jax.random.key(0), (1, 4, 3, 8))
  variables = jax.jit(block.init)(jax.random.key(1), tokens)
  params = variables['params']
  params |= {silent: jax.tree.map(jnp.zeros_like, params[silent])}
  train = jax.jit(functools.partial(block.apply, train=True))
  first, second = (
    train({'params': params}, tokens, rngs={'dropout': jax.random.key(seed)})
    for seed in (0, 1)
  )
  assert np.abs(first - second).max() > 1e-3
  np.testing.assert_array_equal(
    jax.jit(block.apply)({'params': params}, tokens),
    jax.jit(Block(dropout=0.0).apply)({'params': params}, tokens),
  )


def test_the_head_reads_half_of_the_features():
  fields = dict(widths=(8,), token_widths=(), depths=(), num_classes=5)
  model = MobileViT(**SMALL | fields, dropout=0.5)
  variables = jax.jit(model.init)(jax.random.key(0), IMAGE)
  # It adds up what it reads.
  adder = {'kernel': jnp.ones((32, 5)), 'bias': jnp.zeros(5)}
  variables['params']['head'] = adder
  train = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  rngs = {'dropout': jax.random.key(0)}
  output, _ = jax.jit(train)(variables, IMAGE, rngs=rngs)
  assert np.abs(output.logits - output.pooled.sum(-1)[:, None]).max() > 1e-3
  evaluated = jax.jit(model.apply)(variables, IMAGE)
  np.testing.assert_allclose(
    evaluated.logits[:, 0], evaluated.pooled.sum(-1), rtol=1e-3
  )


def test_drop_path_rises_over_all_transformers(monkeypatch):
  rates = []

  def spy(make_block, tokens, *, drop_path, **_):
    rates.append(drop_path)
    return tokens

  monkeypatch.setattr(mobilevit, 'apply_blocks', spy)
  fields = dict(widths=(8,) * 3, token_widths=(8, 12), depths=(2, 3))
  model = MobileViT(**SMALL | fields, drop_path=0.4)
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  np.testing.assert_allclose(rates, [(0, 0.1), (0.2, 0.4)], rtol=1e-6)


def test_the_parameters_start_as_the_reference_says():
  mixer = Mixer(
    token_width=32,
    depth=1,
    drop_path=(0.0, 0.0),
    dropout=0.0,
    scan=False,
    remat='none',
  )
  init = functools.partial(mixer.init, train=False)
  params = jax.jit(init)(jax.random.key(0), jnp.zeros((1, 2, 2, 16)))['params']
  for array, deviation in (
    (params['local']['conv']['kernel'], (2 / (9 * 16)) ** 0.5),
    (params['to_tokens']['kernel'], (2 / 32) ** 0.5),
    (params['block_0']['attn']['qkv']['kernel'], 0.02),
    (params['block_0']['mlp']['fc2']['kernel'], 0.02),
  ):
    np.testing.assert_allclose(array.std(), deviation, rtol=0.15)


@pytest.mark.parametrize('size', [(1, 1), (7, 33), (20, 9)])
def test_any_image_fits_any_parameters(size):
  model = MobileViT(**SMALL)
  fresh = lambda image: jax.eval_shape(model.init, jax.random.key(0), image)
  image = jnp.ones((1, *size, 3))
  assert fresh(image) == fresh(IMAGE)
  pyramid = jax.eval_shape(model.apply, fresh(image), image).pyramid
  assert [x.shape for x in pyramid] == [
    (1, -(-size[0] // stride), -(-size[1] // stride), 8) for stride in (2, 4)
  ]


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'widths': (8,)}, r'widths=\(8,\) must have .* those of residuals=\(1,\)'),
    ({'token_widths': (8, 8)}, r'token_widths=\(8, 8\) and depths=\(1,\) must'),
    ({'token_widths': (6,)}, 'num_heads=4 does not divide width=6'),
  ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
  model = MobileViT(**SMALL | fields)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), IMAGE)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'M'.*Known: XXS, XS, S"):
    mobilevit.variant('M')
