import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_jax.ops import augment


def draw(batch_size=6):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.integers(0, 256, (batch_size, 4, 6, 3), np.uint8))


@pytest.mark.parametrize('name', augment.AUGMENTS)
def test_an_augmentation_keeps_shape_and_type_under_jit(name):
  apply = jax.jit(augment.pipeline([{'name': name}]))
  image = apply(jax.random.key(0), draw())
  assert image.shape == draw().shape and image.dtype == jnp.uint8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_flipping_twice_with_one_key_changes_nothing(seed):
  rng = jax.random.key(seed)
  twice = augment.flip(rng, augment.flip(rng, draw()))
  np.testing.assert_array_equal(twice, draw())


def test_a_flip_mirrors_left_and_right():
  image = augment.flip(jax.random.key(0), draw(), probability=1.0)
  np.testing.assert_array_equal(image, np.flip(draw(), axis=2))


def test_each_example_is_flipped_by_its_own_chance():
  image = draw(400)
  flipped = augment.flip(jax.random.key(0), image, probability=0.25)
  changed = np.any(flipped != image, axis=(1, 2, 3))
  assert 0.17 < changed.mean() < 0.33
  np.testing.assert_array_equal(flipped[~changed], image[~changed])


def test_normalize_takes_bytes_to_minus_one_and_one():
  image = draw()
  actual = augment.normalize(image)
  assert actual.dtype == jnp.float32
  expected = (np.asarray(image, np.float64) - 127.5) / 127.5
  np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_normalize_takes_statistics_for_each_channel():
  mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
  expected = (np.asarray(draw(), np.float64) / 255 - mean) / std
  actual = augment.normalize(draw(), mean=mean, std=std)
  np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_an_empty_pipeline_changes_nothing():
  image = augment.pipeline([])(jax.random.key(0), draw())
  np.testing.assert_array_equal(image, draw())


def test_each_step_of_a_pipeline_draws_its_own_numbers():
  twice = augment.pipeline([{'name': 'flip'}] * 2)
  image = draw(64)
  assert np.any(twice(jax.random.key(0), image) != image)


@pytest.mark.parametrize(
  'spec, words',
  [
    ({'name': 'flop'}, "Unknown augmentation: 'flop'. Did you mean 'flip'"),
    (
      {'name': 'flip', 'p': 1.0},
      "option of .*'flip': 'p'. .*probability",
    ),
    ({'probability': 1.0}, 'names no augmentation'),
  ],
)
def test_what_is_unknown_is_an_error(spec, words):
  with pytest.raises(ValueError, match=words):
    augment.pipeline([spec])
