import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.torch_models import check_names, compare, zeros
from vit_jax import models
from vit_jax.models import mobile_former
from vit_jax.models.mobile_former import (
  Block,
  DynamicReLU,
  Former,
  MobileFormer,
  MobileToFormer,
  attend,
  shuffle,
)
from vit_jax.pretrained import split, torch_names

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 'mobile_former.npz'
TOKENS = dict(num_tokens=3, token_width=8, feature_width=12)
SMALL = dict(stem_width=8, blocks=((8, 2, 1), (8, 3, 2), (12, 2, 1)), **TOKENS)
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))
# Variant of golden -> fields, and whose outputs are the maps.
KINDS = {
  '96m': (
    dict(
      stem_width=4,
      blocks=(
        (4, 2, 1),
        (4, 3, 2),
        *((8, 2, 2), (8, 2, 1)),
        *((4, 2, 2), (4, 3, 1), (8, 2, 1)),
        *((8, 2, 2), (8, 2, 1)),
      ),
    ),
    ('features.0', 'features.1', 'features.3', 'features.6', 'features.8'),
  ),
  '26m': (
    dict(
      stem_width=4,
      groups=4,
      blocks=(
        *((8, 3, 2), (8, 3, 1)),
        *((12, 2, 2), (12, 2, 1)),
        *((8, 3, 2), (8, 2, 1), (12, 2, 1)),
        *((12, 2, 2), (12, 2, 1)),
      ),
    ),
    ('stem', 'features.1', 'features.3', 'features.6', 'features.8'),
  ),
}
FAMILIES = {
  '508m': 'ms_mobile_former_508m',
  '96m': 'ms_mobile_former_96m',
  '26m': 'ms_mobile_former_52m',
}
HEAD = dict(stem_width=8, blocks=((12, 2, 1),), **TOKENS)  # little else
every_kind = pytest.mark.parametrize('kind', KINDS)


@pytest.fixture(scope='module', autouse=True)
def compile_fast():
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def golden(prefix):
  """The arrays of the file whose names begin so, by the rest of the name."""
  with np.load(GOLDEN) as file:
    return {
      name.removeprefix(prefix): file[name]
      for name in file.files
      if name.startswith(prefix)
    }


def shapes_of(names):
  """By name, from lines of a name and a shape."""
  shapes = {}
  for line in str(golden(names)['']).splitlines():
    name, _, numbers = line.partition(' ')
    shapes[name] = tuple(int(n) for n in numbers.strip('(,)').split(',') if n)
  return shapes


def state_of(kind, when='small', *, part=''):
  """Their arrays by name, of those whose names hold a part."""
  shapes = shapes_of(f'{kind}/small/names')
  shapes = {name: shape for name, shape in shapes.items() if part in name}
  ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
  arrays = np.split(golden(f'{kind}/{when}/state')[''], ends[:-1])
  return {
    name: array.reshape(shape)
    for (name, shape), array in zip(shapes.items(), arrays, strict=True)
  }


def model_of(kind):
  fields, _ = KINDS[kind]
  return models.build('mobile_former', **fields, **TOKENS, num_classes=5)


@every_kind
def test_the_model_equals_that_of_the_authors(kind):
  compare(
    model_of(kind),
    torch_names.to_ours(state_of(kind)),
    golden(f'{kind}/output/'),
    image=golden('image')[''],
    stages=[
      ('stem', 'stem.1'),
      ('block_0', 'features.0.conv'),
      ('block_1/to_map', 'features.1'),
      ('block_2/to_tokens', 'features.2.local_global'),
      ('block_2/former', 'features.2.global_block'),
      ('block_2/halve/relu', 'features.2.act1'),
      ('block_2/halve', 'features.2.conv2'),
      ('block_2/mobile/relu', 'features.2.act3'),
      ('block_2/mobile', 'features.2.conv4'),
      ('block_2/to_map', 'features.2'),
      ('block_3/to_tokens', 'features.3.local_global'),
      ('block_3/former', 'features.3.global_block'),
      ('block_3/mobile/relu1', 'features.3.act1'),
      ('block_3/mobile/relu2', 'features.3.act2'),
      ('block_3/mobile', 'features.3.conv3'),
      *((f'block_{i}/to_map', f'features.{i}') for i in range(3, 9)),
      ('to_tokens', 'local_global'),
      ('widen', 'classifier.conv'),
      ('features_norm', 'classifier.fc.1'),
      ('head', 'classifier'),
    ],
    maps=KINDS[kind][1],
  )


def test_statistics_move_in_training_as_those_of_the_authors():
  model, image = model_of('26m'), jnp.asarray(golden('image')[''])
  state, moved = state_of('26m'), state_of('26m', 'trained', part='.running_')
  before, expected = (
    split(torch_names.to_ours(arrays), like=zeros(model, image))
    for arrays in (state, state | moved)
  )
  train = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  output, after = jax.jit(train)(before, image)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  close(output.logits, golden('26m/trained/logits')[''])
  jax.tree.map(close, after['batch_stats'], expected['batch_stats'])


@pytest.mark.parametrize('variant', FAMILIES)
def test_the_names_are_those_of_the_authors(variant):
  state = {
    name: jax.ShapeDtypeStruct(shape, np.float32)
    for name, shape in shapes_of(f'{variant}/names').items()
  }
  family = FAMILIES[variant]
  check_names('mobile_former', variant.upper(), state, family=family)


@every_kind
def test_what_is_read_can_be_written_again(kind):
  state = state_of(kind)
  ours = torch_names.to_ours(state)
  written = torch_names.from_ours(ours, family=FAMILIES[kind])
  kept = {name for name in state if not name.endswith('num_batches_tracked')}
  assert written.keys() == kept
  for name in kept:
    np.testing.assert_array_equal(written[name], state[name], err_msg=name)


def test_attention_projects_nothing_and_heads_do_not_mix():
  rng = np.random.default_rng(0)
  query, key, value = (rng.normal(size=(1, n, 4)) for n in (2, 3, 3))
  mixed = attend(*map(jnp.asarray, (query, key, value)), num_heads=2)
  for head in (slice(0, 2), slice(2, 4)):
    weights = np.exp(query[0, :, head] @ key[0, :, head].T / 2**0.5)
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(
      mixed[0, :, head], weights @ value[0, :, head], rtol=1e-5
    )


def test_a_shuffle_deals_the_channels_of_each_group_out():
  x = jnp.arange(6.0).reshape(1, 1, 1, 6)
  shuffled = shuffle(x, groups=2)
  np.testing.assert_array_equal(shuffled.ravel(), [0, 3, 1, 4, 2, 5])
  np.testing.assert_array_equal(shuffle(shuffled, groups=3), x)


def initial(module, *args):
  """The variables that it starts from."""
  return jax.jit(module.init)(jax.random.key(0), *args)


def drawn(module, *args, **options):
  """Random variables, which need no compilation."""
  init = functools.partial(module.init, **options)
  shapes = jax.eval_shape(init, jax.random.key(0), *args)
  rng = np.random.default_rng(1)
  draw = {
    'params': lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32),
    'batch_stats': lambda x: jnp.ones(x.shape),
  }
  return {name: jax.tree.map(draw[name], x) for name, x in shapes.items()}


def zero(tree):
  return jax.tree.map(jnp.zeros_like, tree)


def test_a_dynamic_relu_starts_as_a_relu_and_stays_in_its_bounds():
  x = jax.random.normal(jax.random.key(1), (2, 3, 3, 4))
  token = jnp.ones((2, 8))
  params = initial(DynamicReLU(), x, token)['params']
  apply = jax.jit(DynamicReLU().apply)
  np.testing.assert_allclose(
    apply({'params': params}, x, token), nn.relu(x), atol=0.01
  )
  # Of four channels, first the larger factors, then the smaller ones.
  bias = jnp.array([9.0, 9, -9, -9, 9, -9, 9, -9])
  params['fc2'] = {'kernel': jnp.zeros((2, 8)), 'bias': bias}
  y, x = apply({'params': params}, x, token), np.asarray(x)
  first, second = np.array([2, 2, 0, 0]), np.array([1, -1, 1, -1])
  np.testing.assert_allclose(y, np.maximum(first * x, second * x), atol=1e-6)


def test_the_gate_opens_channels_from_none_to_twice():
  module, options = MobileToFormer(), dict(drop_path=None, train=False)
  tokens = jax.random.normal(jax.random.key(1), (1, 3, 4))
  # All positions are alike: what is gathered does not depend on the query.
  x = jnp.broadcast_to(jnp.array([3.0, -1, 2, 5]), (1, 2, 2, 4))
  params = zero(drawn(module, tokens, x, **options)['params'])
  params['gate']['bias'] = jnp.array([9.0, 0, -9, 1.5])
  params['out']['kernel'], params['norm']['scale'] = jnp.eye(4), jnp.ones(4)
  y = module.apply({'params': params}, tokens, x, **options)
  moved = np.asarray(tokens) + np.array([6.0, -1, 0, 7.5])
  moved -= moved.mean(-1, keepdims=True)
  expected = moved / moved.std(-1, keepdims=True)
  np.testing.assert_allclose(y, expected, rtol=1e-4)


def test_norms_have_the_epsilon_of_the_reference():
  module, options = Former(), dict(drop_path=None, train=False)
  tokens = 1e-3 * jax.random.normal(jax.random.key(1), (1, 3, 4))
  params = zero(drawn(module, tokens, **options)['params'])
  params['norm1']['scale'] = params['norm2']['scale'] = jnp.ones(4)
  y = module.apply({'params': params}, tokens, **options)
  for _ in range(2):
    tokens -= tokens.mean(-1, keepdims=True)
    tokens /= jnp.sqrt(tokens.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(y, tokens, atol=1e-5)


def empty_block(*, width, stride):
  """A block, and its variables, all zero."""
  module = Block(width=width, expansion=2, stride=stride, groups=1)
  x, tokens = jnp.ones((1, 4, 6, 8)), jnp.ones((1, 3, 8))
  return module, zero(drawn(module, x, tokens, drop_path=None, train=False))


@pytest.mark.parametrize(
  ('width', 'stride', 'size', 'added'),
  [
    (8, 1, (4, 6), True),
    (12, 1, (4, 6), False),
    (8, 2, (4, 6), False),
    # Halving leaves its size, and may leave its width, alone.
    (8, 2, (1, 1), False),
  ],
)
def test_the_old_map_is_added_if_it_is_as_wide_and_not_halved(
  width, stride, size, added
):
  module, variables = empty_block(width=width, stride=stride)
  x = jax.random.normal(jax.random.key(0), (1, *size, 8))
  tokens = jnp.ones((1, 3, 8))
  run = functools.partial(module.apply, drop_path=None, train=False)
  y, _ = jax.jit(run)(variables, x, tokens)
  if added:
    np.testing.assert_array_equal(y, x)
  else:
    assert y.shape[-1] == width and not y.any()


@pytest.mark.parametrize('stride', [1, 2])
def test_drop_path_drops_what_two_branches_add_to_the_map(stride):
  module, variables = empty_block(width=8, stride=stride)
  x = jax.random.normal(jax.random.key(0), (64, 4, 6, 8))
  # Each adds 1; what halves the map, and is not dropped, is 0.
  params, one = variables['params'], jnp.ones(8)
  params['mobile']['project']['norm']['bias'] = one
  params['to_map']['value']['bias'] = one
  run = functools.partial(module.apply, drop_path=0.5, train=True)
  run = jax.jit(functools.partial(run, mutable=['batch_stats']))
  rngs = {'dropout': jax.random.key(1)}
  (y, _), _ = run(variables, x, jnp.ones((64, 3, 8)), rngs=rngs)
  added = y - x if stride == 1 else y
  kept = added[:, 0, 0, 0].round()
  assert set(kept.tolist()) == {0.0, 2.0, 4.0}
  expected = jnp.broadcast_to(kept[:, None, None, None], added.shape)
  np.testing.assert_allclose(added, expected, atol=1e-5)


def test_drop_path_spares_the_mlp_of_the_tokens():
  tokens = jax.random.normal(jax.random.key(1), (2, 3, 8))
  options = dict(drop_path=None, train=False)
  variables = drawn(Former(), tokens, **options)
  params, rngs = variables['params'], {'dropout': jax.random.key(0)}
  run = functools.partial(Former().apply, drop_path=1 - 1e-6, train=True)
  dropped = jax.jit(run)(variables, tokens, rngs=rngs)
  run = jax.jit(functools.partial(Former().apply, **options))
  expected, *others = (
    run(
      {'params': params | {name: zero(params[name]) for name in muted}}, tokens
    )
    for muted in (('out',), ('mlp',), ())
  )
  np.testing.assert_allclose(dropped, expected, rtol=1e-4, atol=1e-5)
  for other in others:
    assert np.abs(other - expected).max() > 0.1


def test_drop_path_rises_over_all_blocks(monkeypatch):
  rates = []

  def spy(self, y, *, rate, train):
    rates.append(rate)
    return y

  monkeypatch.setattr(mobile_former.DropPath, '__call__', spy)
  blocks = (*SMALL['blocks'], (12, 2, 1))
  model = MobileFormer(**SMALL | dict(blocks=blocks), drop_path=0.3)
  jax.eval_shape(model.init, jax.random.key(0), IMAGE)
  # To the tokens, of the tokens, the map, from the tokens; the map's only
  # where something is added to it; and the last to the tokens.
  expected = [0.1] * 4 + [0.2] * 3 + [0.3] * 4 + [0.3]
  np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_head_reads_the_map_and_the_first_token_alone():
  model = MobileFormer(**HEAD)
  variables = drawn(model, IMAGE)
  features = variables['params']['features']
  assert features['kernel'].shape == (6 * 12 + 8, 12)
  run = functools.partial(model.apply, capture_intermediates=True)
  _, state = run(variables, IMAGE, mutable=['intermediates'])
  found = state['intermediates']
  (widened,), (tokens,), (read,) = (
    found[name]['__call__'] for name in ('widen', 'to_tokens', 'features')
  )
  average = nn.hard_swish(jnp.clip(widened, 0, 6).mean((1, 2)))
  both = jnp.concatenate([average, tokens[:, 0]], axis=-1)
  expected = np.asarray(both @ features['kernel'] + features['bias'][None])
  np.testing.assert_allclose(read, expected, rtol=1e-4, atol=1e-4)


def test_the_last_layer_reads_half_of_the_features():
  model = MobileFormer(**HEAD, num_classes=5, dropout=0.5)
  variables = drawn(model, IMAGE)
  # It adds up what it reads.
  adder = {'kernel': jnp.ones((12, 5)), 'bias': jnp.zeros(5)}
  variables['params']['head'] = adder
  train = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  rngs = {'dropout': jax.random.key(0)}
  output, _ = jax.jit(train)(variables, IMAGE, rngs=rngs)
  assert np.abs(output.logits - output.pooled.sum(-1)[:, None]).max() > 1e-3
  evaluated = jax.jit(model.apply)(variables, IMAGE)
  np.testing.assert_allclose(
    evaluated.logits[:, 0], evaluated.pooled.sum(-1), rtol=1e-3, atol=1e-4
  )


def test_the_parameters_start_as_in_the_reference():
  fields = dict(num_tokens=20, token_width=64, groups=2, num_classes=50)
  params = initial(MobileFormer(**SMALL | fields), IMAGE)['params']
  first = params['block_1']
  for name, array, deviation in (
    ('tokens', params['tokens'], 1.0),
    ('convolution', params['widen']['conv']['kernel'], (1 / 36) ** 0.5),
    ('bridge', first['to_tokens']['query']['kernel'], 0.01),
    ('attention', first['former']['query']['kernel'], 0.01),
    ('MLP', first['former']['mlp']['fc1']['kernel'], 0.01),
    ('ReLU', first['halve']['relu']['fc2']['kernel'], 0.01),
    ('features', params['features']['kernel'], 0.01),
    ('head', params['head']['kernel'], 0.01),
  ):
    np.testing.assert_allclose(array.std(), deviation, rtol=0.15, err_msg=name)
  assert not first['former']['mlp']['fc1']['bias'].any()


@pytest.mark.parametrize('size', [(1, 1), (7, 33), (20, 9)])
def test_any_image_fits_any_parameters(size):
  model = MobileFormer(**SMALL)
  fresh = lambda image: jax.eval_shape(model.init, jax.random.key(0), image)
  image = jnp.ones((1, *size, 3))
  assert fresh(image) == fresh(IMAGE)
  pyramid = jax.eval_shape(model.apply, fresh(image), image).pyramid
  assert [x.shape for x in pyramid] == [
    (1, -(-size[0] // stride), -(-size[1] // stride), width)
    for stride, width in ((2, 8), (4, 12))
  ]


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'blocks': ()}, r'blocks=\(\) must have .* at least one'),
    ({'blocks': ((8, 2, 4),)}, r'blocks=\(\(8, 2, 4\),\) .* stride of 1 or 2'),
    ({'groups': 3}, r'groups=3 must divide \[8, 8, 8, 12\], the widths'),
    ({'token_width': 6}, 'num_heads=4 does not divide width=6'),
    ({'blocks': ((8, 2, 2), (9, 2, 1))}, 'num_heads=2 does not divide width=9'),
  ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
  model = MobileFormer(**SMALL | fields)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), IMAGE)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: '300M'.*Known: 508M, 294M"):
    mobile_former.variant('300M')
