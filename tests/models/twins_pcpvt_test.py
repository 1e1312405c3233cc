import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import pvt, twins_pcpvt
from vit_jax.models.twins_pcpvt import TwinsPCPVT

SMALL = dict(
  widths=(8, 16),
  depths=(2, 2),
  num_heads=(2, 2),
  mlp_ratios=(2, 2),
  reductions=(2, 1),
)
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


def draw(**fields):
  """A small model and random parameters."""
  model, rng = TwinsPCPVT(**SMALL | fields), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), IMAGE)['params']
  value = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(value, params)


def apply(model, params, image=IMAGE):
  return jax.jit(model.apply)({'params': params}, image)


def test_the_first_block_of_each_stage_ends_with_positions():
  _, params = draw()
  for stage in ('stage_0', 'stage_1'):
    assert 'peg' in params[stage]['block_0']
    assert 'peg' not in params[stage]['block_1']


def test_positions_stand_after_the_block():
  block = twins_pcpvt.FirstBlock(num_heads=2, mlp_ratio=2, reduction=2)
  x = jax.random.normal(jax.random.key(2), (2, 4, 6, 8))
  shapes = jax.eval_shape(block.init, jax.random.key(0), x)['params']
  params = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), shapes)
  peg = {'kernel': jnp.zeros((3, 3, 1, 8)), 'bias': jnp.arange(8.0)}
  plain = pvt.Block(num_heads=2, mlp_ratio=2, reduction=2)
  without = {k: v for k, v in params.items() if k != 'peg'}
  np.testing.assert_allclose(
    block.apply({'params': params | {'peg': {'depthwise': peg}}}, x),
    plain.apply({'params': without}, x) + jnp.arange(8.0)[None, None, None],
    rtol=1e-5,
    atol=1e-6,
  )


def test_any_image_fits_any_parameters():
  model, params = draw(num_classes=3)
  for size in [(8, 8), (23, 33), (64, 40)]:
    image = jnp.ones((1, *size, 3))
    run = functools.partial(model.apply, {'params': params})
    shapes = [x.shape for x in jax.eval_shape(run, image).pyramid]
    fine, coarse = (tuple(n // stride for n in size) for stride in (4, 8))
    assert shapes == [(1, *fine, 8), (1, *coarse, 16)]


def test_the_features_are_the_average_of_the_normed_tokens():
  model, params = draw()
  output = apply(model, params)
  x = np.asarray(output.pyramid[-1])
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  scale, bias = params['norm']['scale'], params['norm']['bias']
  expected = x.mean((1, 2)) * np.asarray(scale) + np.asarray(bias)
  np.testing.assert_allclose(output.pooled, expected, rtol=1e-3, atol=1e-4)


def test_drop_path_rises_over_all_stages(monkeypatch):
  rates = []

  def spy(make_block, x, *, drop_path, **_):
    rates.append(drop_path)
    return x

  monkeypatch.setattr(twins_pcpvt, 'apply_blocks', spy)
  model = TwinsPCPVT(**SMALL | dict(depths=(2, 3), drop_path=0.4))
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  np.testing.assert_allclose(rates, [(0, 0.1), (0.2, 0.4)], rtol=1e-6)


def test_fields_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match=r'widths=\(8,\).* for each stage'):
    draw(widths=(8,))


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 'T'.*Known: S, B, L"):
    twins_pcpvt.variant('T')
