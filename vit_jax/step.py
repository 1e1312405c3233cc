"""One step: from a state and a batch to the next state.

This is the only place where anything is differentiated. It names no model, no
loss and no data set: it sees an objective and an optimiser, both pure
functions, and a batch of uint8 images. `train.py` jits it over the mesh.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vit_jax.experiment import Experiment, cast, dummy_batch
from vit_jax.ops import augment
from vit_jax.types import Batch, Params, State

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
  """Everything that a step changes.

  Attributes:
    step: () int32, how many steps were taken.
    params: what the gradient moves, float32.
    state: what it does not; see `types.State`.
    opt_state: of the optax transformation.
    ema: the moving average of `params`, None if the config asks for none.
  """

  step: jax.Array
  params: Params
  state: State
  opt_state: optax.OptState
  ema: Params | None


def make_init(experiment: Experiment) -> Callable[[], TrainState]:
  """Returns () -> TrainState, to be jitted so that no two arrays alias."""
  config = experiment.config

  def init():
    params, state = experiment.objective.init(
      # No step folds in this number, see make_step.
      jax.random.fold_in(jax.random.key(config['seed']), 2**32 - 1),
      dummy_batch(experiment.image_shape, 'float32'),
    )
    return TrainState(
      step=jnp.int32(0),
      params=params,
      state=state,
      opt_state=experiment.optimizer.tx.init(params),
      ema=params if config['ema'] else None,
    )

  return init


def make_step(
  experiment: Experiment,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Returns (TrainState, uint8 batch) -> (TrainState, metrics), pure."""
  config, objective = experiment.config, experiment.objective
  optimizer = experiment.optimizer
  augment_image = augment.pipeline(config['augment'])

  def loss_fn(params, state, batch, rng):
    augment_rng, rng = jax.random.split(rng)
    image = augment_image(augment_rng, batch['image'])
    image = augment.normalize(image, **config['normalize'])
    # The only decision on dtype: activations follow it, the parameters that
    # the optimiser moves stay float32.
    params, image = cast((params, image), config['dtype'])
    return objective.loss(params, state, {**batch, 'image': image}, rng)

  def gradients(params, state, batch, rng):
    grad_fn = jax.grad(loss_fn, has_aux=True)
    if config['accumulate'] == 1:
      return grad_fn(params, state, batch, rng)
    return accumulate(
      grad_fn, params, state, batch, rng, parts=config['accumulate']
    )

  def step(ts, batch):
    # Random numbers depend on the seed and the step alone: a resumed run
    # draws the same ones.
    rng = jax.random.fold_in(jax.random.key(config['seed']), ts.step)
    grads, (state, scalars) = gradients(ts.params, ts.state, batch, rng)
    updates, opt_state = optimizer.tx.update(
      grads,
      ts.opt_state,
      ts.params,
      # For optimisers that ask for a second gradient; the others ignore it.
      grad_fn=lambda params, _: gradients(params, ts.state, batch, rng)[0],
    )
    params = optax.apply_updates(ts.params, updates)
    scalars = {
      **scalars,
      'grad_norm': optax.tree.norm(grads),
      'learning_rate': jnp.asarray(optimizer.learning_rate(ts.step)),
    }
    return TrainState(
      step=ts.step + 1,
      params=params,
      state=objective.after_step(params, state, ts.step),
      opt_state=opt_state,
      ema=moving_average(ts.ema, params, ts.step, decay=config['ema']),
    ), scalars

  return step


def accumulate(
  grad_fn: Callable[..., Any],
  params: Params,
  state: State,
  batch: Batch,
  rng: jax.Array,
  *,
  parts: int,
) -> tuple[Params, tuple[State, Metrics]]:
  """Averages gradients and metrics over micro-batches, one after the other."""
  # Every `parts`-th row: a device finds its own rows in every micro-batch.
  micro_batches = jax.tree.map(
    lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
  )
  # Each micro-batch draws its own dropout.
  rngs = jax.random.split(rng, parts)
  first = jax.tree.map(lambda x: x[0], micro_batches)
  shapes, (_, scalars) = jax.eval_shape(grad_fn, params, state, first, rng)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes, scalars))

  def body(carry, inputs):
    state, total = carry
    grads, (state, scalars) = grad_fn(params, state, *inputs)
    return (state, jax.tree.map(jnp.add, total, (grads, scalars))), None

  (state, total), _ = jax.lax.scan(body, (state, zeros), (micro_batches, rngs))
  grads, scalars = jax.tree.map(lambda x: x / parts, total)
  return grads, (state, scalars)


def moving_average(
  ema: Params | None, params: Params, step: jax.Array, *, decay: float
) -> Params | None:
  """Moves the average; early on it follows faster, or it would stay at init."""
  if ema is None:
    return None
  decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, ema, params)
