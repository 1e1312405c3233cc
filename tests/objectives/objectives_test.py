"""What each objective of the table must do."""

import functools

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vit_jax import objectives
from vit_jax.types import Output

NUM_CLASSES = 3


class Tiny(nn.Module):
  """A model as an objective sees one, with dropout and BatchNorm."""

  num_classes: int | None = NUM_CLASSES
  dropout: float = 0.0
  batch_norm: bool = False
  two_heads: bool = False

  @nn.compact
  def __call__(self, image, *, train=False):
    x = image.reshape(image.shape[0], -1)  # (B, D)
    x = nn.Dense(16, name='fc')(x)
    if self.batch_norm:
      x = nn.BatchNorm(use_running_average=not train, name='norm')(x)
    x = nn.Dropout(self.dropout)(nn.gelu(x), deterministic=not train)
    logits = nn.Dense(self.num_classes, name='head')(x)
    if not self.two_heads:
      return Output(logits=logits, pooled=x)
    heads = (logits, nn.Dense(self.num_classes, name='head_dist')(x))
    return Output(logits=sum(heads) / 2, pooled=x, heads=heads)


def labelled_images(batch_size=16):
  rng = np.random.default_rng(0)
  return {
    'image': rng.normal(size=(batch_size, 4, 4, 3)).astype(np.float32),
    'label': rng.integers(0, NUM_CLASSES, batch_size).astype(np.int32),
    'mask': np.ones(batch_size, np.float32),
  }


TEACHER = {'teacher': Tiny(dropout=0.3, batch_norm=True)}
# For each objective: its batch, a model for it, and the options to try.
CASES = {
  'classification': (
    labelled_images,
    Tiny,
    [
      {},
      {'loss': 'sigmoid'},
      {'label_smoothing': 0.1, 'mixup': 0.2, 'cutmix': 1.0},
    ],
  ),
  'distillation': (
    labelled_images,
    functools.partial(Tiny, two_heads=True),
    [
      TEACHER,
      TEACHER | {'kind': 'soft', 'temperature': 3.0, 'mixup': 0.2},
    ],
  ),
}
EACH = [
  pytest.param(name, options, id=f'{name}-{"-".join(options)}')
  for name, (_, _, variants) in CASES.items()
  for options in variants
]
MODELS = [{}, {'dropout': 0.3, 'batch_norm': True}]


def make(name, options=None, **fields):
  make_batch, model, variants = CASES[name]
  options = variants[0] if options is None else options
  objective = objectives.build(name, model=model(**fields), **options)
  batch = make_batch()
  params, state = jax.jit(objective.init)(jax.random.key(0), batch)
  return objective, params, state, batch


def sgd_step(objective, params, state, batch, rng):
  grad_fn = jax.value_and_grad(objective.loss, has_aux=True)
  (loss, (state, metrics)), grads = grad_fn(params, state, batch, rng)
  params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
  return params, objective.after_step(params, state, 0), loss, metrics


def test_each_objective_of_the_table_is_tested():
  assert set(CASES) == set(objectives.OBJECTIVES)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('fields', MODELS)
def test_an_objective_overfits_one_batch(name, fields):
  objective, params, state, batch = make(name, **fields)
  tx = optax.adam(1e-2)
  grad_fn = jax.value_and_grad(objective.loss, has_aux=True)

  @jax.jit
  def train(params, state):
    def step(carry, rng):
      params, state, opt_state = carry
      (loss, (state, _)), grads = grad_fn(params, state, batch, rng)
      updates, opt_state = tx.update(grads, opt_state, params)
      return (optax.apply_updates(params, updates), state, opt_state), loss

    rngs = jax.random.split(jax.random.key(1), 60)
    return jax.lax.scan(step, (params, state, tx.init(params)), rngs)

  _, losses = train(params, state)
  assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize('name, options', EACH)
@pytest.mark.parametrize('fields', MODELS)
def test_one_step_is_the_same_on_one_and_on_eight_devices(
  name, options, fields
):
  objective, params, state, batch = make(name, options, **fields)
  step = jax.jit(functools.partial(sgd_step, objective))
  alone = step(params, state, batch, jax.random.key(1))

  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  put = lambda tree, *axes: jax.device_put(
    tree, NamedSharding(mesh, PartitionSpec(*axes))
  )
  together = step(
    put(params), put(state), put(batch, 'data'), put(jax.random.key(1))
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    alone,
    together,
  )


@pytest.mark.parametrize('name, options', EACH)
def test_examples_under_the_mask_change_nothing(name, options):
  objective, params, state, batch = make(name, options)
  batch['mask'][-3:] = 0
  rng = jax.random.key(1)
  expected = sgd_step(objective, params, state, batch, rng)
  batch['image'][-3:] = 100
  batch['label'][-3:] = 0
  actual = sgd_step(objective, params, state, batch, rng)
  jax.tree.map(np.testing.assert_array_equal, expected, actual)


@pytest.mark.parametrize('name, options', EACH)
def test_a_batch_that_is_all_masked_has_no_gradient(name, options):
  objective, params, state, batch = make(name, options)
  batch['mask'][:] = 0
  after, _, loss, _ = sgd_step(
    objective, params, state, batch, jax.random.key(1)
  )
  assert loss == 0
  jax.tree.map(np.testing.assert_array_equal, params, after)


@pytest.mark.parametrize('name, options', EACH)
def test_every_parameter_receives_a_gradient(name, options):
  objective, params, state, batch = make(name, options, batch_norm=True)
  grads = jax.grad(objective.loss, has_aux=True)(
    params, state, batch, jax.random.key(1)
  )[0]
  del grads['fc']['bias']  # BatchNorm subtracts it again.
  for grad in jax.tree.leaves(grads):
    assert np.any(grad)


@pytest.mark.parametrize('name', CASES)
def test_init_needs_shapes_only(name):
  objective, params, state, batch = make(name, batch_norm=True)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
  actual = jax.eval_shape(objective.init, jax.random.key(0), shapes)
  assert jax.tree.map(lambda x: x.shape, actual) == jax.tree.map(
    lambda x: x.shape, (params, state)
  )


@pytest.mark.parametrize('name', CASES)
def test_the_key_decides_on_dropout_and_prediction_has_none(name):
  objective, params, state, batch = make(name, dropout=0.5)
  loss = lambda seed: objective.loss(
    params, state, batch, jax.random.key(seed)
  )[0]
  assert loss(0) == loss(0) != loss(1)
  predict = lambda: objective.predict(params, state, batch).pooled
  np.testing.assert_array_equal(predict(), predict())


@pytest.mark.parametrize('name', CASES)
def test_the_state_keeps_its_structure_and_moves_in_training_only(name):
  objective, params, state, batch = make(name, batch_norm=True)
  _, (after, _) = objective.loss(params, state, batch, jax.random.key(0))
  describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert describe(after) == describe(state)
  assert set(after) == {'batch_stats', *objective.frozen}
  moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), state, after)
  for entry, of_entry in moved.items():
    frozen = entry in objective.frozen
    assert {not frozen} == set(jax.tree.leaves(of_entry))


@pytest.mark.parametrize('name', CASES)
def test_a_model_without_state_has_none_but_what_is_frozen(name):
  objective, params, state, batch = make(name)
  _, (after, _) = objective.loss(params, state, batch, jax.random.key(0))
  assert set(state) == set(after) == set(objective.frozen)
  assert objective.judged(params, state) == {'params': params, 'state': {}}


@pytest.mark.parametrize('name', CASES)
def test_prediction_needs_nothing_that_is_frozen(name):
  objective, params, state, batch = make(name, batch_norm=True)
  judged = objective.judged(params, state)
  np.testing.assert_array_equal(
    objective.predict(judged['params'], judged['state'], batch).logits,
    objective.predict(params, state, batch).logits,
  )


@pytest.mark.parametrize(
  'name, options, words',
  [
    ('clasification', {}, "Unknown objective: 'clasification'. Did you mean"),
    ('classification', {'mixupp': 1.0}, "'mixupp'. Did you mean"),
  ],
)
def test_what_is_unknown_is_an_error(name, options, words):
  with pytest.raises(ValueError, match=words):
    objectives.build(name, model=Tiny(), **options)
