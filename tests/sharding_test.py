import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from vit_jax import hlo, models, sharding

VIT = dict(
  patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=2, num_classes=3
)


def parameters(**fields):
  """Shapes of the parameters of a small ViT."""
  model = models.build('vit', **VIT | fields)
  image = jnp.zeros((1, 16, 16, 3))
  return jax.eval_shape(model.init, jax.random.key(0), image)['params']


def specs(tree, mesh):
  """Path -> PartitionSpec without the Nones at its end."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf.spec
    for path, leaf in jax.tree.leaves_with_path(sharding.infer(tree, mesh))
  }


@pytest.mark.parametrize(
  ('axes', 'shape'),
  [
    ({}, (8, 1, 1)),
    ({'data': 2, 'fsdp': -1}, (2, 4, 1)),
    ({'data': 2, 'fsdp': 2, 'tensor': -1}, (2, 2, 2)),
    ({'data': 1, 'fsdp': 8}, (1, 8, 1)),
  ],
)
def test_one_axis_takes_the_devices_that_are_left(axes, shape):
  mesh = sharding.make_mesh(**axes)
  assert tuple(mesh.shape.values()) == shape
  assert tuple(mesh.shape) == sharding.AXES


@pytest.mark.parametrize(
  'axes',
  [
    {'data': 3},
    {'fsdp': 3},
    {'data': 0},
    {'data': -1, 'fsdp': -1},
    {'data': -2},
    {'fsdp': 16},
  ],
)
def test_a_mesh_that_does_not_fit_names_the_number_of_devices(axes):
  with pytest.raises(ValueError, match='8 devices here; leave one .* at -1'):
    sharding.make_mesh(**axes)


def test_a_mesh_takes_the_devices_that_it_is_given():
  assert sharding.make_mesh(devices=jax.devices()[:3]).size == 3


@dataclasses.dataclass(frozen=True)
class FakeDevice:
  id: int
  slice_index: int
  process_index: int = 0
  platform: str = 'gpu'
  device_kind: str = 'none'


def slices_along(axes, *, slices, devices=8):
  """How many slices the devices of each line along an axis belong to."""
  fakes = [FakeDevice(i, i * slices // devices) for i in range(devices)]
  mesh = sharding.make_mesh(devices=fakes, **axes)
  index = np.vectorize(lambda device: device.slice_index)(mesh.devices)
  return {
    name: max(
      len(set(line))
      for line in np.moveaxis(index, axis, -1).reshape(-1, index.shape[axis])
    )
    for axis, name in enumerate(sharding.AXES)
  }


@pytest.mark.parametrize(
  ('axes', 'slices', 'across'),
  [
    ({}, 2, (2, 1, 1)),
    ({'data': 2, 'fsdp': -1}, 2, (2, 1, 1)),
    ({'data': 2, 'fsdp': 2, 'tensor': 2}, 2, (2, 1, 1)),
    ({'data': 2, 'fsdp': 2, 'tensor': 2}, 4, (2, 2, 1)),
    ({'data': 1, 'fsdp': -1}, 2, (1, 2, 1)),
    ({'data': 4, 'tensor': 2}, 2, (2, 1, 1)),
  ],
)
def test_slices_are_crossed_by_data_first_and_tensor_last(axes, slices, across):
  found = slices_along(axes, slices=slices)
  assert tuple(found.values()) == across


def test_a_mesh_that_does_not_split_over_slices_says_what_would():
  message = 'data=1, fsdp=6, .* over 4 slices .*data a multiple of 4'
  with pytest.raises(ValueError, match=message):
    slices_along({'data': 1, 'fsdp': 6}, slices=4, devices=6)


@pytest.mark.parametrize(
  ('batch_size', 'parts', 'nearest'),
  [(30, 1, 32), (11, 1, 8), (3, 1, 8), (40, 2, 32), (60, 4, 64)],
)
def test_the_nearest_batch_size_that_splits_is_named(
  batch_size, parts, nearest
):
  mesh = sharding.make_mesh(data=2, fsdp=4)
  with pytest.raises(ValueError, match=f'nearest that does is {nearest}\\.'):
    sharding.check_batch_size(batch_size, mesh, accumulate=parts)
  sharding.check_batch_size(nearest, mesh, accumulate=parts)


def test_the_tensor_axis_takes_no_part_of_the_batch():
  mesh = sharding.make_mesh(data=2, tensor=4)
  sharding.check_batch_size(2, mesh)


def test_a_batch_is_split_over_data_and_fsdp():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  image = np.arange(8 * 3).reshape(8, 3)
  batch = sharding.put({'image': image}, mesh)
  assert batch['image'].sharding.shard_shape((8, 3)) == (2, 3)
  np.testing.assert_array_equal(batch['image'], image)


def test_every_tensor_rule_matches_a_parameter_of_a_vit():
  paths = jax.tree.leaves_with_path(parameters())
  names = [
    '/' + jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in paths
  ]
  for pattern, _ in sharding.TENSOR_RULES:
    assert any(re.fullmatch(pattern, name) for name in names), pattern


def test_heads_and_hidden_units_are_split_over_tensor():
  mesh = sharding.make_mesh(tensor=2)
  found = specs(parameters(), mesh)
  block = {
    name.removeprefix('block_1/'): spec
    for name, spec in found.items()
    if name.startswith('block_1/') and any(spec)
  }
  assert block == {
    'attn/qkv/kernel': P(None, None, 'tensor', None),
    'attn/qkv/bias': P(None, 'tensor', None),
    'attn/out/kernel': P('tensor', None, None),
    'mlp/fc1/kernel': P(None, 'tensor'),
    'mlp/fc1/bias': P('tensor'),
    'mlp/fc2/kernel': P('tensor', None),
  }
  assert not any(found['head/kernel']) and not any(found['pos_embed'])


def test_scanned_blocks_are_split_like_unrolled_ones():
  mesh = sharding.make_mesh(tensor=2)
  unrolled, scanned = (
    specs(parameters(scan=scan), mesh) for scan in (False, True)
  )
  for name, spec in scanned.items():
    if name.startswith('blocks/'):
      one = unrolled[name.replace('blocks', 'block_0')]
      assert spec == P(None, *one), name
    else:
      assert spec == unrolled[name]


def test_moments_are_split_like_their_parameters():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  params = parameters()
  found = specs(jax.eval_shape(optax.adam(1.0).init, params), mesh)
  for name, spec in specs(params, mesh).items():
    for moment in ('mu', 'nu'):
      assert found[f'0/{moment}/{name}'] == spec
  assert found['0/count'] == P()


def test_fsdp_splits_the_largest_dimension_that_is_free_and_divides():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  tree = {
    'head': {'kernel': jnp.zeros((6, 10))},
    'other': jnp.zeros((7, 4, 2)),
    'fc1': {'kernel': jnp.zeros((4, 16))},
    'fc2': {'kernel': jnp.zeros((7, 16))},  # 7 does not divide
    'odd': jnp.zeros((3, 5)),
    'scalar': jnp.zeros(()),
  }
  assert specs(tree, mesh) == {
    'head/kernel': P(None, 'fsdp'),
    'other': P(None, 'fsdp', None),
    'fc1/kernel': P('fsdp', 'tensor'),
    'fc2/kernel': P(None, 'fsdp'),
    'odd': P(None, None),
    'scalar': P(),
  }


def test_heads_that_do_not_divide_are_left_whole():
  mesh = sharding.make_mesh(tensor=8)
  found = specs(parameters(), mesh)
  assert found['block_0/attn/qkv/kernel'] == P(None, None, None, None)
  assert found['block_0/mlp/fc1/kernel'] == P(None, 'tensor')


@pytest.mark.parametrize(
  ('axes', 'tree', 'message'),
  [
    ({'tensor': 8}, None, r'tensor=8 .* 2 heads .*attn.* one of \[1, 2\]'),
    ({'tensor': 2}, {'odd': (4, 4)}, r'tensor=2 would split no parameter'),
    (
      {'fsdp': 8},
      {'a': (9, 6), 'b': (8, 1)},
      r'=8 .* 54 of 62 .* in a .* as 2\.',
    ),
  ],
)
def test_an_axis_that_would_split_too_little_is_refused(axes, tree, message):
  mesh = sharding.make_mesh(**axes)
  params = parameters()
  if tree:
    params = {name: jnp.zeros(shape) for name, shape in tree.items()}
  with pytest.raises(ValueError, match=message):
    sharding.check_split(params, mesh)


@pytest.mark.parametrize('axes', [{}, {'tensor': 2}, {'fsdp': 8}])
def test_axes_that_split_a_model_are_accepted(axes):
  sharding.check_split(parameters(), sharding.make_mesh(**axes))


def test_a_parameter_of_a_lower_rank_than_its_rule_is_left_whole():
  mesh = sharding.make_mesh(tensor=2)
  assert specs({'x': {'fc1': {'kernel': jnp.zeros(4)}}}, mesh) == {
    'x/fc1/kernel': P(None)
  }


def test_annotated_arrays_say_where_they_belong():
  mesh = sharding.make_mesh(data=1, fsdp=8)
  params = parameters()
  annotated = sharding.annotate(params, mesh)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), annotated) == jax.tree.map(
    lambda x: (x.shape, x.dtype), params
  )
  kernel = annotated['block_0']['mlp']['fc1']['kernel']
  assert kernel.sharding.shard_shape(kernel.shape) == (16, 4)


@pytest.mark.parametrize(
  ('count', 'parts'), [(8, 4), (4, 4), (2, 2), (6, 2), (1, 1), (3, 1)]
)
def test_parts_of_a_batch_are_computed_where_they_are(count, parts):
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  rows = sharding.put({'image': np.arange(12 * count)}, mesh)['image']

  @jax.jit
  def sums(rows):
    add = lambda shared, split: shared + split.sum()
    split = rows.reshape(count, -1)
    return sharding.side_by_side(add, 1000, split, mesh=mesh)

  expected = 1000 + np.arange(12 * count).reshape(parts, -1).sum(1)
  np.testing.assert_array_equal(sums(rows), expected)


def sent(batch_size):
  """What a gradient of a small ViT on 8 devices sends, in bytes."""
  mesh = sharding.make_mesh(data=2, fsdp=4)
  model = models.build('vit', **VIT | {'width': 64, 'scan': True})
  image = jax.ShapeDtypeStruct(
    (batch_size, 16, 16, 3), jnp.float32, sharding=sharding.batched(mesh)
  )

  def loss(params, image):
    with sharding.keep_batch_split(batch_size, mesh):
      return model.apply({'params': params}, image).logits.mean()

  params = sharding.annotate(parameters(width=64, scan=True), mesh)
  place = jax.tree.map(lambda x: x.sharding, params)
  gradient = jax.jit(jax.grad(loss), out_shardings=place)
  program = gradient.lower(params, image).compile()
  return sum(hlo.traffic(program.as_text()).sent.values())


def test_fsdp_moves_parameters_and_not_the_batch():
  # Left alone, XLA gathers the batch: 29 times the bytes for 32 times as many.
  assert sent(256) == pytest.approx(sent(8), rel=0.1)


def test_without_fsdp_nothing_is_stated_about_the_batch():
  def loss(image):
    with sharding.keep_batch_split(8, sharding.make_mesh()):
      return nn.Dense(4).init_with_output(jax.random.key(0), image)[0]

  text = str(jax.make_jaxpr(loss)(jnp.zeros((8, 3))))
  assert 'sharding_constraint' not in text


def test_only_what_has_the_rows_of_the_batch_is_stated_to_be_split():
  class Rows(nn.Module):
    def __call__(self, image):
      table = jnp.zeros((3, 5))
      windows = jnp.repeat(image, 2, axis=0)
      return image, windows, table, jnp.float32(0), None, 7

  def loss(image):
    with sharding.keep_batch_split(8, sharding.make_mesh(fsdp=4)):
      return Rows().apply({}, image)[:4]

  text = str(jax.make_jaxpr(loss)(jnp.zeros((8, 3))))
  assert text.count('sharding_constraint[') == 2
