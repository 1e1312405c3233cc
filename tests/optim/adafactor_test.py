import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax.optim import adafactor

STEPS = 3


def run(tx, params, grads):
  """Returns the updates of each step."""
  state, updates = tx.init(params), []
  for grad in grads:
    update, state = tx.update(grad, state, params)
    updates.append(update)
  return updates, state


def gradients(shapes):
  rng = np.random.default_rng(0)
  return [
    {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    for _ in range(STEPS)
  ]


def reference(grads, *, momentum=0.9, axes=None):
  """The paper's formulas; `axes` are the two that are factored."""
  moment, average, updates = 0, 0, []
  for step, grad in enumerate(grads, 1):
    beta2 = min(0.999, 1 - step**-0.8)
    moment = beta2 * moment + (1 - beta2) * (grad**2 + 1e-30)
    estimate = moment
    if axes:
      # The means are linear in the moment: averaging commutes with factoring.
      row, column = (moment.mean(axis, keepdims=True) for axis in axes)
      estimate = row * column / moment.mean(axes, keepdims=True)
    average = momentum * average + (1 - momentum) * grad / np.sqrt(estimate)
    updates.append(average)
  return updates


@pytest.mark.parametrize(
  'shape, axes',
  [
    ((7,), None),
    ((31, 40), None),  # One axis is too short.
    ((32, 40), (0, 1)),
    ((48, 3, 2, 32), (0, 3)),  # Fused queries, keys and values.
    ((4, 4, 32, 40), (2, 3)),  # A convolution.
  ],
)
def test_three_steps_follow_the_formulas(shape, axes):
  grads = gradients({'x': shape})
  tx = adafactor.scale_by_adafactor(momentum_dtype=None)
  updates, _ = run(tx, {'x': jnp.zeros(shape)}, grads)
  expected = reference([g['x'].astype(np.float64) for g in grads], axes=axes)
  for ours, theirs in zip(updates, expected, strict=True):
    np.testing.assert_allclose(ours['x'], theirs, rtol=2e-5, atol=1e-6)


def test_unrolled_parameters_move_as_in_optax():
  shapes = {'kernel': (48, 3, 2, 32), 'conv': (4, 4, 8, 40), 'bias': (40,)}
  params = {n: jnp.zeros(s) for n, s in shapes.items()}
  theirs = optax.scale_by_factored_rms(
    min_dim_size_to_factor=32,
    decay_rate_fn=lambda i, e: jnp.minimum(0.5, 1 - (i + 1.0) ** -e),
  )
  ours = adafactor.scale_by_adafactor(momentum=0.0, beta2_cap=0.5)
  grads = gradients(shapes)
  expected, _ = run(theirs, params, grads)
  updates, _ = run(ours, params, grads)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), updates, expected
  )


def test_scanned_layers_move_as_if_they_were_unrolled():
  depth, shapes = 40, {'kernel': (33, 34), 'bias': (35,)}
  grads = gradients({n: (depth, *s) for n, s in shapes.items()})
  tx = adafactor.scale_by_adafactor(momentum_dtype=None)
  scanned, _ = run(tx, {'blocks': grads[0]}, [{'blocks': g} for g in grads])
  layer = 17
  sliced = [{n: x[layer] for n, x in g.items()} for g in grads]
  alone, _ = run(tx, sliced[0], sliced)
  for stack, single in zip(scanned, alone, strict=True):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x[layer], y, atol=1e-6),
      stack['blocks'],
      single,
    )


def test_the_state_is_small():
  params = {'kernel': jnp.ones((32, 40)), 'bias': jnp.ones(40)}
  second, momentum = adafactor.scale_by_adafactor().init(params)
  assert second.moments['kernel'].row.shape == (32,)
  assert second.moments['kernel'].column.shape == (40,)
  assert second.moments['bias'].shape == (40,)
  assert momentum.ema['kernel'].dtype == jnp.bfloat16


def test_the_decay_of_the_second_moment_is_capped():
  # At a cap of 0 only the last gradient counts: its sign is the update.
  tx = adafactor.scale_by_adafactor(momentum=0.0, beta2_cap=0.0)
  grads = gradients({'x': (5,)})
  updates, _ = run(tx, {'x': jnp.zeros(5)}, grads)
  np.testing.assert_allclose(updates[-1]['x'], np.sign(grads[-1]['x']), 1e-5)


def test_no_gradient_is_no_update():
  zeros = {'x': jnp.zeros((32, 32)), 'y': jnp.zeros(3)}
  updates, _ = run(adafactor.scale_by_adafactor(), zeros, [zeros] * 2)
  assert not any(np.any(x) for x in jax.tree.leaves(updates))
