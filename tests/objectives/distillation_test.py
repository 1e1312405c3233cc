"""What a student learns from a teacher; the rest is in objectives_test.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vit_jax.objectives import distillation
from vit_jax.ops import mixing
from vit_jax.types import Output

K = 4


class Linear(nn.Module):
  """Logits linear in the image, from one head or more."""

  num_classes: int | None = K
  num_heads: int = 1

  @nn.compact
  def __call__(self, image, *, train=False):
    x = image.reshape(len(image), -1)  # (B, D)
    heads = tuple(
      nn.Dense(self.num_classes, name=f'head_{i}')(x)
      for i in range(self.num_heads)
    )
    several = heads if self.num_heads > 1 else ()
    return Output(sum(heads) / self.num_heads, x, heads=several)


class BatchNormed(nn.Module):
  """A teacher that would move, were it trained."""

  num_classes: int = K

  @nn.compact
  def __call__(self, image, *, train=False):
    x = image.reshape(len(image), -1)  # (B, D)
    x = nn.BatchNorm(use_running_average=not train)(x)
    x = nn.Dropout(0.5, deterministic=not train)(x)
    return Output(nn.Dense(K)(x), x)


def batch(batch_size=6):
  rng = np.random.default_rng(0)
  return {
    'image': rng.normal(size=(batch_size, 4, 4, 3)).astype(np.float32),
    'label': rng.integers(0, K, batch_size).astype(np.int32),
    'mask': np.ones(batch_size, np.float32),
  }


def start(*, num_heads=1, teacher=None, **options):
  """Returns the objective, and what it starts from."""
  student, teacher = Linear(num_heads=num_heads), teacher or Linear()
  objective = distillation(student, teacher=teacher, **options)
  return objective, *objective.init(jax.random.key(0), batch())


def evaluate(**options):
  """Returns the logits of each head and the teacher, and the metrics."""
  objective, params, state = start(**options)
  data = batch()
  own = objective.predict(params, state, data)
  said = Linear().apply(state['teacher'], data['image'])
  _, (_, metrics) = objective.loss(params, state, data, jax.random.key(1))
  return own.heads or (own.logits, own.logits), said.logits, metrics


def log_softmax(logits):
  logits = np.asarray(logits, np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def cross_entropy(logits, labels):
  return -log_softmax(logits)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize('num_heads', [1, 2])
def test_hard_is_the_cross_entropy_of_the_labels_and_of_the_teachers(num_heads):
  heads, said, metrics = evaluate(num_heads=num_heads, alpha=0.3)
  labels = cross_entropy(heads[0], batch()['label'])
  teacher = cross_entropy(heads[1], np.argmax(said, axis=-1))
  np.testing.assert_allclose(metrics['label_loss'], labels, rtol=1e-5)
  np.testing.assert_allclose(metrics['teacher_loss'], teacher, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['loss'], 0.7 * labels + 0.3 * teacher, rtol=1e-5
  )


@pytest.mark.parametrize('num_heads', [1, 2])
def test_soft_is_the_divergence_at_a_temperature_times_its_square(num_heads):
  heads, said, metrics = evaluate(
    num_heads=num_heads, kind='soft', alpha=0.1, temperature=3.0
  )
  log_q, log_p = (log_softmax(x / 3) for x in (heads[1], said))
  teacher = 9 * (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
  np.testing.assert_allclose(metrics['teacher_loss'], teacher, rtol=1e-4)
  np.testing.assert_allclose(
    metrics['loss'],
    0.9 * cross_entropy(heads[0], batch()['label']) + 0.1 * teacher,
    rtol=1e-4,
  )


def test_agreement_and_accuracy_are_of_the_prediction():
  heads, said, metrics = evaluate(num_heads=2)
  found = np.argmax(heads[0] + heads[1], axis=-1)
  np.testing.assert_allclose(
    metrics['accuracy'], np.mean(found == batch()['label'])
  )
  np.testing.assert_allclose(
    metrics['agreement'], np.mean(found == np.argmax(said, axis=-1))
  )


def test_labels_are_smoothed_and_what_the_teacher_says_is_not():
  _, _, sharp = evaluate()
  heads, _, smooth = evaluate(label_smoothing=0.1)
  targets = 0.9 * np.eye(K)[batch()['label']] + 0.1 / K
  expected = -(targets * log_softmax(heads[0])).sum(-1).mean()
  np.testing.assert_allclose(smooth['label_loss'], expected, rtol=1e-5)
  assert smooth['teacher_loss'] == sharp['teacher_loss']


def gradient(objective, params, state, data):
  grad_fn = jax.grad(objective.loss, has_aux=True)
  return grad_fn(params, state, data, jax.random.key(1))[0]


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(temperature):
  options = dict(kind='soft', alpha=1.0, temperature=temperature)
  objective, params, state = start(**options)
  same = {'teacher': {'params': params}}
  for grad in jax.tree.leaves(gradient(objective, params, same, batch())):
    np.testing.assert_allclose(grad, 0, atol=1e-6)
  other = gradient(objective, params, state, batch())
  assert np.abs(other['head_0']['kernel']).max() > 1e-2


def test_the_teacher_alone_needs_no_labels():
  objective, params, state = start(kind='soft', alpha=1.0)
  data = batch()
  others = {**data, 'label': (data['label'] + 1) % K}
  jax.tree.map(
    np.testing.assert_array_equal,
    gradient(objective, params, state, data),
    gradient(objective, params, state, others),
  )


def test_each_head_learns_from_one_of_the_two():
  objective, params, state = start(num_heads=2)
  grads = gradient(objective, params, state, batch())
  data = batch()
  other = {**data, 'label': (data['label'] + 1) % K}
  after = gradient(objective, params, state, other)
  jax.tree.map(np.testing.assert_array_equal, grads['head_1'], after['head_1'])
  assert np.any(grads['head_0']['kernel'] != after['head_0']['kernel'])


def test_the_teacher_sees_the_mixed_image_of_the_student():
  data, rng = batch(), jax.random.key(3)
  mixed = mixing.mix(
    jax.random.split(rng)[0], data, num_classes=K, mixup_alpha=0.4
  )
  expected, actual = (
    objective.loss(params, state, x, rng)[1][1]
    for (objective, params, state), x in (
      (start(), {**data, 'image': mixed.image, 'label': mixed.labels}),
      (start(mixup=0.4), data),
    )
  )
  for key in expected:
    np.testing.assert_allclose(actual[key], expected[key], rtol=1e-6)
  objective, params, state = start()
  plain = objective.loss(params, state, data, rng)[1][1]
  assert plain['teacher_loss'] != actual['teacher_loss']


def test_the_teacher_neither_moves_nor_drops_anything():
  objective, params, state = start(teacher=BatchNormed())
  outcomes = [
    objective.loss(params, state, batch(), jax.random.key(seed))
    for seed in range(2)
  ]
  assert outcomes[0][0] == outcomes[1][0]
  jax.tree.map(np.testing.assert_array_equal, outcomes[0][1][0], state)


def test_the_teacher_may_see_the_image_in_other_numbers():
  objective, params, state = start(to_teacher=lambda x: 2 * x - 1)
  _, (_, metrics) = objective.loss(params, state, batch(), jax.random.key(0))
  image = 2 * batch()['image'] - 1
  said = Linear().apply(state['teacher'], image).logits
  own = objective.predict(params, state, batch()).logits
  expected = cross_entropy(own, np.argmax(said, axis=-1))
  np.testing.assert_allclose(metrics['teacher_loss'], expected, rtol=1e-5)


def test_the_teacher_computes_in_the_type_of_the_image():
  types = []

  class Spy(Linear):
    @nn.compact
    def __call__(self, image, *, train=False):
      output = super().__call__(image, train=train)
      types.append(output.logits.dtype)
      return output

  objective, params, state = start(teacher=Spy())
  types.clear()
  data = {**batch(), 'image': jnp.asarray(batch()['image'], jnp.bfloat16)}
  loss, (after, _) = objective.loss(params, state, data, jax.random.key(0))
  assert types == [jnp.bfloat16] and loss.dtype == jnp.float32
  jax.tree.map(np.testing.assert_array_equal, after, state)


def test_the_student_starts_as_it_would_without_a_teacher():
  objective, params, state = start()
  alone = Linear().init(jax.random.key(0), batch()['image'])['params']
  jax.tree.map(np.testing.assert_array_equal, params, alone)
  teacher = state['teacher']['params']
  assert np.any(teacher['head_0']['kernel'] != params['head_0']['kernel'])
  assert objective.judged(params, state) == {'params': params, 'state': {}}


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'kind': 'firm'}, "kind of distillation: 'firm'.*hard, soft"),
    ({'alpha': 1.5}, 'alpha=1.5'),
    ({'kind': 'soft', 'temperature': 0.0}, 'temperature=0.0'),
    ({'temperature': 3.0}, "temperature=3.0 is for kind='soft'"),
    ({'teacher': Linear(num_classes=7)}, 'teacher has 7 .* student 4'),
    ({'teacher': Linear(num_classes=None)}, 'teacher has None classes'),
    ({'mixup': -1.0}, 'mixup=-1.0'),
    ({'num_heads': 2, 'alpha': 1.0}, 'one of the two heads'),
    ({'num_heads': 3}, 'student has 3 heads'),
  ],
)
def test_what_does_not_fit_is_an_error(options, words):
  with pytest.raises(ValueError, match=words):
    start(**options)
