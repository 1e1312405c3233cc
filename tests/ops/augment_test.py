import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.common import op
from vit_jax import experiment, sharding, step
from vit_jax.ops import augment

pytestmark = pytest.mark.usefixtures('compile_fast')

# One of each kind: geometry, tables, blends, filters, cutout, noise.
ALL_KINDS = [
  op('random_crop'),
  op('flip'),
  op('randaugment', num_layers=1, magnitude=15),
  op('three_augment'),
  op('color_jitter', contrast=0.0, saturation=0.0, hue=0.1),
  op('random_erasing', probability=0.5),
]


def draw(batch_size=6):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.integers(0, 256, (batch_size, 4, 6, 3), np.uint8))


@pytest.mark.parametrize('name', [*augment.AUGMENTS, *augment.NORMALIZED])
def test_an_augmentation_depends_on_its_key_and_keeps_shape_and_type(
  name, photographs
):
  image = jnp.asarray(np.repeat(photographs[:, ::4, ::4], 8, axis=0))
  if name in augment.NORMALIZED:
    image = augment.normalize(image)
  apply = jax.jit((augment.AUGMENTS | augment.NORMALIZED)[name])
  one, again, other = (apply(jax.random.key(seed), image) for seed in (0, 0, 1))
  assert one.shape == image.shape and one.dtype == image.dtype
  np.testing.assert_array_equal(one, again)
  changed = np.any(one != other, axis=(1, 2, 3))
  assert changed.any()
  # The same image eight times becomes several images.
  assert np.any(one[:7] != one[1:8])


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_renormalising_is_normalising_otherwise(dtype):
  rng = np.random.default_rng(0)
  image = jnp.asarray(rng.integers(256, size=(2, 4, 5, 3), dtype=np.uint8))
  old = {'mean': (0.4, 0.5, 0.6), 'std': (0.2, 0.25, 0.3)}
  new = {'mean': 0.5, 'std': (0.5,)}
  normalized = augment.normalize(image, **old).astype(dtype)
  actual = augment.renormalize(normalized, old=old, new=new)
  assert actual.dtype == dtype
  np.testing.assert_allclose(
    actual.astype(jnp.float32),
    augment.normalize(image, **new),
    atol=1e-6 if dtype == jnp.float32 else 2e-2,
  )


def test_devices_augment_their_examples_without_asking_others(photographs):
  mesh = sharding.make_mesh()
  image = np.repeat(photographs[:, ::4, ::4], 8, axis=0)
  batch = sharding.put({'image': image}, mesh)['image']
  assert len(batch.sharding.device_set) == 8
  apply = jax.jit(augment.pipeline(ALL_KINDS))
  compiled = apply.lower(jax.random.key(0), batch).compile()
  assert len(compiled.output_shardings.device_set) == 8
  for word in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute'):
    assert word not in compiled.as_text()


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


@pytest.mark.parametrize('pad_mode', ['constant', 'reflect'])
def test_a_random_crop_is_one_of_those_of_the_host(pad_mode):
  """Each of the 25 shifts by up to two pixels, and equally often."""
  image = draw(1)[0]
  sides = ((2, 2), (2, 2), (0, 0))
  padded = np.pad(np.asarray(image), sides, mode=pad_mode)
  places = {
    padded[top : top + 4, left : left + 6].tobytes(): (top, left)
    for top in range(5)
    for left in range(5)
  }
  assert len(places) == 25
  crops = augment.random_crop(
    jax.random.key(0), jnp.stack([image] * 2000), pad=2, pad_mode=pad_mode
  )
  counts = np.zeros((5, 5))
  for crop in np.asarray(crops):
    counts[places[crop.tobytes()]] += 1
  assert 50 < counts.min() and counts.max() < 115


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


def test_an_empty_pipeline_normalizes():
  statistics = {'mean': (0.1, 0.2, 0.3), 'std': 0.4}
  apply = augment.pipeline([], **statistics)
  np.testing.assert_array_equal(
    apply(jax.random.key(0), draw()), augment.normalize(draw(), **statistics)
  )


def test_bytes_are_augmented_before_and_erased_after_they_are_normalized():
  image = draw(64)
  apply = augment.pipeline(
    [
      op('flip', probability=1.0),
      op('random_erasing', probability=1.0, area=(0.1, 0.1)),
    ],
    mean=0.0,
    std=0.001,
  )
  result = np.asarray(jax.jit(apply)(jax.random.key(0), image))
  expected = augment.normalize(image, mean=0.0, std=0.001)[:, :, ::-1]
  changed = ~np.isclose(result, expected, rtol=1e-5)
  assert 0.05 < changed.mean() < 0.15
  # Noise is of the order of 1, pixels are of the order of 1000.
  assert np.abs(result[changed]).max() < 6


def test_each_step_of_a_pipeline_draws_its_own_numbers():
  twice = augment.pipeline([op('flip')] * 2)
  image = draw(64)
  assert np.any(twice(jax.random.key(0), image) != augment.normalize(image))


@pytest.mark.parametrize(
  ('specs', 'words'),
  [
    ([op('flop')], "Unknown augmentation: 'flop'. Did you mean 'flip'"),
    ([op('flip', p=1.0)], "option of .*'flip': 'p'. .*probability"),
    ([{'probability': 1.0}], 'names no augmentation'),
    ([op('random_erasing'), op('flip')], 'out of order: .* come last'),
  ],
)
def test_what_is_impossible_in_a_pipeline_is_an_error(specs, words):
  with pytest.raises(ValueError, match=words):
    augment.pipeline(specs)


@pytest.mark.parametrize(
  ('spec', 'words'),
  [
    (op('flip', probability=2.0), r'probability=2.0 is not in \[0, 1\]'),
    (op('randaugment_timm', magnitude=15), 'magnitude=15'),
    (op('trivial_augment', fill=(1, 2)), 'does not suit images of 3 channels'),
  ],
)
def test_an_option_out_of_range_is_found_before_the_first_step(
  spec, words, tiny_config
):
  tiny_config.augment = (spec,)
  built = experiment.build(tiny_config.to_dict())
  with pytest.raises(ValueError, match=words):
    step.make_step(built)
