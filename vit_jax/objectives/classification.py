"""Classification by softmax or sigmoid, with label smoothing and mixing.

The batch holds `image`, float (b, h, w, c), normalised; `label`, int (b,) or
soft (b, k); and `mask`, (b,), 0 for examples that do not count. With BatchNorm
they still enter the statistics of the batch.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vit_jax.ops import losses, mixing
from vit_jax.types import Objective


def classification(
  model: nn.Module,
  *,
  loss: str = 'softmax',
  label_smoothing: float = 0.0,
  mixup: float = 0.0,
  cutmix: float = 0.0,
) -> Objective:
  """Returns the objective, with metrics `loss` and `accuracy`.

  Args:
    model: has `num_classes`, and returns logits (b, num_classes).
    loss: one of `losses.LOSSES`: 'softmax', 'sigmoid' (the sum of one binary
      loss per class) or 'binary' (their mean, as in DeiT III).
    label_smoothing: s in (1 - s) * label + s / k (arXiv:1512.00567, section
      7); for softmax only.
    mixup: alpha of `mixing.mixup`; 0 for none.
    cutmix: alpha of `mixing.cutmix`; 0 for none. With both, each batch draws
      one of them, evenly.

  Raises:
    ValueError: if an option is out of range or the model has no classes; from
      `init`, if soft labels have another number of classes than the model.
  """
  num_classes = getattr(model, 'num_classes', None)
  if not num_classes:
    raise ValueError(
      f'{type(model).__name__} has {num_classes=}; classification needs a head.'
    )
  _check(loss, label_smoothing, mixup=mixup, cutmix=cutmix)

  def init(rng, batch):
    label = batch['label']
    if len(label.shape) == 2 and label.shape[1] != num_classes:
      raise ValueError(
        f'The labels have {label.shape[1]} classes, the model {num_classes}.'
      )
    # Parameters do not depend on the size of the batch.
    image = jnp.zeros((1, *batch['image'].shape[1:]), batch['image'].dtype)
    state = dict(model.init(rng, image, train=False))
    return state.pop('params'), state

  def mean_loss(params, state, batch, rng):
    mix_rng, dropout_rng = jax.random.split(rng)
    image, labels, mask = mixing.mix(
      mix_rng,
      batch,
      num_classes=num_classes,
      mixup_alpha=mixup,
      cutmix_alpha=cutmix,
    )
    output, state = model.apply(
      {'params': params, **state},
      image,
      train=True,
      rngs={'dropout': dropout_rng},
      mutable=list(state),
    )
    targets = (1 - label_smoothing) * labels + label_smoothing / num_classes
    per_example = losses.LOSSES[loss](output.logits, targets)
    correct = output.logits.argmax(-1) == labels.argmax(-1)
    metrics = {
      'loss': losses.masked_mean(per_example, mask),
      'accuracy': losses.masked_mean(correct.astype(jnp.float32), mask),
    }
    return metrics['loss'], (state, metrics)

  def predict(params, state, batch):
    variables = {'params': params, **state}
    return model.apply(variables, batch['image'], train=False)

  return Objective(init=init, loss=mean_loss, predict=predict)


def _check(
  loss: str, label_smoothing: float, *, mixup: float, cutmix: float
) -> None:
  if loss not in losses.LOSSES:
    raise ValueError(f'Unknown {loss=}; it is one of {sorted(losses.LOSSES)}.')
  if not 0 <= label_smoothing < 1:
    raise ValueError(f'{label_smoothing=} must be in [0, 1).')
  if label_smoothing and loss != 'softmax':
    raise ValueError(
      f'{label_smoothing=} is defined for softmax; use 0 with {loss}, whose '
      'labels do not sum to one.'
    )
  for name, alpha in {'mixup': mixup, 'cutmix': cutmix}.items():
    if alpha < 0:
      raise ValueError(f'{name}={alpha} must be positive; 0 switches it off.')
