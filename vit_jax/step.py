"""One step: from a state and a batch to the next state.

This is the only place where anything is differentiated. It names no model, no
loss and no data set: it sees an objective and an optimiser, both pure
functions, and a batch of uint8 images. `jit_step` puts it over the mesh.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vit_jax import divergence, sharding
from vit_jax.experiment import Experiment, dummy_batch
from vit_jax.ops import augment
from vit_jax.ops.precision import cast
from vit_jax.optim.sam import GradFn, sharpness_aware
from vit_jax.types import Batch, Params, State

Metrics = dict[str, jax.Array]
Step = Callable[['TrainState', Batch], tuple['TrainState', Metrics]]


class TrainState(NamedTuple):
  """Everything that a step changes.

  Attributes:
    step: () int32, how many steps were taken.
    params: what the gradient moves, float32.
    state: what it does not; see `types.State`.
    opt_state: of the optax transformation.
    ema: averages of `params` and `state` for evaluation, under these names,
      without what is frozen; None if the config asks for none.
    detours: steps that were skipped, and batches that were left out.
  """

  step: jax.Array
  params: Params
  state: State
  opt_state: optax.OptState
  ema: dict[str, Any] | None
  detours: divergence.Detours


def make_init(experiment: Experiment) -> Callable[[], TrainState]:
  """Returns () -> TrainState, to be jitted so that no two arrays alias."""
  config, objective = experiment.config, experiment.objective

  def init():
    params, state = objective.init(
      # No step folds in this number, see make_step.
      jax.random.fold_in(jax.random.key(config['seed']), 2**32 - 1),
      dummy_batch(experiment.image_shape, 'float32'),
    )
    averages = config['ema'] or experiment.optimizer.average
    return TrainState(
      step=jnp.int32(0),
      params=params,
      state=state,
      opt_state=experiment.optimizer.tx.init(params),
      ema=objective.judged(params, state) if averages else None,
      detours=divergence.none_yet(),
    )

  return init


def jit_step(experiment: Experiment, ts: TrainState) -> Any:
  """A step whose new state lies where the old one did, and takes its place.

  Args:
    experiment: what is trained.
    ts: arrays, or shapes with shardings.

  Returns:
    What `jax.jit` makes of a `Step`.
  """
  place = jax.tree.map(lambda x: x.sharding, ts)
  return jax.jit(
    make_step(experiment), donate_argnums=0, out_shardings=(place, None)
  )


def make_step(experiment: Experiment) -> Step:
  """Returns (TrainState, uint8 batch) -> (TrainState, metrics), pure.

  Raises:
    ValueError: if the augmentation is not possible.
  """
  config, objective = experiment.config, experiment.objective
  optimizer, gradients = experiment.optimizer, make_gradients(experiment)

  def step(ts, batch):
    grads, (state, scalars) = gradients(ts, batch)
    # A step that was skipped counts for these only.
    updates = ts.step - ts.detours.skipped
    delta, opt_state = optimizer.tx.update(grads, ts.opt_state, ts.params)
    params = optax.apply_updates(ts.params, delta)
    scalars = {
      **scalars,
      'grad_norm': optax.tree.norm(grads),
      'learning_rate': jnp.asarray(optimizer.learning_rate(updates)),
    }
    state = objective.after_step(params, state, updates)
    newest = objective.judged(params, state)
    if optimizer.average:
      ema = newest | {'params': optimizer.average(opt_state, params)}
    else:
      ema = moving_average(ts.ema, newest, updates, decay=config['ema'])
    new = TrainState(ts.step + 1, params, state, opt_state, ema, ts.detours)
    return end_of_step(new, ts, scalars, policy=config['on_divergence'])

  return step


def make_gradients(
  experiment: Experiment,
) -> Callable[[TrainState, Batch], tuple[Params, tuple[State, Metrics]]]:
  """Returns (TrainState, uint8 batch) -> gradients, (state, metrics), pure.

  Raises:
    ValueError: if the augmentation is not possible.
  """
  config, objective = experiment.config, experiment.objective
  optimizer = experiment.optimizer
  assert config['accumulate'] >= 1, 'see memory.settle'
  augment_image = augment.pipeline(config['augment'], **config['normalize'])
  image = dummy_batch(experiment.image_shape)['image']
  jax.eval_shape(augment_image, jax.random.key(0), image)
  mesh = experiment.mesh
  on_mesh = functools.partial(sharding.on, mesh)
  keep_split = functools.partial(sharding.keep_batch_split, mesh=mesh)
  if optimizer.sam and optimizer.sam.group_size is not None:
    # Each device computes its groups by itself, see `in_groups`.
    on_mesh = keep_split = contextlib.nullcontext

  def loss_fn(params, state, batch, rng):
    augment_rng, rng = jax.random.split(rng)
    image = augment_image(augment_rng, batch['image'])
    # The only decision on dtype: activations follow it, the parameters that
    # the optimiser moves stay float32.
    params, image = cast((params, image), config['dtype'])
    batch = {**batch, 'image': image}
    with on_mesh(), keep_split(len(image)):
      return objective.loss(params, state, batch, rng)

  def gradients(ts, batch):
    # Of the seed and the step alone: a resumed run draws the same numbers.
    rng = jax.random.fold_in(jax.random.key(config['seed']), ts.step)
    grad_fn = jax.grad(loss_fn, has_aux=True)
    if config['accumulate'] > 1:
      grad_fn = accumulate(grad_fn, parts=config['accumulate'])
    if sam := optimizer.sam:
      updates = ts.step - ts.detours.skipped
      grad_fn = sharpness_aware(
        grad_fn, rho=sam.rho(updates), alpha=sam.alpha, frozen=sam.frozen
      )
      if sam.group_size is not None:
        grad_fn = in_groups(grad_fn, group_size=sam.group_size, mesh=mesh)
    return grad_fn(ts.params, ts.state, batch, rng)

  return gradients


def judged(experiment: Experiment, ts: TrainState) -> dict[str, Any]:
  """The `params` and `state` that are evaluated: averages, if there are any."""
  if ts.ema is not None:
    return ts.ema
  return experiment.objective.judged(ts.params, ts.state)


def end_of_step(
  new: TrainState, old: TrainState, scalars: Metrics, *, policy: str
) -> tuple[TrainState, Metrics]:
  """The next state, and the metrics with what the policy counts."""
  if policy == 'skip':
    new = unless_skipped(new, old, scalars)
  return new, scalars | divergence.report(new.detours, policy=policy)


def unless_skipped(new: TrainState, old: TrainState, scalars: Metrics):
  """The new state; but for its number the old one, if something diverged."""
  finite = jnp.isfinite(scalars['loss']) & jnp.isfinite(scalars['grad_norm'])
  kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
  detours = divergence.skip(finite, old.detours)
  return kept._replace(step=new.step, detours=detours)


def accumulate(grad_fn: GradFn, *, parts: int) -> GradFn:
  """Averages gradients and metrics over micro-batches, one after the other."""

  def gradients(params, state, batch, rng):
    # Every `parts`-th row: a device finds its own rows in every micro-batch.
    micro_batches = jax.tree.map(
      lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )
    # Each micro-batch draws its own dropout.
    inputs = (micro_batches, jax.random.split(rng, parts))
    grads, (_, scalars) = _zeros(grad_fn, params, state, inputs)

    def body(carry, inputs):
      state, total = carry
      grads, (state, scalars) = grad_fn(params, state, *inputs)
      return (state, jax.tree.map(jnp.add, total, (grads, scalars))), None

    (state, total), _ = jax.lax.scan(body, (state, (grads, scalars)), inputs)
    grads, scalars = jax.tree.map(lambda x: x / parts, total)
    return grads, (state, scalars)

  return gradients


def in_groups(grad_fn: GradFn, *, group_size: int, mesh: Any) -> GradFn:
  """Averages gradients and metrics over groups of consecutive examples.

  The devices work side by side, each on its groups in turn, so that a gradient
  function that moves the parameters for each group holds one such copy at a
  time. Groups draw random numbers of their own and start from the same state,
  of which the changes are averaged: the result does not depend on the mesh.
  """

  def one(params, state, batch, rng):
    grads, (new_state, scalars) = grad_fn(params, state, batch, rng)
    return grads, jax.tree.map(jnp.subtract, new_state, state), scalars

  def in_turn(shared, inputs):
    total, _ = jax.lax.scan(
      lambda total, x: (jax.tree.map(jnp.add, total, one(*shared, *x)), None),
      _zeros(one, *shared, inputs),
      inputs,
    )
    return total

  def gradients(params, state, batch, rng):
    count = batch['image'].shape[0] // group_size
    groups = jax.tree.map(
      lambda x: x.reshape(count, group_size, *x.shape[1:]), batch
    )
    inputs = (groups, jax.random.split(rng, count))
    totals = sharding.side_by_side(in_turn, (params, state), inputs, mesh=mesh)
    # Only here do the devices talk to each other.
    grads, change, scalars = jax.tree.map(lambda x: x.sum(0) / count, totals)
    state = jax.tree.map(lambda x, dx: x + dx.astype(x.dtype), state, change)
    return grads, (state, scalars)

  return gradients


def _zeros(function, params, state, inputs):
  """Zeros like function(params, state, *inputs[0])."""
  first = jax.tree.map(lambda x: x[0], inputs)
  shapes = jax.eval_shape(function, params, state, *first)
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def moving_average(
  ema: Any, newest: Any, step: jax.Array, *, decay: float
) -> Any:
  """Moves the average; early on it follows faster, or it would stay at init."""
  if ema is None:
    return None
  decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, ema, newest)
