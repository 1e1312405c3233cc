import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.torch_models import check_names, compare, shapes
from vit_jax import models
from vit_jax.models import t2t_vit
from vit_jax.models.t2t_vit import (
  Block,
  T2TViT,
  TokenLayer,
  random_feature_attention,
  sinusoid,
  soft_split,
)
from vit_jax.objectives.classification import classification
from vit_jax.ops.kernels import dot_product_attention
from vit_jax.pretrained import torch_names

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 't2t_vit.npz'
KINDS = ('performer', 'transformer')
SMALL = dict(width=16, depth=2, mlp_dim=32, num_heads=2, token_width=8)
IMAGE = jax.random.normal(jax.random.key(3), (2, 16, 24, 3))


def golden(prefix):
  """The arrays of the file whose names begin so, by the rest of the name."""
  with np.load(GOLDEN) as file:
    return {
      name.removeprefix(prefix): file[name]
      for name in file.files
      if name.startswith(prefix)
    }


@pytest.mark.parametrize('kind', KINDS)
def test_the_model_equals_that_of_the_authors(kind):
  expected = golden(f'{kind}/output/')
  output = compare(
    models.build('t2t_vit', **SMALL, tokens=kind, num_classes=5),
    torch_names.to_ours(golden(f'{kind}/state/'), num_heads=2),
    expected,
    image=golden('image')[''],
    stages=[
      ('t2t/layer_1', 'tokens_to_token.attention1'),
      ('t2t/layer_2', 'tokens_to_token.attention2'),
      ('t2t', 'tokens_to_token.project'),
      ('block_0', 'blocks.0'),
      ('block_1', 'blocks.1'),
      ('norm', 'norm'),
      ('head', 'head'),
    ],
  )
  patches = expected['norm'][:, 1:].reshape(1, 3, 3, 16)
  np.testing.assert_allclose(output.pyramid[0], patches, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('variant', 'family'), [('7', 'yitu_t2t_vit'), ('t_14', 'yitu_t2t_vit_t')]
)
def test_the_names_are_those_of_the_authors(variant, family):
  lines = str(golden(f'{variant}/names')['']).splitlines()
  state = {}
  for line in lines:
    name, _, numbers = line.partition(' ')
    shape = tuple(int(n) for n in numbers.strip('(,)').split(','))
    state[name] = jax.ShapeDtypeStruct(shape, np.float32)
  # It follows from the size of the image.
  assert shapes(state)['pos_embed'][:2] == (1, 197)
  assert torch_names.detect(state) == family
  del state['pos_embed']
  check_names('t2t_vit', variant, state, family=family)


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_read_can_be_written_again(kind):
  state = golden(f'{kind}/state/')
  ours = torch_names.to_ours(state, num_heads=2)
  family = 'yitu_t2t_vit' + ('_t' if kind == 'transformer' else '')
  back = torch_names.from_ours(ours, family=family)
  assert back.keys() == state.keys() - {'pos_embed'}
  for name, value in back.items():
    np.testing.assert_array_equal(value, state[name], err_msg=name)


def test_positions_are_those_in_the_files():
  (expected,) = golden('performer/state/pos_embed')['']
  np.testing.assert_array_equal(sinusoid(10, width=16), expected)


@pytest.mark.parametrize(
  ('side', 'stride', 'padding'), [(7, 4, 2), (3, 2, 1), (2, 2, 0)]
)
@pytest.mark.parametrize('size', [(8, 13), (9, 10)])
def test_a_soft_split_has_each_patch_channel_by_channel(
  size, side, stride, padding
):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *size, 3)).astype(np.float32)
  split = soft_split(jnp.asarray(x), side=side, stride=stride, padding=padding)
  h, w = ((n + 2 * padding - side) // stride + 1 for n in size)  # equation 3
  assert split.shape == (2, h, w, 3 * side * side)
  edges = (padding, padding)
  x = np.pad(x, ((0, 0), edges, edges, (0, 0)))
  for i in range(h):
    for j in range(w):
      patch = x[:, stride * i :, stride * j :][:, :side, :side]
      expected = patch.transpose(0, 3, 1, 2).reshape(2, -1)
      np.testing.assert_array_equal(split[:, i, j], expected)


def test_many_gaussian_features_approach_a_softmax():
  query, key, value = 0.5 * jax.random.normal(jax.random.key(0), (3, 2, 5, 4))
  exact = dot_product_attention(
    *(x[:, :, None] for x in (query, key, value)), scale=1.0
  )[:, :, 0]
  errors = []
  for m in (100, 100_000):
    features = jax.random.normal(jax.random.key(1), (m, 4))
    mixed = random_feature_attention(query, key, value, features=features)
    errors.append(np.abs(mixed - exact).max())
  assert errors[1] < 0.01 < errors[0]


def test_random_features_are_computed_in_float32():
  # 4096 equal keys: a sum in bfloat16 would stop growing at 256.
  query = jnp.zeros((1, 4096, 4), jnp.bfloat16)
  value = jnp.ones((1, 4096, 4), jnp.bfloat16)
  features = jnp.ones((2, 4), jnp.bfloat16)
  mixed = random_feature_attention(query, query, value, features=features)
  assert mixed.dtype == jnp.bfloat16
  np.testing.assert_allclose(mixed.astype(jnp.float32), 1.0, rtol=0.01)


@functools.cache
def token_layer(*, performer):
  """A layer, tokens, and the variables that it starts from."""
  layer = TokenLayer(width=32, performer=performer)
  tokens = jax.random.normal(jax.random.key(0), (1, 500, 12))
  init = functools.partial(layer.init, train=False)
  return layer, tokens, jax.jit(init)(jax.random.key(1), tokens)


def test_random_features_are_orthogonal_and_never_learned():
  layer, tokens, variables = token_layer(performer=True)
  features = variables['constants']['features']
  product = features @ features.T
  np.testing.assert_allclose(product, 16 * np.eye(16), atol=1e-4)
  objective = classification(T2TViT(**SMALL, num_classes=3))
  batch = {'image': IMAGE, 'label': jnp.array([0, 2]), 'mask': jnp.ones(2)}
  params, state = jax.eval_shape(objective.init, jax.random.key(0), batch)
  assert state.keys() == {'constants'}
  assert len(jax.tree.leaves(state)) == 2
  assert 'features' not in params['t2t']['layer_1']
  train = functools.partial(layer.apply, train=True, mutable=['constants'])
  rngs = {'dropout': jax.random.key(1)}
  _, after = jax.jit(train)(variables, tokens, rngs=rngs)
  np.testing.assert_array_equal(after['constants']['features'], features)


@pytest.mark.parametrize('kind', KINDS)
def test_only_performers_have_dropout(kind):
  layer, tokens, variables = token_layer(performer=kind == 'performer')
  # Of nothing but ones, before the first dropout.
  zero = jax.tree.map(np.zeros_like, variables['params'])
  zero['out']['bias'] = np.ones(32, np.float32)
  run = jax.jit(functools.partial(layer.apply, train=True))
  rngs = {'dropout': jax.random.key(2)}
  trained = run(variables | {'params': zero}, tokens, rngs=rngs)
  expected = 0.1 if kind == 'performer' else 0.0
  np.testing.assert_allclose(np.mean(trained == 0), expected, atol=0.01)


def test_the_parameters_start_as_in_the_reference():
  _, _, variables = token_layer(performer=True)
  layer, block = variables['params'], Block(num_heads=2, mlp_dim=64)
  block = jax.jit(block.init)(jax.random.key(0), jnp.zeros((1, 3, 32)))
  block = block['params']
  for name, array in {
    'projections of a layer': layer['qkv']['kernel'],
    'MLP of a layer': layer['mlp']['fc2']['kernel'],
    'attention of a block': block['attn']['qkv']['kernel'],
    'MLP of a block': block['mlp']['fc1']['kernel'],
  }.items():
    np.testing.assert_allclose(array.std(), 0.02, rtol=0.1, err_msg=name)
  assert not block['mlp']['fc1']['bias'].any()
  assert layer['qkv'].keys() == {'kernel', 'bias'}
  assert block['attn']['qkv'].keys() == {'kernel'}


def test_norms_have_the_epsilon_of_the_reference():
  block = Block(num_heads=2, mlp_dim=4)
  x = 1e-3 * jax.random.normal(jax.random.key(1), (1, 3, 4))
  params = jax.eval_shape(block.init, jax.random.key(0), x)['params']
  params = jax.tree.map(lambda p: jnp.zeros(p.shape), params)
  # All that is left is gelu(100 + norm2(x)) = 100 + norm2(x).
  params['norm2']['scale'] = jnp.ones(4)
  params['mlp']['fc1'] = {'kernel': jnp.eye(4), 'bias': jnp.full(4, 100.0)}
  params['mlp']['fc2']['kernel'] = jnp.eye(4)
  y = jax.jit(block.apply)({'params': params}, x) - x - 100
  z = np.asarray(x) - np.asarray(x).mean(-1, keepdims=True)
  expected = z / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(y, expected, atol=1e-4)


def test_any_image_fits_any_parameters():
  model = T2TViT(**SMALL | dict(depth=1), num_classes=3)
  fresh = lambda image: jax.eval_shape(model.init, jax.random.key(0), image)
  variables = fresh(IMAGE)
  for size, grid in {
    (3, 7): (1, 1),
    (37, 20): (3, 2),
    (64, 48): (4, 3),
  }.items():
    image = jnp.ones((1, *size, 3))
    assert fresh(image) == variables
    output = jax.eval_shape(model.apply, variables, image)
    assert [x.shape for x in output.pyramid] == [(1, *grid, 16)]


@pytest.mark.parametrize(
  ('fields', 'image', 'message'),
  [
    ({}, jnp.ones((1, 2, 40, 3)), '2x40 is smaller than .* enlarge'),
    ({'tokens': 'conv'}, IMAGE, "tokens: 'conv'.*performer, transformer"),
  ],
)
def test_what_has_no_meaning_is_refused(fields, image, message):
  model = T2TViT(**SMALL | fields)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), image)


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: 't_7'.*Known: 7, 10"):
    t2t_vit.variant('t_7')
