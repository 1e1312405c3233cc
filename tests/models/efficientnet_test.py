import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.models import efficientnet
from vit_jax.models.efficientnet import Block, EfficientNet, Layout

SMALL = dict(widths=(8,), depths=(1,), stem_width=8)
IMAGE = jax.random.normal(jax.random.key(0), (2, 12, 16, 3))


def init(**fields):
  model = EfficientNet(**SMALL | fields)
  return model, jax.jit(model.init)(jax.random.key(1), IMAGE)


def test_the_largest_has_the_published_dimensions():
  """B7 and the encoder of ALIGN, whose features are 640 wide."""
  fields = efficientnet.variant('B7')
  assert fields == dict(
    widths=(32, 48, 80, 160, 224, 384, 640),
    depths=(4, 7, 7, 10, 10, 13, 4),
    stem_width=64,
    head_width=2560,
  )


@hypothesis.given(channels=st.floats(1, 2000))
def test_rounding_is_to_eighths_and_loses_no_tenth(channels):
  rounded = efficientnet._round(channels)
  assert rounded % 8 == 0
  assert 0.9 * channels <= rounded <= max(8, channels + 8)


def test_there_is_a_map_of_every_size():
  image = jax.ShapeDtypeStruct((1, 224, 160, 3), jnp.float32)
  model = models.build('efficientnet', 'B0', scan=True)
  output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
  assert [x.shape[1:] for x in output.pyramid] == [
    (112, 80, 16),
    (56, 40, 24),
    (28, 20, 40),
    (14, 10, 112),
    (7, 5, 320),
  ]
  assert output.pooled.shape == (1, 1280)


def test_without_the_last_convolution_the_features_are_narrow():
  model, variables = init(num_classes=3)
  output = jax.jit(model.apply)(variables, IMAGE)
  assert 'widen' not in variables['params']
  np.testing.assert_allclose(
    output.pooled, output.pyramid[-1].mean((1, 2)), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  'fields', [dict(same_padding=False), dict(epsilon=1e-5)]
)
def test_what_was_trained_in_pytorch_differs(fields):
  model, variables = init()
  other = model.clone(**fields)
  before = jax.jit(model.apply)(variables, IMAGE).pooled
  after = jax.jit(other.apply)(variables, IMAGE).pooled
  assert np.abs(before - after).max() > 1e-5


def test_only_the_middle_of_a_block_is_wide_and_its_ends_are_linear():
  block = Block(8, Layout(5, 1, 6), same_padding=True, epsilon=1e-3)
  x = jax.random.normal(jax.random.key(2), (1, 4, 4, 8))
  run = jax.jit(block.apply)
  variables = jax.jit(block.init)(jax.random.key(3), x)
  kernels = {
    name: part['conv']['kernel'].shape
    for name, part in variables['params'].items()
    if name != 'squeeze_excite'
  }
  assert kernels == {
    'expand': (1, 1, 8, 48),
    'depthwise': (5, 5, 1, 48),
    'project': (1, 1, 48, 8),
  }
  # Nothing bends what the last norm returns: the branch follows its scale.
  branch = run(variables, x) - x
  scale = variables['params']['project']['norm']['scale']
  variables['params']['project']['norm']['scale'] = -3 * scale
  np.testing.assert_allclose(
    run(variables, x) - x, -3 * branch, rtol=1e-3, atol=1e-5
  )


def test_features_are_dropped_in_training_alone():
  model, variables = init(num_classes=50, dropout=0.5)
  kept = model.clone(dropout=0.0)

  def logits(model, **options):
    run = functools.partial(model.apply, mutable=['batch_stats'], **options)
    return jax.jit(run)(variables, IMAGE)[0].logits

  key = {'dropout': jax.random.key(0)}
  np.testing.assert_array_equal(logits(model), logits(kept))
  train = dict(train=True, rngs=key)
  assert np.abs(logits(model, **train) - logits(kept, **train)).max() > 1e-3


@pytest.mark.parametrize(
  ('widths', 'depths'), [((8,), (1, 1)), ((8,) * 8, (1,) * 8)]
)
def test_fields_that_do_not_go_together_are_refused(widths, depths):
  with pytest.raises(ValueError, match='for each stage, .* at most 7'):
    init(widths=widths, depths=depths)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'B9'. Did you mean 'B"):
    efficientnet.variant('B9')
