"""Contracts that every entry of MODELS keeps."""

import functools
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.models.scan import stack_blocks, unstack_blocks
from vit_jax.ops import flops

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 'logits.json'
VIT = dict(
  patch_size=4, width=8, depth=2, mlp_dim=16, num_heads=2, num_classes=3
)
MIXER = dict(
  patch_size=4, width=8, depth=2, token_dim=6, channel_dim=16, num_classes=3
)
SWIN = dict(
  width=8, depths=(2, 1), num_heads=(2, 4), window_size=2, num_classes=3
)
CONVNEXT = dict(width=8, depths=(2, 1), layer_scale=1.0, num_classes=3)
DINAT = dict(
  width=8,
  depths=(2, 1),
  num_heads=(2, 4),
  mlp_ratio=2,
  dilations=(2, 1),
  kernel_size=3,
  num_classes=3,
)
CVT = dict(widths=(8, 12), depths=(1, 2), num_heads=(2, 3), num_classes=3)
MOBILEVIT_V2 = dict(widths=(8, 12), residuals=(1,), depths=(2,), num_classes=3)
MOBILEVIT = MOBILEVIT_V2 | dict(
  token_widths=(16,), expansion=2, feature_width=12
)
MOBILE_FORMER = dict(
  stem_width=8,
  blocks=((8, 2, 1), (8, 3, 2), (12, 2, 1), (12, 2, 1)),
  num_tokens=3,
  token_width=32,
  feature_width=12,
  num_classes=3,
)
PVT = dict(
  widths=(8, 12),
  depths=(2, 1),
  num_heads=(2, 3),
  mlp_ratios=(2, 1),
  reductions=(2, 1),
  num_classes=3,
)
T2T_VIT = dict(
  width=8, depth=2, mlp_dim=16, num_heads=2, token_width=4, num_classes=3
)
TNT = dict(
  patch_size=8,
  word_width=4,
  word_heads=2,
  width=8,
  num_heads=2,
  depth=2,
  num_classes=3,
)
RESNET = dict(widths=(8, 16), depths=(2, 1), stem_width=8, num_classes=3)
COATNET = dict(
  stem_width=8,
  widths=(8, 16),
  depths=(2, 2),
  layout='CT',
  strides=(2, 2),
  head_dim=8,
  num_classes=3,
)
EFFICIENTNET = dict(
  stem_width=12,
  widths=(8, 16),
  depths=(1, 2),
  head_width=16,
  num_classes=3,
)
# One small model for each architecture, and one for each way it branches.
SMALL = {
  'coatnet': ('coatnet', COATNET),
  'convnext': ('convnext', CONVNEXT),
  'convnext isotropic': (
    'convnext',
    CONVNEXT | dict(depths=(2,), patch_norm=False, layer_scale=None),
  ),
  'cpvt': ('cpvt', VIT),
  'cpvt gap': ('cpvt', VIT | dict(pool='gap', num_pegs=2)),
  'cvt': ('cvt', CVT),
  'deit': ('deit', VIT),
  'dinat': ('dinat', DINAT | dict(layer_scale=1.0)),
  'dinat as swin': ('dinat', DINAT | dict(overlap=False)),
  'efficientnet': ('efficientnet', EFFICIENTNET),
  'mlp_mixer': ('mlp_mixer', MIXER),
  'mobile_former': ('mobile_former', MOBILE_FORMER),
  'mobile_former groups': ('mobile_former', MOBILE_FORMER | dict(groups=4)),
  'mobilevit': ('mobilevit', MOBILEVIT),
  'mobilevit_v2': ('mobilevit_v2', MOBILEVIT_V2),
  'pvt': ('pvt', PVT),
  'pvt_v2': ('pvt_v2', PVT),
  'pvt_v2 linear': ('pvt_v2', PVT | dict(linear=True)),
  'resnet': ('resnet', RESNET | dict(bottleneck=False)),
  'resnet bottleneck': ('resnet', RESNET | dict(bottleneck=True)),
  'swin': ('swin', SWIN),
  'swin_v2': ('swin_v2', SWIN | dict(pretrained_windows=(2, 3))),
  't2t_vit': ('t2t_vit', T2T_VIT),
  't2t_vit transformer': ('t2t_vit', T2T_VIT | dict(tokens='transformer')),
  'tnt': ('tnt', TNT),
  'twins_pcpvt': ('twins_pcpvt', PVT),
  'vit': ('vit', VIT),
  'vit gap': ('vit', VIT | dict(pool='gap', pos_embed='sincos2d')),
  'vit map': ('vit', VIT | dict(pool='map', layer_scale=0.1, gelu='erf')),
  'vit tanh': ('vit', VIT | dict(representation_size=5, pos_embed='none')),
  'vit hybrid': ('vit', VIT | dict(resnet=(1, 1), patch_size=1, width=16)),
}
# Of the maps, in pixels; for all others (4,).
STRIDES = {
  'coatnet': (4, 8),
  'convnext': (4, 8),
  'dinat': (4, 8),
  'dinat as swin': (4, 8),
  'efficientnet': (2, 4),
  'cvt': (4, 8),
  'mobile_former': (2, 4),
  'mobile_former groups': (2, 4),
  'mobilevit': (2, 4),
  'mobilevit_v2': (2, 4),
  'pvt': (4, 8),
  'pvt_v2': (4, 8),
  'pvt_v2 linear': (4, 8),
  'resnet': (4, 8),
  'resnet bottleneck': (4, 8),
  'swin': (4, 8),
  'swin_v2': (4, 8),
  't2t_vit': (16,),
  't2t_vit transformer': (16,),
  'tnt': (8,),
  'twins_pcpvt': (4, 8),
  'vit hybrid': (8,),
}
# Parameters that the logits do not depend on.
IDLE = re.compile(
  # All channels of a token move alike, which every norm takes away again.
  r'.*/token_mlp/fc2/bias'
  # All keys move alike, which the softmax takes away again.
  r'|.*/attn/(k|k_conv/norm)/bias|block_\d/to_map/key/bias'
  # The class token is all that counts in the last block, and passes this by.
  r'|stage_1/block_1/attn/q_conv/.*'
)
every_model = pytest.mark.parametrize('case', SMALL)
SCANNED = [
  case
  for case, (name, _) in SMALL.items()
  if hasattr(models.MODELS[name].module, 'scan')
]
# Of every model unrolled, and of those that can be scanned, scanned too.
every_form = pytest.mark.parametrize(
  ('case', 'scan'),
  [*((case, False) for case in SMALL), *((case, True) for case in SCANNED)],
)


def set_form(model, params, *, scan):
  """A model and its variables with blocks one by one, or stacked."""
  return (
    (model.clone(scan=True), stack_blocks(params)) if scan else (model, params)
  )


def images(seed=0, *, shape=(3, 16, 24, 3)):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


@functools.cache
def model_and_params(case):
  """A model and random variables: at the start some of them are zero."""
  name, fields = SMALL[case]
  model = models.build(name, **fields)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images())
  rng = np.random.default_rng(1)

  def draw(path, x):
    value = jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
    # Without them, little would come through the norms of batches.
    start = {'scale': 1.0, 'var': 0.5}
    name = path[-1].key
    return start[name] + jnp.abs(value) if name in start else value

  return model, jax.tree.map_with_path(draw, shapes)


def train(model, params, image, *, seed=0):
  """The output in training, without the new statistics of batches."""
  output, _ = model.apply(
    params,
    image,
    train=True,
    rngs={'dropout': jax.random.key(seed)},
    mutable=['batch_stats'],
  )
  return output


def assert_close(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    actual,
    expected,
  )


def test_every_architecture_is_tested():
  assert {name for name, _ in SMALL.values()} == set(models.MODELS)
  assert SMALL.keys() == json.loads(GOLDEN.read_text()).keys()


@every_model
def test_outputs_have_the_promised_shapes(case):
  model, params = model_and_params(case)
  output = jax.eval_shape(model.apply, params, images())
  strides = STRIDES.get(case, (4,))
  fields = SMALL[case][1]
  if 'widths' in fields:
    widths = fields['widths']
  elif 'blocks' in fields:
    widths = (8, 12)  # of the last block of each size
  else:
    widths = [fields['width'] * stride // strides[0] for stride in strides]
  assert output.logits.shape == (3, 3)
  assert output.pooled.shape == (3, 5 if case == 'vit tanh' else widths[-1])
  assert [x.shape for x in output.pyramid] == [
    (3, -(-16 // stride), -(-24 // stride), width)
    for stride, width in zip(strides, widths, strict=True)
  ]


@every_model
def test_without_classes_there_is_no_head(case):
  model, _ = model_and_params(case)
  model = model.clone(num_classes=None)
  output, variables = jax.eval_shape(
    model.init_with_output, jax.random.key(0), images()
  )
  assert output.logits is None
  assert 'head' not in variables['params']


@every_model
def test_every_parameter_receives_a_gradient(case):
  model, params = model_and_params(case)

  def loss(params):
    logits = model.apply(params, images()).logits
    return jnp.sum(jnp.sin(logits) * jnp.arange(9.0).reshape(3, 3))

  grads = jax.jit(jax.grad(loss))(params)
  for path, grad in jax.tree.leaves_with_path(grads['params']):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not IDLE.fullmatch(name):
      assert np.abs(grad).max() > 1e-6, name


@every_form
def test_bfloat16_goes_in_and_comes_out(case, scan):
  model, params = model_and_params(case)
  model, params = set_form(model.clone(drop_path=0.5), params, scan=scan)
  # The state stays in float32, as in a step.
  half, image = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), (params['params'], images())
  )
  params = params | {'params': half}
  output = jax.eval_shape(functools.partial(train, model), params, image)
  for x in jax.tree.leaves(output):
    assert x.dtype == jnp.bfloat16


@functools.cache
def predictor(case):
  """Parameters and images -> output, compiled once."""
  model, _ = model_and_params(case)
  return jax.jit(model.apply)


@every_model
def test_the_logits_are_what_they_were(case):
  """Those that `make test-parity` compares with what others wrote."""
  _, params = model_and_params(case)
  logits = np.asarray(predictor(case)(params, images()).logits)
  golden = json.loads(GOLDEN.read_text())
  if os.environ.get('UPDATE_GOLDEN') == '1':
    golden[case] = [[float(f'{x:.7g}') for x in row] for row in logits]
    rows = [f'  {json.dumps(k)}: {golden[k]}' for k in SMALL if k in golden]
    GOLDEN.write_text('{\n' + ',\n'.join(rows) + '\n}\n')
  expected = np.array(golden[case])
  np.testing.assert_allclose(logits, expected, atol=2e-5 * np.ptp(expected))


@every_model
def test_evaluation_is_deterministic_and_knows_no_batch(case):
  _, params = model_and_params(case)
  predict = predictor(case)
  once, again = predict(params, images()), predict(params, images())
  jax.tree.map(np.testing.assert_array_equal, once, again)
  order = jnp.array([2, 0, 1])
  shuffled = predict(params, images()[order])
  assert_close(shuffled, jax.tree.map(lambda x: x[order], once))


@pytest.mark.parametrize('case', SCANNED)
def test_scanned_blocks_compute_what_unrolled_blocks_do(case):
  model, params = model_and_params(case)
  scanned = model.clone(scan=True)
  stacked = stack_blocks(params)
  fresh = jax.eval_shape(scanned.init, jax.random.key(0), images())
  assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, fresh)
  assert_close(
    jax.jit(scanned.apply)(stacked, images()),
    jax.jit(model.apply)(params, images()),
  )
  jax.tree.map(np.testing.assert_array_equal, unstack_blocks(stacked), params)


@pytest.mark.parametrize('case', SCANNED)
def test_remat_computes_blocks_again(case):
  model, params = model_and_params(case)

  def work(remat):
    apply = functools.partial(train, model.clone(remat=remat))
    loss = lambda params: apply(params, images(), seed=0).logits.sum()
    return flops.count(jax.grad(loss), params)

  assert work('none') <= work('dots') <= work('nothing')
  assert work('none') < work('nothing')


@every_form
def test_drop_path_is_random_in_training_and_absent_in_evaluation(case, scan):
  model, params = set_form(*model_and_params(case), scan=scan)
  dropping = model.clone(drop_path=0.5)

  pooled = jax.jit(
    lambda seed: train(dropping, params, images(), seed=seed).pooled
  )
  different = [np.abs(pooled(0) - pooled(seed)).max() for seed in (1, 2, 3)]
  assert max(different) > 1e-3
  np.testing.assert_array_equal(pooled(0), pooled(0))
  evaluate, reference = jax.jit(dropping.apply), jax.jit(model.apply)
  assert_close(evaluate(params, images()), reference(params, images()))


@pytest.mark.parametrize(
  ('name', 'variant'),
  [(n, v) for n, model in models.MODELS.items() for v in model.variants],
)
def test_every_published_variant_builds(name, variant):
  model = models.build(name, variant, num_classes=7)
  assert model.num_classes == 7
  if hasattr(model, 'blocks'):
    assert all(width % 4 == 0 for width, _, _ in model.blocks)
    return
  widths = model.widths if hasattr(model, 'widths') else [model.width]
  assert all(width % 8 == 0 for width in widths)


def test_overrides_win_over_the_variant():
  model = models.build('vit', 'S/16', depth=3, drop_path=0.1)
  assert (model.width, model.depth, model.drop_path) == (384, 3, 0.1)


@pytest.mark.parametrize(
  ('name', 'variant', 'fields', 'message'),
  [
    ('vitt', 'S/16', {}, "Unknown model: 'vitt'. Did you mean 'vit'"),
    ('vit', 'X/16', {}, "Unknown variant: 'X/16'. Did you mean '.*/16'"),
    ('vit', 'S', {}, "Unknown variant: 'S'"),
    ('vit', 'S/0', {}, "Unknown variant: 'S/0'"),
    ('vit', 'S/16', {'droppath': 0.1}, "field of 'vit': .*mean 'drop_path'"),
    ('vit', 'S/16', {'parent': None}, "Unknown field of 'vit': 'parent'"),
    ('mlp_mixer', None, {'width': 8}, 'needs patch_size, depth.*B/16'),
  ],
)
def test_what_is_unknown_or_missing_is_named(name, variant, fields, message):
  with pytest.raises(ValueError, match=message):
    models.build(name, variant, **fields)
