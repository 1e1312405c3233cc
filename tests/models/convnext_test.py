import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.models import convnext
from vit_jax.models.convnext import Block, ConvNeXt

SMALL = dict(width=8, depths=(1, 1))
ISOTROPIC = dict(width=8, depths=(2,), patch_size=16, patch_norm=False)
SHAPE = (1, 9, 11, 4)  # of a map
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


def draw(image=IMAGE, **fields):
  """A small model and random parameters."""
  model, rng = ConvNeXt(**SMALL | fields), np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  value = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(value, params)


def apply(model, params, image=IMAGE):
  return jax.jit(model.apply)({'params': params}, image)


def test_maps_have_the_strides_of_the_paper():
  shape = jax.ShapeDtypeStruct((1, 224, 160, 3), jnp.float32)
  for name, strides in {'T': (4, 8, 16, 32), 'iso_S': (16,)}.items():
    model = models.build('convnext', name, scan=True)
    output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), shape)
    sizes = [x.shape[1:3] for x in output.pyramid]
    assert sizes == [(224 // stride, 160 // stride) for stride in strides]


def test_the_parameters_start_as_in_the_reference():
  model = ConvNeXt(**SMALL | dict(width=32, num_classes=50, head_std=0.5))
  image = jnp.zeros((1, 8, 8, 3))
  params = jax.jit(model.init)(jax.random.key(0), image)['params']
  block = params['stage_1']['block_0']
  deviations = {
    'patches': (params['patch_embed'], 0.02),
    'downsample': (params['stage_1']['downsample'], 0.02),
    'depthwise': (block['depthwise'], 0.02),
    'fc1': (block['mlp']['fc1'], 0.02),
    'fc2': (block['mlp']['fc2'], 0.02),
    'head': (params['head'], 0.5),
  }
  for name, (layer, std) in deviations.items():
    std_found = layer['kernel'].std()
    np.testing.assert_allclose(std_found, std, rtol=0.2, err_msg=name)
    assert not layer['bias'].any()
  np.testing.assert_array_equal(block['scale']['scale'], np.float32(1e-6))
  assert set(block) == {'depthwise', 'norm', 'mlp', 'scale'}
  assert set(params['stage_0']) == {'block_0'}


def test_norms_have_the_epsilon_of_the_reference():
  model, params = draw(depths=())
  faint = 1e-3 * IMAGE[:, :4, :4]
  params['patch_embed']['bias'] = jnp.zeros(8)
  params['patch_norm'] = {'scale': jnp.full(8, 1e-3), 'bias': jnp.zeros(8)}
  params['norm'] = {'scale': jnp.ones(8), 'bias': jnp.zeros(8)}
  kernel = np.asarray(params['patch_embed']['kernel']).reshape(-1, 8)
  x = np.asarray(faint).reshape(2, -1) @ kernel
  for scale in (1e-3, 1.0):
    x = x - x.mean(1, keepdims=True)
    x = scale * x / np.sqrt(x.var(1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(apply(model, params, faint).pooled, x, rtol=1e-4)


def test_isotropic_models_norm_no_patches_and_may_scale_no_branch():
  _, params = draw(jnp.zeros((1, 16, 16, 3)), **ISOTROPIC, layer_scale=None)
  assert set(params) == {'patch_embed', 'stage_0', 'norm'}
  assert set(params['stage_0']['block_1']) == {'depthwise', 'norm', 'mlp'}


def test_a_block_sees_three_positions_to_each_side():
  block, x = Block(layer_scale=1.0), jax.random.normal(jax.random.key(2), SHAPE)
  params = jax.jit(block.init)(jax.random.key(0), x)
  changed = x.at[0, 4, 2].multiply(-1.0)
  run = jax.jit(block.apply)
  difference = jnp.abs(run(params, changed) - run(params, x)).max((0, 3))
  expected = np.zeros(SHAPE[1:3], bool)
  expected[1:8, :6] = True
  np.testing.assert_array_equal(difference > 1e-7, expected)


def test_a_branch_of_no_scale_and_a_dropped_one_leave_the_input():
  block, x = Block(layer_scale=1.0), jax.random.normal(jax.random.key(2), SHAPE)
  params = jax.jit(block.init)(jax.random.key(0), x)['params']
  run = jax.jit(block.apply)
  assert np.abs(run({'params': params}, x) - x).max() > 1e-3
  without = params | {'scale': {'scale': jnp.zeros(SHAPE[-1])}}
  np.testing.assert_array_equal(run({'params': without}, x), x)

  @jax.jit
  def dropped(params, x):
    rngs = {'dropout': jax.random.key(1)}
    rate = 1 - 1e-6
    return block.apply(
      {'params': params}, x, drop_path=rate, train=True, rngs=rngs
    )

  np.testing.assert_array_equal(dropped(params, x), x)


def test_what_does_not_fill_a_patch_is_left_out():
  model, params = draw(num_classes=3)
  image = jax.random.normal(jax.random.key(4), (1, 23, 31, 3))
  cut = jax.tree.map(lambda x: x[-1], apply(model, params, image))
  whole = jax.tree.map(
    lambda x: x[-1], apply(model, params, image[:, :20, :28])
  )
  # 5 x 7 patches, of which only 4 x 6 go on.
  assert [x.shape for x in cut.pyramid] == [(5, 7, 8), (2, 3, 16)]
  jax.tree.map(np.testing.assert_array_equal, cut, whole)


def test_the_features_are_the_normed_average():
  model, params = draw()
  output = apply(model, params)
  x = np.asarray(output.pyramid[-1].mean((1, 2)))
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  scale, bias = params['norm']['scale'], params['norm']['bias']
  expected = x * np.asarray(scale) + np.asarray(bias)
  np.testing.assert_allclose(output.pooled, expected, rtol=1e-3, atol=1e-4)


def test_drop_path_rises_over_all_stages(monkeypatch):
  rates = []

  def spy(make_block, x, *, drop_path, **_):
    rates.append(drop_path)
    return x

  monkeypatch.setattr(convnext, 'apply_blocks', spy)
  model = ConvNeXt(width=8, depths=(2, 3), drop_path=0.4)
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  np.testing.assert_allclose(rates, [(0, 0.1), (0.2, 0.4)], rtol=1e-6)


def test_an_image_below_the_last_stride_is_refused():
  model = ConvNeXt(width=8, depths=(1, 1, 1, 1))
  image = jax.ShapeDtypeStruct((1, 64, 31, 3), jnp.float32)
  with pytest.raises(
    ValueError, match='64x31 is smaller .* stage, 32: enlarge'
  ):
    jax.eval_shape(model.init, jax.random.key(0), image)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(
    ValueError, match="variant: 'iso_T'. Did you mean 'iso_S'"
  ):
    convnext.variant('iso_T')
