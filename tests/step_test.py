import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import quickstart
from vit_jax import data, experiment, optim, sharding
from vit_jax.ops import kernels
from vit_jax.optim.sam import sharpness_aware
from vit_jax.step import (
  accumulate,
  in_groups,
  make_init,
  make_step,
  moving_average,
)

BATCH_SIZE = 16
DROPOUT = {'model.dropout': 0.5}
# What most tests leave out, because it takes seconds to compile.
FULL = {'model.depth': 1, 'objective.mixup': 0.2, **DROPOUT}
# Two rows a device, so that micro-batches may be split as well.
MESH_OF_2 = {'mesh.data': 2, 'mesh.fsdp': 1, 'mesh.tensor': 4}
MESHES = {
  'one device': {'data': 1, 'devices': 1},
  'eight devices': {'data': 8, 'devices': 8},
  'data, fsdp and tensor': {'data': 2, 'fsdp': 2, 'tensor': 2, 'devices': 8},
}


@pytest.fixture(scope='module', autouse=True)
def compile_fast():
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def build(**changes):
  """The quickstart, shrunk, by SGD: Adam would amplify rounding."""
  config = quickstart.get_config()
  values = {
    'duration': '10 steps',
    'batch_size': BATCH_SIZE,
    'data.train': 'digits:train[:64]',
    'evals.test.data': 'digits:test[:16]',
    'eval_batch_size': BATCH_SIZE,
    'model.width': 16,
    'model.depth': 0,
    'model.mlp_dim': 32,
    'model.num_heads': 2,
    'model.drop_path': 0.0,
    'objective.mixup': 0.0,
    'optim': {'name': 'sgd', 'learning_rate': 0.5, 'clip_norm': 1.0}
    | {'schedule': {'name': 'constant'}},
    # One process must not split its batch over devices before it is asked to.
    'mesh.data': 8,
  }
  for key, value in (values | changes).items():
    *parents, name = key.split('.')
    node = functools.reduce(getattr, parents, config)
    node[name] = value
  return experiment.build(config.to_dict())


@functools.cache
def digits():
  source = data.open('digits:train[:64]')
  batches = data.one_pass(
    source,
    data.build_transforms([{'name': 'resize', 'size': 16}]),
    batch_size=BATCH_SIZE,
    num_threads=0,
  )
  return next(iter(batches))


def first_state(built):
  """A state with a random head: at zero, nothing else would get a gradient."""
  ts = jax.device_get(jax.jit(make_init(built))())
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), ts.params
  )
  if ts.ema is None:
    return ts._replace(params=params)
  ema = ts.ema | {'params': jax.tree.map(np.copy, params)}
  return ts._replace(params=params, ema=ema)


def take(built, *, ts=None, batch=None):
  """One step; the state after it, and the metrics."""
  ts = first_state(built) if ts is None else ts
  batch = digits() if batch is None else batch
  return jax.device_get(jax.jit(make_step(built))(ts, batch))


def assert_close(actual, expected, *, rtol=1e-5):
  def check(path, a, b):
    scale = np.abs(b).max() if np.size(b) else 0
    np.testing.assert_allclose(
      a, b, rtol=rtol, atol=rtol * scale, err_msg=jax.tree_util.keystr(path)
    )

  jax.tree.map_with_path(check, actual, expected)


def moved(before, after):
  """Names of the parameters that changed."""
  old, new = (dict(jax.tree.leaves_with_path(x)) for x in (before, after))
  return {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path in old
    if not np.array_equal(old[path], new[path])
  }


@functools.cache
def everywhere():
  """The same step of the same experiment on each of the meshes."""
  built, results = build(**FULL), {}
  for name, axes in MESHES.items():
    devices = jax.devices()[: axes['devices']]
    mesh = sharding.make_mesh(**{**axes, 'devices': devices})
    on_mesh = built._replace(mesh=mesh)
    ts = first_state(on_mesh)
    ts = jax.device_put(ts, sharding.infer(ts, mesh))
    batch = sharding.put(digits(), mesh)
    results[name] = jax.jit(make_step(on_mesh))(ts, batch)
  return results


@pytest.mark.parametrize('mesh', list(MESHES)[1:])
def test_a_step_is_the_same_on_any_mesh(mesh):
  (expected, expected_scalars) = everywhere()['one device']
  (actual, scalars) = everywhere()[mesh]
  assert len(expected.params['head']['kernel'].devices()) == 1
  assert len(actual.params['head']['kernel'].devices()) == 8
  assert_close(jax.device_get(scalars), jax.device_get(expected_scalars))
  assert_close(jax.device_get(actual), jax.device_get(expected))
  assert scalars['grad_norm'] > 0.1


def test_parameters_and_momenta_stay_split():
  ts, _ = everywhere()['data, fsdp and tensor']
  kernel = ts.params['block_0']['mlp']['fc1']['kernel']
  assert kernel.sharding.shard_shape(kernel.shape) == (8, 16)
  shapes = [
    x.sharding.shard_shape(x.shape)
    for x in jax.tree.leaves(ts.opt_state)
    if x.shape == kernel.shape
  ]
  assert shapes == [(8, 16)]


def test_every_parameter_moves():
  ts = first_state(build(**FULL))
  after, scalars = everywhere()['one device']
  names = jax.tree.leaves_with_path(ts.params)
  assert len(moved(ts.params, after.params)) == len(names)
  assert after.step == 1
  assert scalars.keys() == {'loss', 'accuracy', 'grad_norm', 'learning_rate'}
  assert scalars['learning_rate'] == np.float32(0.5)


def test_four_micro_batches_equal_one_batch():
  whole, parted = build(), build(accumulate=4, **MESH_OF_2)
  ts = first_state(whole)
  assert_close(take(parted, ts=ts), take(whole, ts=ts))


def test_each_micro_batch_draws_its_own_numbers_and_sees_its_own_rows():
  def grad_fn(params, state, batch, rng):
    count = state['count']
    state = {
      'count': count + 1,
      'drawn': state['drawn'].at[count].set(jax.random.uniform(rng)),
      'rows': state['rows'].at[count].set(batch['row']),
    }
    mean = batch['row'].mean()
    return {'kernel': params['kernel'] * mean}, (state, {'loss': mean})

  state = {
    'count': jnp.int32(0),
    'drawn': jnp.zeros(4),
    'rows': jnp.zeros((4, 4)),
  }
  grads, (state, scalars) = accumulate(grad_fn, parts=4)(
    {'kernel': jnp.float32(2)},
    state,
    {'row': jnp.arange(16.0)},
    jax.random.key(0),
  )
  assert len(set(state['drawn'].tolist())) == 4
  # Each row once; and 16 rows on 4 devices leave each with one row of a part.
  assert state['rows'][0].tolist() == [0, 4, 8, 12]
  assert sorted(state['rows'].ravel().tolist()) == list(range(16))
  assert grads['kernel'] == 15 and scalars['loss'] == 7.5


def test_every_step_draws_its_own_numbers():
  built = build(**DROPOUT)
  ts = first_state(built)
  again, other = ts, ts._replace(step=np.int32(1))
  first, _ = take(built, ts=ts)
  np.testing.assert_array_equal(
    first.params['head']['kernel'],
    take(built, ts=again)[0].params['head']['kernel'],
  )
  assert moved(first.params, take(built, ts=other)[0].params)


@pytest.mark.parametrize(
  ('step', 'decay'), [(0, 1 / 10), (8, 9 / 18), (10_000, 0.9)]
)
def test_the_average_follows_faster_early_on(step, decay):
  ema, params = {'x': jnp.array([1.0, 2.0])}, {'x': jnp.array([3.0, -2.0])}
  new = moving_average(ema, params, jnp.int32(step), decay=0.9)
  expected = decay * ema['x'] + (1 - decay) * params['x']
  np.testing.assert_allclose(new['x'], expected, rtol=1e-6)


def test_the_average_is_of_the_new_parameters():
  built = build(ema=0.9)
  ts = first_state(built)
  after, _ = take(built, ts=ts)
  expected = jax.tree.map(
    lambda a, b: 0.1 * a + 0.9 * b, ts.ema['params'], after.params
  )
  assert_close(after.ema['params'], expected)


def test_without_a_decay_there_is_no_average():
  built = build(ema=0.0)
  after, _ = take(built)
  assert first_state(built).ema is None and after.ema is None


SGD = {'name': 'sgd', 'learning_rate': 0.5, 'schedule': {'name': 'constant'}}


def with_sam(**options):
  return {'optim': {**SGD, 'sam': options}}


def test_sam_without_a_radius_is_its_base_bit_by_bit():
  # With dropout, as both gradients must draw the same numbers.
  shared = {'ema': 0.0, **DROPOUT}
  plain, same, there = (
    take(build(**shared, **changes))[0].params
    for changes in ({'optim': SGD}, with_sam(rho=0.0), with_sam(rho=0.1))
  )
  jax.tree.map(np.testing.assert_array_equal, same, plain)
  difference = jax.tree.map(lambda a, b: a - b, there, plain)
  assert optax.tree.norm(difference) > 1e-3


@functools.cache
def sam_in_groups_of_4(mesh):
  axes = dict(MESHES[mesh])
  mesh = sharding.make_mesh(
    **axes | {'devices': jax.devices()[: axes['devices']]}
  )
  built = build(**DROPOUT, **with_sam(rho=0.5, alpha=0.5, group_size=4))
  built = built._replace(mesh=mesh)
  ts = first_state(built)
  ts = jax.device_put(ts, sharding.infer(ts, mesh))
  return jax.device_get(
    jax.jit(make_step(built))(ts, sharding.put(digits(), mesh))
  )


@pytest.mark.parametrize('mesh', list(MESHES)[1:])
def test_the_groups_of_sam_are_the_same_on_any_mesh(mesh):
  # Four groups: in turn on one device, each on two of eight, or one on each.
  assert_close(sam_in_groups_of_4(mesh), sam_in_groups_of_4('one device'))


@pytest.mark.parametrize('group_size', [2, 8, BATCH_SIZE])
@pytest.mark.parametrize('parts', [1, 2])
def test_sam_in_groups_is_a_loop_over_groups(group_size, parts):
  def loss(params, state, batch, rng):
    error = jnp.tanh(batch['image'] @ params) - batch['label']
    return jnp.mean(error**2), (state, {'loss': jnp.mean(error**2)})

  draw = np.random.default_rng(0).normal
  params = jnp.asarray(draw(size=3), jnp.float32)
  batch = {'image': draw(size=(BATCH_SIZE, 3)), 'label': draw(size=BATCH_SIZE)}
  batch = {key: jnp.asarray(x, jnp.float32) for key, x in batch.items()}
  nearby = functools.partial(sharpness_aware, rho=0.5, alpha=0.5, frozen=False)
  grad_fn, rng = jax.grad(loss, has_aux=True), jax.random.key(0)
  expected = [
    nearby(grad_fn)(
      params, (), {k: x[i : i + group_size] for k, x in batch.items()}, rng
    )
    for i in range(0, BATCH_SIZE, group_size)
  ]
  expected = jax.tree.map(lambda *x: jnp.stack(x).mean(0), *expected)
  actual = jax.jit(
    in_groups(
      nearby(accumulate(grad_fn, parts=parts)),
      group_size=group_size,
      mesh=sharding.make_mesh(),
    )
  )(params, (), batch, rng)
  assert_close(actual, expected)


@pytest.mark.parametrize(
  ('groups', 'shards'), [(0, (2, 4)), (4, (1, 4)), (BATCH_SIZE, (2, 4))]
)
def test_attention_is_told_how_the_mesh_splits_it(groups, shards, monkeypatch):
  sam = with_sam(rho=0.5, group_size=groups) if groups else {}
  built = build(**MESH_OF_2, **sam, **{'model.depth': 1})
  ts, seen = first_state(built), set()

  def spy(*_, place, **__):
    seen.add((place.device, place.shards))
    return 'xla'

  monkeypatch.setattr(kernels, 'choose_kernel', spy)
  jax.eval_shape(make_step(built), ts, digits())
  assert seen == {(built.mesh.devices.flat[0], shards)}


def test_micro_batches_do_not_change_what_sam_computes():
  sam = with_sam(rho=0.5)
  whole, parted = build(**sam), build(accumulate=4, **MESH_OF_2, **sam)
  ts = first_state(whole)
  assert_close(take(parted, ts=ts), take(whole, ts=ts))


def test_groups_draw_their_own_numbers_and_share_the_first_state():
  def grad_fn(params, state, batch, rng):
    row = batch['image'][0].astype(int)
    drawn = jax.nn.one_hot(row // 4, 4) * jax.random.uniform(rng)
    state = {
      'count': state['count'] + 1,
      'mean': 0.5 * state['mean'] + 0.5 * batch['image'].mean(),
      'frozen': state['frozen'],
    }
    return {'kernel': drawn}, (state, {'rows': jax.nn.one_hot(row, 16)})

  state = {
    'count': jnp.int32(7),
    'mean': jnp.float32(2),
    'frozen': jnp.float32(0.1),
  }
  mesh = sharding.make_mesh(data=2, tensor=4)
  grad_fn = jax.jit(in_groups(grad_fn, group_size=4, mesh=mesh))
  grads, (state, scalars) = grad_fn(
    {}, state, {'image': jnp.arange(16.0)}, jax.random.key(0)
  )
  assert len(set(grads['kernel'].tolist())) == 4
  assert np.flatnonzero(scalars['rows']).tolist() == [0, 4, 8, 12]
  assert state['count'] == 8 and state['mean'] == 1 + 7.5 / 2
  assert state['frozen'] == np.float32(0.1)


def test_schedule_free_learning_keeps_its_average_for_evaluation():
  adamw = {'name': 'adamw', 'learning_rate': 0.1, 'schedule_free': 0.5}
  built = build(ema=0.0, optim=adamw | {'schedule': {'name': 'constant'}})
  ts, _ = jax.jit(make_step(built))(jax.jit(make_init(built))(), digits())
  z = ts.opt_state.z
  # After one step x is z; after two, the mean of both z.
  assert_close(ts.ema['params'], z)
  after, _ = jax.jit(make_step(built))(ts, digits())
  mean = jax.tree.map(lambda x, y: (x + y) / 2, z, after.opt_state.z)
  assert_close(after.ema['params'], mean)
  assert moved(after.params, after.ema['params'])


def test_the_objective_has_a_word_after_each_step():
  built = build(ema=0.0)
  after_step = lambda params, state, step: {
    'bias': params['head']['bias'],
    'step': step,
  }
  built = built._replace(
    objective=built.objective._replace(after_step=after_step)
  )
  ts, _ = take(built)
  np.testing.assert_array_equal(ts.state['bias'], ts.params['head']['bias'])
  assert ts.state['step'] == 0 and ts.step == 1


def test_frozen_parameters_do_not_move():
  optimizer = {'name': 'adamw', 'learning_rate': 0.1, 'weight_decay': 0.1}
  frozen = (('patch_embed/.*', 0.0), ('.*', 1.0))
  built = build(optim=optimizer | {'learning_rate_mults': frozen})
  ts = first_state(built)
  after, _ = take(built, ts=ts)
  names = moved(ts.params, after.params)
  assert {name.split('/')[0] for name in names} == {
    *('pos_embed', 'norm', 'head'),
  }


@pytest.mark.parametrize('parts', [1, 2])
def test_bfloat16_ends_before_the_gradients(parts):
  built = build(dtype='bfloat16', accumulate=parts, **MESH_OF_2)
  seen = []

  def update(grads, state, params=None, **_):
    seen.extend(x.dtype for x in jax.tree.leaves((grads, params)))
    return grads, state

  tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
  built = built._replace(
    optimizer=optim.Optimizer(tx, built.optimizer.learning_rate)
  )
  ts = jax.eval_shape(make_init(built))
  after, scalars = jax.eval_shape(make_step(built), ts, digits())
  assert set(seen) == {jnp.dtype('float32')}
  assert {x.dtype for x in jax.tree.leaves((after.params, after.ema))} == {
    jnp.dtype('float32')
  }
  assert scalars['loss'].dtype == jnp.float32


def test_bfloat16_is_what_the_model_computes_in():
  built = build(dtype='bfloat16')
  rounded, exact = take(built)[1]['loss'], take(build())[1]['loss']
  assert rounded != exact
  assert rounded == pytest.approx(exact, rel=0.02)


def test_the_first_state_follows_the_seed():
  one, same, other = (
    jax.jit(make_init(build(seed=seed)))().params for seed in (0, 0, 1)
  )
  assert not moved(one, same)
  assert moved(one, other)
