import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.patch_embed import PatchEmbed


def test_each_patch_is_projected_on_its_own():
  image = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
  module = PatchEmbed(5, (4, 6))
  params = module.init(jax.random.key(1), image)['params']['proj']
  mapped = module.apply({'params': {'proj': params}}, image)
  assert mapped.shape == (2, 2, 2, 5)
  patch = image[:, 4:8, 6:12].reshape(2, -1)
  expected = patch @ params['kernel'].reshape(-1, 5) + params['bias'][None]
  np.testing.assert_allclose(mapped[:, 1, 1], expected, rtol=1e-4, atol=1e-5)


def test_pixels_that_fill_no_patch_are_left_out():
  image = jax.random.normal(jax.random.key(0), (1, 11, 9, 3))
  module = PatchEmbed(5, 4)
  params = module.init(jax.random.key(1), image)
  np.testing.assert_array_equal(
    module.apply(params, image), module.apply(params, image[:, :8, :8])
  )


def test_an_image_below_one_patch_is_refused():
  with pytest.raises(ValueError, match='8x3 is smaller than a patch of 4x4'):
    PatchEmbed(5, 4).init(jax.random.key(0), jnp.ones((1, 8, 3, 3)))
