"""LAMB, Lion and RMSProp against timm, for 20 steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax import optim

pytestmark = pytest.mark.parity

STEPS, RATE, DECAY = 20, 0.02, 0.1
SHAPES = {'fc1/kernel': (6, 4), 'fc1/bias': (4,), 'fc2/kernel': (4, 3)}


@pytest.fixture
def optimizers(timm):
  del timm  # It makes the import work.
  from timm import optim

  return optim


def random(seed):
  """Values that grow from one parameter to the next, as gradients may."""
  rng = np.random.default_rng(seed)
  return {
    name: (10.0**i * rng.normal(size=shape)).astype(np.float32)
    for i, (name, shape) in enumerate(SHAPES.items())
  }


def ours(name, **options):
  params = jax.tree.map(jnp.asarray, random(0))
  optimizer = optim.build(
    params,
    name=name,
    learning_rate=RATE,
    total_steps=STEPS,
    schedule={'name': 'constant'},
    weight_decay=DECAY,
    **options,
  )
  state = optimizer.tx.init(params)
  for step in range(STEPS):
    updates, state = optimizer.tx.update(random(1 + step), state, params)
    params = optax.apply_updates(params, updates)
  return params


def theirs(make, **options):
  import torch

  params = {name: torch.tensor(x) for name, x in random(0).items()}
  groups = [
    {
      'params': [x for name, x in params.items() if kind in name],
      'weight_decay': decay,
    }
    for kind, decay in (('kernel', DECAY), ('bias', 0.0))
  ]
  optimizer = make(groups, lr=RATE, **options)
  for step in range(STEPS):
    for name, grad in random(1 + step).items():
      params[name].grad = torch.tensor(grad)
    optimizer.step()
  return {name: x.numpy() for name, x in params.items()}


def assert_close(actual, expected):
  start = random(0)
  for name, value in expected.items():
    scale = np.abs(start[name]).max()
    np.testing.assert_allclose(
      actual[name], value, rtol=0, atol=1e-5 * scale, err_msg=name
    )
    # The steps went somewhere.
    assert np.abs(value - start[name]).max() > 1e-3 * scale


@pytest.mark.parametrize('eps', [1e-6, 1e-2])
@pytest.mark.parametrize('clip_norm', [None, 1.0])
def test_lamb(optimizers, clip_norm, eps):
  assert_close(
    ours('lamb', clip_norm=clip_norm, eps=eps),
    theirs(optimizers.Lamb, max_grad_norm=clip_norm, eps=eps),
  )


@pytest.mark.parametrize('b1, b2', [(0.9, 0.99), (0.95, 0.98)])
def test_lion(optimizers, b1, b2):
  assert_close(
    ours('lion', b1=b1, b2=b2), theirs(optimizers.Lion, betas=(b1, b2))
  )


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_rmsprop(optimizers, momentum):
  assert_close(
    ours('rmsprop', momentum=momentum),
    theirs(optimizers.RMSpropTF, momentum=momentum, eps=1e-3),
  )
