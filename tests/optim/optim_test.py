import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax import optim

CONSTANT = {'name': 'constant'}
RATE, DECAY, STEPS = 0.1, 0.5, 3


def build(params, name='sgd', **options):
  defaults = {
    'learning_rate': RATE,
    'total_steps': 100,
    'schedule': CONSTANT,
  }
  return optim.build(params, name=name, **{**defaults, **options})


def toy():
  rng = np.random.default_rng(0)
  return {
    'block_0': {
      'fc': {
        'kernel': jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
        'bias': jnp.asarray(rng.normal(size=(3,)), jnp.float32),
      }
    },
    'head': {'kernel': jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)},
  }


def descend(optimizer, params, grads):
  """Returns the parameters after each gradient, and the last state."""
  state, history = optimizer.tx.init(params), []
  for grad in grads:
    updates, state = optimizer.tx.update(grad, state, params)
    params = optax.apply_updates(params, updates)
    history.append(params)
  return history, state


def gradients(params):
  rng = np.random.default_rng(1)
  return [
    jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
    for _ in range(STEPS)
  ]


def assert_close(tree, other, **tolerance):
  tolerance = tolerance or {'rtol': 1e-5, 'atol': 1e-6}
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, **tolerance), tree, other
  )


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_an_optimiser_minimises_a_parabola(name):
  target = jax.tree.map(jnp.ones_like, toy())
  optimizer = build(
    toy(), name, schedule={'name': 'cosine'}, total_steps=400, clip_norm=1.0
  )

  def loss(params):
    difference = jax.tree.map(jnp.subtract, params, target)
    return optax.tree.norm(difference, squared=True)

  @jax.jit
  def step(carry, _):
    params, state = carry
    grads = jax.grad(loss)(params)
    updates, state = optimizer.tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  start = toy()
  (params, _), _ = jax.lax.scan(
    step, (start, optimizer.tx.init(start)), length=400
  )
  assert loss(params) < 1e-3 * loss(start)


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_shapes_suffice_to_build_and_to_plan_the_state(name):
  shapes = jax.eval_shape(toy)
  state = jax.eval_shape(build(shapes, name).tx.init, shapes)
  assert_close(
    jax.tree.map(lambda x: x.shape, state),
    jax.tree.map(lambda x: x.shape, build(toy(), name).tx.init(toy())),
  )


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_the_state_is_arrays_of_its_own(name):
  params, state = jax.jit(
    lambda: (params := toy(), build(params, name).tx.init(params))
  )()
  buffers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)}
  for leaf in jax.tree.leaves(state):
    assert isinstance(leaf, jax.Array)
    assert leaf.unsafe_buffer_pointer() not in buffers


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_a_step_keeps_the_types_and_shapes_of_the_state(name):
  optimizer = build(toy(), name, weight_decay=DECAY, momentum_dtype='bfloat16')
  state = optimizer.tx.init(toy())
  updates, after = jax.jit(optimizer.tx.update)(toy(), state, toy())
  describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert describe(after) == describe(state)
  assert describe(updates) == describe(toy())


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_momentum_can_be_stored_in_bfloat16(name):
  def count(dtype):
    state = build(toy(), name, momentum_dtype=dtype).tx.init(toy())
    return sum(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(state))

  assert count('bfloat16') == len(jax.tree.leaves(toy()))
  assert count(None) == 0


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_frozen_parameters_neither_move_nor_have_a_state(name):
  params = toy()
  optimizer = build(
    params,
    name,
    weight_decay=DECAY,
    learning_rate_mults=(('head/.*', 1.0), ('.*', 0.0)),
  )
  history, state = descend(optimizer, params, gradients(params))
  assert_close(history[-1]['block_0'], params['block_0'], rtol=0)
  assert np.all(history[-1]['head']['kernel'] != params['head']['kernel'])
  head_only = build(
    {'head': params['head']}, name, weight_decay_mults=((('.*/kernel', 1.0),))
  )
  expected = head_only.tx.init({'head': params['head']})
  assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(expected))


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_scanned_blocks_move_as_unrolled_ones(name):
  # So deep that adafactor could take the depth for an axis to factor.
  depth = 33 if name == 'adafactor' else 3
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  stack = {'kernel': draw(depth, 32, 33), 'bias': draw(depth, 32)}
  grads = {'kernel': draw(depth, 32, 33), 'bias': draw(depth, 32)}

  def unroll(tree):
    layer = lambda i: jax.tree.map(lambda x: x[i], tree)
    return {f'block_{i}': layer(i) for i in range(depth)}

  options = {'weight_decay': DECAY, 'layer_decay': 0.9, 'clip_norm': 1.0}
  scanned, _ = descend(
    build({'blocks': stack}, name, **options),
    {'blocks': stack},
    [{'blocks': grads}] * 2,
  )
  unrolled, _ = descend(
    build(unroll(stack), name, **options), unroll(stack), [unroll(grads)] * 2
  )
  assert_close(unroll(scanned[-1]['blocks']), unrolled[-1])


def scalar_run(name, grads, **options):
  """The parameter of one number after each of the gradients."""
  params = {'fc': {'kernel': jnp.full((1,), 2.0)}}
  optimizer = build(
    params,
    name,
    weight_decay=DECAY,
    weight_decay_mults=(('.*', 1.0),),
    **options,
  )
  grads = [{'fc': {'kernel': jnp.full((1,), grad)}} for grad in grads]
  history, _ = descend(optimizer, params, grads)
  return [float(params['fc']['kernel'][0]) for params in history]


GRADS = [1.0, -0.5, 0.25]


def test_three_steps_of_sgd():
  w, m, expected = 2.0, 0.0, []
  for grad in GRADS:
    m = 0.9 * m + grad
    w -= RATE * (m + DECAY * w)
    expected.append(w)
  np.testing.assert_allclose(scalar_run('sgd', GRADS), expected, rtol=1e-6)


def test_three_steps_of_sgd_with_nesterov_momentum():
  w, m, expected = 2.0, 0.0, []
  for grad in GRADS:
    m = 0.9 * m + grad
    w -= RATE * (grad + 0.9 * m + DECAY * w)
    expected.append(w)
  actual = scalar_run('sgd', GRADS, nesterov=True)
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_sgd_without_momentum_has_no_memory():
  optimizer = build(toy(), 'sgd', momentum=0.0)
  assert len(jax.tree.leaves(optimizer.tx.init(toy()))) == 1  # The step.
  actual = scalar_run('sgd', [1.0], momentum=0.0)
  np.testing.assert_allclose(actual, [2 - RATE * (1 + DECAY * 2)], rtol=1e-6)


def adam_direction(grads, eps):
  m, v = 0.0, 0.0
  for t, grad in enumerate(grads, 1):
    m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
    yield m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + eps)


@pytest.mark.parametrize('name', ['adam', 'adamw'])
def test_three_steps_of_adam_with_decoupled_decay(name):
  w, expected = 2.0, []
  for direction in adam_direction(GRADS, eps=1e-8):
    w -= RATE * (direction + DECAY * w)
    expected.append(w)
  np.testing.assert_allclose(scalar_run(name, GRADS), expected, rtol=1e-5)


def test_three_steps_of_rmsprop_with_decay_as_a_part_of_the_gradient():
  w, v, m, expected = 2.0, 1.0, 0.0, []
  for grad in GRADS:
    grad = grad + DECAY * w
    v = 0.9 * v + 0.1 * grad**2
    m = 0.8 * m + grad / np.sqrt(v + 1e-2)
    w -= RATE * m
    expected.append(w)
  actual = scalar_run('rmsprop', GRADS, momentum=0.8, eps=1e-2)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_three_steps_of_lion():
  w, m, expected = 2.0, 0.0, []
  for grad in GRADS:
    w -= RATE * (np.sign(0.9 * m + 0.1 * grad) + DECAY * w)
    m = 0.99 * m + 0.01 * grad
    expected.append(w)
  np.testing.assert_allclose(scalar_run('lion', GRADS), expected, rtol=1e-6)


def test_three_steps_of_adafactor():
  w, m, v, expected = 2.0, 0.0, 0.0, []
  for t, grad in enumerate(GRADS, 1):
    beta2 = 1 - t**-0.8
    v = beta2 * v + (1 - beta2) * grad**2
    m = 0.9 * m + 0.1 * grad / np.sqrt(v)
    w -= RATE * (m + DECAY * w)
    expected.append(w)
  actual = scalar_run('adafactor', GRADS, momentum_dtype=None)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_three_steps_of_lamb():
  params = toy()
  grads = gradients(params)
  history, _ = descend(build(params, 'lamb', weight_decay=DECAY), params, grads)
  kernel = lambda tree: np.asarray(tree['block_0']['fc']['kernel'], np.float64)
  bias = lambda tree: np.asarray(tree['block_0']['fc']['bias'], np.float64)

  w = kernel(params)
  directions = adam_direction(map(kernel, grads), eps=1e-6)
  for direction, moved in zip(directions, history, strict=True):
    update = direction + DECAY * w
    w = w - RATE * np.linalg.norm(w) / np.linalg.norm(update) * update
    np.testing.assert_allclose(kernel(moved), w, rtol=1e-4)

  w = bias(params)
  directions = adam_direction(map(bias, grads), eps=1e-6)
  for direction, moved in zip(directions, history, strict=True):
    w = w - RATE * direction  # Neither decay nor trust ratio.
    np.testing.assert_allclose(bias(moved), w, rtol=1e-4)


def test_lamb_moves_kernels_that_are_zero():
  params = jax.tree.map(jnp.zeros_like, toy())
  history, _ = descend(build(params, 'lamb'), params, gradients(params))
  assert np.any(history[0]['head']['kernel'])


def test_weight_decay_is_multiplied_by_the_learning_rate():
  # big_vision's wd of 1e-4 at a rate of 1e-3 is a weight_decay of 0.1.
  params = toy()
  schedule = {'name': 'linear'}
  optimizer = build(
    params, 'adam', learning_rate=1e-3, weight_decay=0.1, schedule=schedule
  )
  zeros = jax.tree.map(jnp.zeros_like, params)
  history, _ = descend(optimizer, params, [zeros] * 2)
  kernel = np.asarray(params['head']['kernel'])
  np.testing.assert_allclose(
    history[-1]['head']['kernel'],
    kernel * (1 - 1e-4) * (1 - 0.99e-4),
    rtol=1e-7,
  )
  bias = params['block_0']['fc']['bias']
  np.testing.assert_array_equal(history[-1]['block_0']['fc']['bias'], bias)


def test_multipliers_scale_decay_and_rate_of_a_parameter():
  params = toy()
  optimizer = build(
    params,
    momentum=0.0,
    weight_decay=DECAY,
    weight_decay_mults=(('head/.*', 3.0), ('.*', 0.0)),
    learning_rate_mults=(('head/.*', 0.25), ('.*', 1.0)),
  )
  ones = jax.tree.map(jnp.ones_like, params)
  updates, _ = optimizer.tx.update(ones, optimizer.tx.init(params), params)
  head = params['head']['kernel']
  assert_close(updates['head']['kernel'], -RATE * 0.25 * (1 + 3 * DECAY * head))
  assert_close(
    updates['block_0'], jax.tree.map(lambda x: -RATE * x, ones)['block_0']
  )


def test_layer_decay_multiplies_updates():
  params = toy()
  optimizer = build(
    params,
    momentum=0.0,
    layer_decay=0.5,
    learning_rate_mults=(('head/.*', 3.0), ('.*', 1.0)),
  )
  ones = jax.tree.map(jnp.ones_like, params)
  updates, _ = optimizer.tx.update(ones, optimizer.tx.init(params), params)
  assert_close(updates['block_0']['fc']['bias'], np.full(3, -RATE * 0.5))
  assert_close(updates['head']['kernel'], np.full((3, 2), -RATE * 3))


@pytest.mark.parametrize('factor', [0.0, 0.01, 100.0])
def test_gradients_are_clipped_to_a_global_norm(factor):
  params = toy()
  optimizer = build(params, momentum=0.0, clip_norm=2.0, learning_rate=1.0)
  grads = jax.tree.map(lambda x: factor * x, params)
  updates, _ = optimizer.tx.update(grads, optimizer.tx.init(params), params)
  norm = float(optax.tree.norm(grads))
  scale = 2.0 / norm if norm > 2 else 1.0
  assert_close(updates, jax.tree.map(lambda g: -scale * g, grads))


def test_frozen_gradients_do_not_count_in_the_norm():
  params = toy()
  optimizer = build(
    params,
    momentum=0.0,
    clip_norm=1.0,
    learning_rate=1.0,
    learning_rate_mults=(('head/.*', 0.0), ('.*', 1.0)),
  )
  grads = jax.tree.map(lambda x: 0.01 * x, params)
  grads['head']['kernel'] = jnp.full((3, 2), 1e6)
  updates, _ = optimizer.tx.update(grads, optimizer.tx.init(params), params)
  assert_close(updates['block_0'], jax.tree.map(jnp.negative, grads)['block_0'])


def test_the_logged_rate_is_the_applied_one():
  params = toy()
  schedule = {'name': 'cosine', 'warmup': 2}
  optimizer = build(params, momentum=0.0, schedule=schedule, total_steps=6)
  ones = jax.tree.map(jnp.ones_like, params)
  state = optimizer.tx.init(params)
  for step in range(6):
    updates, state = optimizer.tx.update(ones, state, params)
    np.testing.assert_allclose(
      -updates['head']['kernel'][0, 0], optimizer.learning_rate(step), 1e-6
    )


@pytest.mark.parametrize(
  'options, words',
  [
    ({'name': 'adamm'}, "Unknown optimizer: 'adamm'. Did you mean 'adam"),
    (
      {'name': 'adam', 'beta': 1.0},
      "option of .*'adam': 'beta'. .*b1, b2",
    ),
    ({'schedule': {'name': 'cosin'}}, "Unknown schedule: 'cosin'.*'cosine'"),
    ({'schedule': {'warmup': 3}}, 'names no schedule'),
    ({'schedule': {'name': 'cosine', 'warm': 3}}, "Did you mean 'warmup'"),
    ({'schedule': {'name': 'cosine', 'warmup': 101}}, 'warmup=101'),
    ({'clip_norm': 0.0}, 'clip_norm=0.0'),
    ({'weight_decay_mults': (('x', 1.0),)}, 'weight_decay_mults does not fit'),
    ({'learning_rate_mults': (('x', 1.0),)}, 'learning_rate_mults does not'),
    ({'layer_decay': 2.0}, 'layer_decay=2.0'),
  ],
)
def test_what_does_not_fit_is_an_error(options, words):
  with pytest.raises(ValueError, match=words):
    build(toy(), **options)
