"""How to descend: one optax transformation, built from a config.

For each parameter, with its two multipliers from tables of regexes,

  update = -learning_rate(step) * learning_rate_mult
           * (direction + weight_decay * weight_decay_mult * param)

which is AdamW as in PyTorch, and the convention of most papers. big_vision
multiplies decay by the schedule but not by the peak rate: its 1e-4 at a rate of
1e-3 is what is called 0.1 here.

A parameter whose learning rate multiplier is 0 is frozen: it has no state, does
not count in the norm to clip, and does not decay.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from vit_jax.lookup import choose, pick
from vit_jax.optim import adafactor, layerwise, masks, muon, schedules, stages
from vit_jax.optim.sam import Sharpness, check_groups, sharpness
from vit_jax.optim.schedule_free import averaged_params, without_schedule
from vit_jax.types import Params

KERNELS: masks.Table = (('.*/kernel', 1.0), ('.*', 0.0))
ALL: masks.Table = (('.*', 1.0),)
COSINE: Mapping[str, Any] = {'name': 'cosine', 'warmup': 0}


class Optimizer(NamedTuple):
  """The transformation of gradients, and what goes on around it.

  Attributes:
    tx: adds up to new parameters with `optax.apply_updates`; wants `params`.
    learning_rate: step -> rate, which `tx` applies by itself; to be logged.
    sam: the options of `sam.sharpness_aware`, if it is to make the gradients.
    average: (opt_state, params) -> the parameters to evaluate and to use, if
      they are not `params` themselves.
  """

  tx: optax.GradientTransformation
  learning_rate: schedules.Schedule
  sam: Sharpness | None = None
  average: Callable[[Any, Params], Params] | None = None


def sgd(
  *,
  momentum: float = 0.9,
  nesterov: bool = False,
  momentum_dtype: str | None = None,
) -> optax.GradientTransformation:
  """Sums of gradients: m = momentum * m + grad."""
  if not momentum:
    return optax.identity()
  return optax.trace(momentum, nesterov, accumulator_dtype=momentum_dtype)


def adam(
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  momentum_dtype: str | None = None,
) -> optax.GradientTransformation:
  """The quotient of debiased moments (arXiv:1412.6980, algorithm 1)."""
  if not b1:
    # The same, without a first moment in the state.
    return optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
  return optax.scale_by_adam(b1, b2, eps, mu_dtype=momentum_dtype)


def lamb(
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-6,
  momentum_dtype: str | None = None,
) -> optax.GradientTransformation:
  """Adam with the eps of LAMB; `build` adds the trust ratio after decay.

  DeiT III (arXiv:2204.07118) runs it with an eps of 1e-8 and a clip_norm of 1,
  defaults of its code and of apex's FusedLAMB. A kernel that starts at zero, as
  the head of a ViT, grows from its first step by no more than the learning rate
  a step: give it a deviation (`head_std`).
  """
  return adam(b1=b1, b2=b2, eps=eps, momentum_dtype=momentum_dtype)


def lion(
  *, b1: float = 0.9, b2: float = 0.99, momentum_dtype: str | None = None
) -> optax.GradientTransformation:
  """The sign of an interpolated momentum (arXiv:2302.06675, algorithm 2)."""
  return optax.scale_by_lion(b1, b2, mu_dtype=momentum_dtype)


def rmsprop(
  *,
  decay: float = 0.9,
  momentum: float = 0.9,
  eps: float = 1e-3,
  momentum_dtype: str | None = None,
) -> optax.GradientTransformation:
  """Sums of gradients over the root of their mean square, as in TensorFlow.

  v = decay * v + (1 - decay) * grad^2 starts at 1, so that the first steps are
  short, and eps stands under the root: m = momentum * m + grad / sqrt(v + eps).
  PyTorch starts v at 0 and adds eps to the root. Different from TensorFlow: the
  learning rate multiplies m, and not what m adds up, which is another thing
  only where the rate changes.
  """
  scaled = optax.scale_by_rms(decay, eps, initial_scale=1.0, eps_in_sqrt=True)
  summed = sgd(momentum=momentum, momentum_dtype=momentum_dtype)
  return optax.chain(scaled, summed)


# Directions of descent, before weight decay, which is decoupled in all but
# `COUPLED`: that is why adam and adamw are one.
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  'adafactor': adafactor.scale_by_adafactor,
  'adam': adam,
  'adamw': adam,
  'lamb': lamb,
  'lion': lion,
  'muon': muon.muon,
  'rmsprop': rmsprop,
  'sgd': sgd,
}

# Their decay is a part of the gradient, of a loss with the square of the norm.
COUPLED = ('rmsprop',)

# What can be made free of a schedule, and the momentum that this replaces.
MOMENTUM = {'adam': 'b1', 'adamw': 'b1', 'sgd': 'momentum'}

# The options of `build` that hold for every optimiser.
COMMON = (
  *('learning_rate', 'schedule', 'weight_decay', 'weight_decay_mults'),
  *('learning_rate_mults', 'layer_decay', 'clip_norm', 'sam', 'schedule_free'),
)


def build(
  params: Any,
  *,
  name: str,
  learning_rate: float,
  total_steps: int,
  schedule: Mapping[str, Any] = COSINE,
  weight_decay: float = 0.0,
  weight_decay_mults: masks.Table = KERNELS,
  learning_rate_mults: masks.Table = ALL,
  layer_decay: float | None = None,
  clip_norm: float | None = None,
  sam: Mapping[str, Any] | None = None,
  schedule_free: float | None = None,
  **options: Any,
) -> Optimizer:
  """Builds the optimiser of a run, see the top of this file.

  Args:
    params: arrays, or their shapes.
    name: one of `OPTIMIZERS`.
    learning_rate: the peak.
    total_steps: the length of the run.
    schedule: `{'name': one of SCHEDULES, option: value}`; durations in steps.
    weight_decay: relative to the learning rate; for those in `COUPLED`, a part
      of the gradient.
    weight_decay_mults: pairs (regex, multiplier), see `masks.match`.
    learning_rate_mults: likewise; 0 freezes.
    layer_decay: slows down early layers, see `layerwise.multipliers`.
    clip_norm: gradients of a larger global norm are scaled down to it.
    sam: `{'rho': 0.2, option: value}`, see `sam.sharpness`.
    schedule_free: b1, such as 0.9, of `schedule_free.without_schedule`; for an
      optimiser in `MOMENTUM` and a constant schedule.
    **options: the keywords of that optimiser.

  Raises:
    ValueError: if a name, an option, a regex or a duration does not fit.
  """
  if schedule_free is not None:
    momentum = choose(
      MOMENTUM, word=name, kind='optimizer for optim.schedule_free'
    )
    options = {momentum: 0.0, **options}
  spec = {'name': name, **options}
  direction = pick(OPTIMIZERS, spec=spec, kind='optimizer', hints=COMMON)()
  make_rate = pick(
    schedules.SCHEDULES, spec=schedule, kind='schedule', given=['total_steps']
  )
  if schedule_free is not None and schedule['name'] != 'constant':
    raise ValueError(
      f'optim.schedule_free averages in place of the schedule {schedule}; '
      "use {'name': 'constant', 'warmup': '5%'}."
    )
  rate = make_rate(learning_rate, total_steps=total_steps)
  decays = masks.match(
    params, table=weight_decay_mults, what='weight_decay_mults'
  )
  speeds = masks.match(
    params, table=learning_rate_mults, what='learning_rate_mults'
  )
  frozen = jax.tree.map(lambda mult: mult == 0, speeds)
  if layer_decay is not None:
    by_layer = layerwise.multipliers(params, layer_decay=layer_decay)
    speeds = jax.tree.map(lambda x, y: x * y, speeds, by_layer)

  descend = stages.skip(frozen, optax.chain(stages.clip(clip_norm), direction))
  decay = stages.add_weight_decay(weight_decay, mults=decays)
  if name in COUPLED:
    descend, decay = optax.chain(decay, descend), optax.identity()
  tx = optax.chain(
    descend,
    decay,
    stages.trust_ratio(mults=decays) if name == 'lamb' else optax.identity(),
    stages.scale(mults=speeds),
    optax.scale_by_learning_rate(rate),
  )
  sharp, average = None, None
  if sam is not None:
    sharp = pick(
      {'sam': sharpness},
      spec={'name': 'sam', **sam},
      kind='optimizer',
      given=('learning_rate', 'peak', 'total_steps'),
    )(frozen, learning_rate=rate, peak=learning_rate, total_steps=total_steps)
  if schedule_free is not None:
    tx = without_schedule(tx, learning_rate=rate, b1=schedule_free)
    average = functools.partial(averaged_params, b1=schedule_free)
  return Optimizer(tx, rate, sam=sharp, average=average)


def check(
  optimizer: Optimizer, *, batch_size: int, accumulate: int, ema: float
) -> None:
  """Raises a ValueError if an optimiser does not fit the rest of a config."""
  sam = optimizer.sam
  if sam is not None and sam.group_size is not None:
    check_groups(sam.group_size, batch_size=batch_size, accumulate=accumulate)
  if optimizer.average is not None and ema:
    raise ValueError(
      f'config.{ema=} with optim.schedule_free, which averages the parameters '
      'itself; set config.ema to 0.'
    )
