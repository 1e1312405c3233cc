import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.models import pvt_v2
from vit_jax.models.pvt_v2 import ConvMlp, PVTv2, average

SMALL = dict(
  widths=(8, 16),
  depths=(1, 1),
  num_heads=(2, 2),
  mlp_ratios=(2, 2),
  reductions=(2, 1),
)
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


def draw(**fields):
  """A small model and random parameters."""
  model, rng = PVTv2(**SMALL | fields), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), IMAGE)['params']
  value = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(value, params)


def apply(model, params, image=IMAGE):
  return jax.jit(model.apply)({'params': params}, image)


@pytest.mark.parametrize(
  ('h', 'w', 'side'), [(5, 9, 3), (4, 8, 4), (2, 3, 5), (7, 1, 7)]
)
def test_a_part_is_the_average_of_all_that_it_touches(h, w, side):
  x = np.random.default_rng(0).normal(size=(1, h, w, 2)).astype(np.float32)
  for i, row in enumerate(np.asarray(average(jnp.asarray(x), side=side))[0]):
    for j, value in enumerate(row):
      rows = slice(
        int(np.floor(i * h / side)), int(np.ceil((i + 1) * h / side))
      )
      columns = slice(
        int(np.floor(j * w / side)), int(np.ceil((j + 1) * w / side))
      )
      expected = x[0, rows, columns].mean((0, 1))
      np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_the_patches_overlap():
  _, params = draw()
  assert params['stage_0']['patch_embed']['kernel'].shape == (7, 7, 3, 8)
  assert params['stage_1']['patch_embed']['kernel'].shape == (3, 3, 8, 16)


def test_the_parameters_start_as_in_the_reference():
  fields = {name: values[:1] for name, values in SMALL.items()}
  model = PVTv2(**fields | dict(widths=(32,), num_classes=50))
  params = jax.jit(model.init)(jax.random.key(0), IMAGE)['params']
  block = params['stage_0']['block_0']
  for array, deviation in (
    (params['stage_0']['patch_embed']['kernel'], (2 / (49 * 32)) ** 0.5),
    (block['attn']['kv']['kernel'], 0.02),
    (block['mlp']['depthwise']['kernel'], (2 / 9) ** 0.5),
    (block['mlp']['fc2']['kernel'], 0.02),
    (params['head']['kernel'], 0.02),
  ):
    np.testing.assert_allclose(array.std(), deviation, rtol=0.1)


def test_any_image_fits_any_parameters():
  model, params = draw(num_classes=3, linear=True)
  for size in [(1, 1), (7, 33), (21, 10), (64, 64)]:
    image = jnp.ones((1, *size, 3))
    run = functools.partial(model.apply, {'params': params})
    shapes = [x.shape for x in jax.eval_shape(run, image).pyramid]
    fine = -(-size[0] // 4), -(-size[1] // 4)
    coarse = -(-size[0] // 8), -(-size[1] // 8)
    assert shapes == [(1, *fine, 8), (1, *coarse, 16)]


@pytest.mark.parametrize(('side', 'fits'), [(29, True), (28, False)])
def test_groups_of_keys_ask_for_29_pixels(side, fits):
  model = models.build('pvt_v2', 'B0', scan=True)
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  init = functools.partial(jax.eval_shape, model.init, jax.random.key(0))
  if fits:
    init(image)
  else:
    with pytest.raises(ValueError, match='7x7 is smaller than its reduction'):
      init(image)


def test_linear_attention_sees_49_tokens_however_large_the_map():
  x = jnp.ones((1, 40, 60, 8))
  module = pvt_v2.PooledReduction()
  tokens, params = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
  assert tokens.shape == (1, 49, 8)
  assert params['params']['proj']['kernel'].shape == (1, 1, 8, 8)


@pytest.mark.parametrize('relu', [True, False])
def test_a_relu_stands_before_the_convolution_if_asked_for(relu):
  module, x = ConvMlp(6, relu=relu), jnp.ones((1, 3, 3, 2))
  params = module.init(jax.random.key(0), x)['params']
  # Nothing is left of what is below zero.
  negative = {'kernel': jnp.zeros((2, 6)), 'bias': jnp.full(6, -1.0)}
  out = module.apply({'params': params | {'fc1': negative}}, x)
  assert bool(np.abs(out).max() < 1e-6) == relu


def test_the_features_are_the_average_of_the_normed_map():
  model, params = draw()
  output = apply(model, params)
  np.testing.assert_allclose(
    output.pooled, output.pyramid[-1].mean((1, 2)), rtol=1e-4, atol=1e-5
  )
  norm = params['stage_0']['norm']
  x, bias, scale = map(np.asarray, (output.pyramid[0], *norm.values()))
  normed = (x - bias) / scale
  np.testing.assert_allclose(normed.mean(-1), 0, atol=1e-3)
  np.testing.assert_allclose(normed.std(-1), 1, rtol=1e-2)


def test_drop_path_rises_over_all_stages(monkeypatch):
  rates = []

  def spy(make_block, x, *, drop_path, **_):
    rates.append(drop_path)
    return x

  monkeypatch.setattr(pvt_v2, 'apply_blocks', spy)
  model = PVTv2(**SMALL | dict(depths=(2, 3), drop_path=0.4))
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  np.testing.assert_allclose(rates, [(0, 0.1), (0.2, 0.4)], rtol=1e-6)


def test_fields_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match=r'mlp_ratios=\(2,\).* for each stage'):
    draw(mlp_ratios=(2,))


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'B6'. Did you mean 'B"):
    pvt_v2.variant('B6')
