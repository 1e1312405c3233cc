"""DeiT with a distillation token; the comparison with timm is in parity/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models

SMALL = dict(patch_size=4, width=8, depth=1, mlp_dim=16, num_heads=2)


def model_and_params(**fields):
  model = models.build('deit', num_classes=3, **SMALL, **fields)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image())
  rng = np.random.default_rng(0)
  return model, jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape)), shapes
  )


def image():
  return jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 12, 3)))


def test_the_prediction_is_the_mean_of_both_heads():
  model, params = model_and_params()
  output = jax.jit(model.apply)(params, image())
  of_class, of_teacher = output.heads
  assert np.abs(of_class - of_teacher).max() > 0.1
  np.testing.assert_allclose(
    output.logits, (of_class + of_teacher) / 2, rtol=1e-5
  )


def test_each_token_has_a_position_and_is_no_part_of_the_map():
  model, params = model_and_params()
  assert params['params']['pos_embed'].shape == (1, 2 + 6, 8)
  output = jax.eval_shape(model.apply, params, image())
  assert output.pyramid[0].shape == (2, 2, 3, 8)


@pytest.mark.parametrize('token', ['cls', 'dist'])
def test_each_head_reads_a_token_of_its_own(token):
  """Where blocks add nothing, a token alone decides what its head says."""
  model, params = model_and_params()
  params = params['params']
  block = params['block_0']
  for part, leaf in (('attn', 'out'), ('mlp', 'fc2')):
    block[part][leaf] = jax.tree.map(jnp.zeros_like, block[part][leaf])
  before = model.apply({'params': params}, image()).heads
  params[token] = params[token] + jnp.arange(8.0).reshape(1, 1, 8) ** 2
  after = model.apply({'params': params}, image()).heads
  moved = [
    bool(np.abs(a - b).max() > 1e-3) for a, b in zip(before, after, strict=True)
  ]
  assert moved == [token == 'cls', token == 'dist']


@pytest.mark.parametrize(
  'fields', [{'pool': 'gap'}, {'representation_size': 8}]
)
def test_what_has_no_meaning_is_refused(fields):
  with pytest.raises(ValueError, match="leave them at 'token' and None"):
    model_and_params(**fields)


def test_sizes_that_were_not_published_are_refused():
  with pytest.raises(ValueError, match="variant: 'L/16'.*Known"):
    models.build('deit', 'L/16')
