"""Distillation: a student learns from a frozen teacher, with or without labels.

- Hard (DeiT, arXiv:2012.12877, section 3, equation 3): what the teacher takes
  for the class of an image is a second label.
- Soft (the same, equation 2; arXiv:1503.02531, section 2): the divergence from
  the teacher's distribution, at a temperature.
- Consistent and patient (arXiv:2106.05237, section 3): soft, with the teacher
  alone (`alpha` 1), strong mixup, and for a very long time.

In all, the teacher sees the very image that the student sees: cropped,
augmented and mixed. A student with two heads (`models/deit.py`) learns the
labels with the first and the teacher with the second, any other both with one.

Departures from facebookresearch/deit: there the divergence is divided by the
number of images and that of classes, so that `alpha` weighs it a thousand times
less on ImageNet; here it is a mean over images, as in the papers. As there, the
labels are smoothed, and what the teacher says is not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from vit_jax.lookup import choose
from vit_jax.objectives.classification import classification
from vit_jax.ops import losses, mixing
from vit_jax.types import Array, Objective, Output


def distillation(
  model: nn.Module,
  *,
  teacher: nn.Module,
  kind: str = 'hard',
  alpha: float = 0.5,
  temperature: float = 1.0,
  label_smoothing: float = 0.0,
  mixup: float = 0.0,
  cutmix: float = 0.0,
  to_teacher: Callable[[Array], Array] = lambda image: image,
) -> Objective:
  """Returns the objective, whose `state['teacher']` has the teacher's arrays.

  The loss is (1 - alpha) * `label_loss` + alpha * `teacher_loss`. These are
  metrics, and so are `accuracy`, and `agreement`: how often the student takes
  the teacher's class.

  Args:
    model: the student; see `classification`.
    teacher: returns logits of the same classes; runs as for prediction, in the
      type of the image.
    kind: 'hard' or 'soft'.
    alpha: the teacher's part of the loss, from 0 to 1.
    temperature: of both distributions, for 'soft'.
    label_smoothing: of the labels; see `classification`.
    mixup: see `classification`.
    cutmix: likewise.
    to_teacher: from the image as the student takes it to the same image as the
      teacher takes it, where they are normalised differently.

  Raises:
    ValueError: if an option is out of range, or the classes differ; from
      `init`, if a head would learn nothing.
  """
  divergence = choose(KINDS, word=kind, kind='kind of distillation')
  supervised = classification(
    model, label_smoothing=label_smoothing, mixup=mixup, cutmix=cutmix
  )
  num_classes = model.num_classes
  _check(teacher, num_classes, kind=kind, alpha=alpha, temperature=temperature)

  def init(rng, batch):
    params, state = supervised.init(rng, batch)
    image = jnp.zeros((1, *batch['image'].shape[1:]), batch['image'].dtype)
    output = jax.eval_shape(supervised.predict, params, state, {'image': image})
    _check_heads(output, alpha=alpha)
    # The student starts as it would without a teacher.
    arrays = teacher.init(jax.random.fold_in(rng, 1), image, train=False)
    return params, {**state, 'teacher': dict(arrays)}

  def loss(params, state, batch, rng):
    mix_rng, dropout_rng = jax.random.split(rng)
    image, labels, mask = mixing.mix(
      mix_rng,
      batch,
      num_classes=num_classes,
      mixup_alpha=mixup,
      cutmix_alpha=cutmix,
    )
    said = _ask(teacher, state['teacher'], to_teacher(image))
    # The student reads no collection of that name.
    output, own = model.apply(
      {'params': params, **state},
      image,
      train=True,
      rngs={'dropout': dropout_rng},
      mutable=[name for name in state if name != 'teacher'],
    )
    for_labels, for_teacher = output.heads or (output.logits, output.logits)
    targets = (1 - label_smoothing) * labels + label_smoothing / num_classes
    found = output.logits.argmax(-1)
    values = {
      'label_loss': losses.softmax_cross_entropy(for_labels, targets),
      'teacher_loss': divergence(for_teacher, said, temperature),
      'accuracy': (found == labels.argmax(-1)).astype(jnp.float32),
      'agreement': (found == said.argmax(-1)).astype(jnp.float32),
    }
    metrics = {k: losses.masked_mean(x, mask) for k, x in values.items()}
    parts = metrics['label_loss'], metrics['teacher_loss']
    metrics['loss'] = (1 - alpha) * parts[0] + alpha * parts[1]
    return metrics['loss'], ({**own, 'teacher': state['teacher']}, metrics)

  return supervised._replace(init=init, loss=loss, frozen=('teacher',))


def _hard(
  logits: Float[Array, 'b k'], said: Float[Array, 'b k'], temperature: float
) -> Float[Array, ' b']:
  del temperature
  labels = jax.nn.one_hot(said.argmax(-1), said.shape[-1])
  return losses.softmax_cross_entropy(logits, labels)


def _soft(
  logits: Float[Array, 'b k'], said: Float[Array, 'b k'], temperature: float
) -> Float[Array, ' b']:
  return losses.kl_divergence(logits, said, temperature=temperature)


KINDS = {'hard': _hard, 'soft': _soft}


def _ask(
  teacher: nn.Module, arrays: dict, image: Float[Array, 'b h w c']
) -> Float[Array, 'b k']:
  """The teacher's logits, computed like the student's in the image's type."""
  params = jax.tree.map(lambda x: x.astype(image.dtype), arrays['params'])
  output = teacher.apply({**arrays, 'params': params}, image, train=False)
  return jax.lax.stop_gradient(output.logits)


def _check(
  teacher: nn.Module,
  num_classes: int,
  *,
  kind: str,
  alpha: float,
  temperature: float,
) -> None:
  theirs = getattr(teacher, 'num_classes', None)
  if theirs != num_classes:
    raise ValueError(
      f'The teacher has {theirs} classes and the student {num_classes}: they '
      'must be the same ones.'
    )
  if not 0 <= alpha <= 1:
    raise ValueError(f'{alpha=} is a part of the loss: between 0 and 1.')
  if temperature <= 0:
    raise ValueError(f'{temperature=} must be above 0.')
  if kind == 'hard' and temperature != 1:
    raise ValueError(f"{temperature=} is for kind='soft'; leave it at 1.")


def _check_heads(output: Output, *, alpha: float) -> None:
  if output.heads and len(output.heads) != 2:
    raise ValueError(
      f'The student has {len(output.heads)} heads; it needs one, or two, for '
      'the labels and for the teacher.'
    )
  if output.heads and alpha in (0, 1):
    raise ValueError(
      f'With {alpha=} one of the two heads of the student would learn nothing; '
      'give both a part, or take a student with one head.'
    )
