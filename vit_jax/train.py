"""The loop: steps, evaluations, reports and checkpoints, until it is done.

There is one, for every model, objective and data set; it names none of them.
"""

import collections
import logging
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections

from vit_jax import (
  checkpoint,
  divergence,
  feed,
  memory,
  metrics,
  processes,
  sharding,
  watch,
)
from vit_jax.experiment import Experiment, build
from vit_jax.initialize import initialize
from vit_jax.models import scan
from vit_jax.step import Step, TrainState, jit_step, judged, make_init
from vit_jax.types import Batch

logger = logging.getLogger(__name__)

# How many steps the host may be ahead of the device: enough to hide its work,
# few enough that batches do not pile up.
AHEAD = 2


def train(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> dict[str, float]:
  """Trains what the config says, or goes on where this run stopped.

  Args:
    config: made by a file in `configs/`.
    workdir: the run directory; if it holds checkpoints of the same config, the
      run continues after the newest, exactly as if it had never stopped.

  Returns:
    The newest value of each metric, such as {'test/accuracy': 0.98}.

  Raises:
    ValueError: if the config asks for what is not possible, if `workdir`
      belongs to another config or is in use, or if the loss is no longer finite
      and `config.on_divergence` knows no way on.
    OSError: if something cannot be written.
    Terminated: if SIGTERM ended the run early; the state is saved.
  """
  began = time.monotonic()
  workdir = pathlib.Path(workdir)
  experiment = build(config.to_dict())
  processes.check_shared(workdir)
  experiment, step = memory.settle(experiment, runs=(workdir, config.init.run))
  run = {
    'config': {
      **config.to_dict(),
      'accumulate': experiment.config['accumulate'],
    },
    'class_names': experiment.source.class_names,
    'image_shape': experiment.image_shape,
  }
  with processes.alone_in(workdir):
    checkpoint.check_run(workdir, **run)
    if config.init.run:
      checkpoint.branch(
        workdir, config.init.run, total_steps=experiment.total_steps, **run
      )
    options = dict(experiment.config['checkpoint'])
    del options['every']
    with checkpoint.Checkpoints(workdir, **options) as checkpoints:
      go_on(experiment, workdir, run, checkpoints, step=step, began=began)
  return metrics.newest(workdir)


def go_on(
  experiment: Experiment,
  workdir: pathlib.Path,
  run: dict[str, Any],
  checkpoints: checkpoint.Checkpoints,
  *,
  step: Step | None,
  began: float,
):
  """Trains to the end, from the newest checkpoint, and if need be again."""
  ts = restore_or_init(experiment, checkpoints)
  train_step = step or jit_step(experiment, ts)
  look = watch.build(experiment, ts)
  tries = collections.Counter()
  while True:
    # The step takes the place of `ts`.
    first_step, detours = int(ts.step), jax.device_get(ts.detours)
    batches = feed.batches(
      experiment,
      first_step=first_step,
      left_out=int(detours.batches_left_out),
    )
    # Not before all that can be wrong was found: the directory stays free.
    checkpoint.write_run(workdir, **run)
    with metrics.Writer(
      workdir,
      first_step=first_step,
      total_steps=experiment.total_steps,
      began=began,
      wandb_project=run['config']['wandb'],
      config=run['config'],
    ) as writer:
      try:
        return loop(
          *(experiment, ts, train_step, batches, checkpoints, writer, look)
        )
      except divergence.Diverged as error:
        diverged = error
    began, last = time.monotonic(), checkpoints.latest()
    policy = experiment.config['on_divergence']
    divergence.check_way_on(diverged, last, policy=policy, tries=tries[last])
    tries[last] += 1
    detours = divergence.roll_back(detours, lost=diverged.step - last)
    ts = restore_or_init(experiment, checkpoints)._replace(
      detours=sharding.replicate(detours, experiment.mesh)
    )
    logger.warning(
      '%s Back to step %d; the batches since then are left out.', diverged, last
    )


def loop(
  experiment: Experiment,
  ts: TrainState,
  train_step: Step,
  batches: Iterator[Batch],
  checkpoints: checkpoint.Checkpoints,
  writer: metrics.Writer,
  look: watch.Look,
):
  """Runs the steps that are left."""
  config, total = experiment.config, experiment.total_steps
  policy = config['on_divergence']
  clock = metrics.Clock(experiment.flops, config['batch_size'])
  running = collections.deque()

  def finish(left: int):
    """Waits until at most `left` steps are running, and reports the others."""
    while len(running) > left:
      step, scalars = running.popleft()
      scalars = {k: float(x) for k, x in jax.device_get(scalars).items()}
      if message := divergence.check_step(scalars, step=step, policy=policy):
        writer.message(message)
        scalars = {k: x for k, x in scalars.items() if math.isfinite(x)}
      checkpoints.check()
      clock.stepped()
      writer.advance(step)
      if due(step, config['log_every'], total):
        values = {f'train/{key}': value for key, value in scalars.items()}
        writer.scalars(step, values | clock.report())

  with processes.termination() as stops_after:
    for step in range(int(ts.step) + 1, total + 1):
      with clock.waiting():
        batch = next(batches)
      ts, scalars = train_step(ts, batch)
      running.append((step, scalars))
      finish(left=AHEAD)
      evaluates = due(step, config['eval_every'], total)
      stops = stops_after(step) and step < total
      saves = stops or due(step, config['checkpoint']['every'], total)
      if evaluates or saves:
        finish(left=0)
        results = evaluate(experiment, ts) if evaluates else {}
        if results:
          writer.scalars(step, results)
        if evaluates:
          look(ts, batch, writer)
        if saves:
          save(checkpoints, ts, results)
        if stops:
          raise processes.Terminated(
            f'Terminated after step {step}, which is saved. To go on, give the '
            'same command again.'
          )
        clock.restart()


def due(step: int, every: int, total: int) -> bool:
  """Whether something that happens every so many steps happens now."""
  return step == total or (every > 0 and step % every == 0)


def evaluate(experiment: Experiment, ts: TrainState) -> dict[str, float]:
  """Runs every evaluator; names its results like 'test/accuracy'."""
  model = judged(experiment, ts)
  return {
    f'{name}/{key}': value
    for name, run in experiment.evals.items()
    for key, value in run(model['params'], model['state']).items()
  }


def restore_or_init(
  experiment: Experiment, checkpoints: checkpoint.Checkpoints
) -> TrainState:
  """Returns the newest checkpoint; without one, a new state on the mesh."""
  mesh = experiment.mesh
  init = make_init(experiment)
  shapes = jax.eval_shape(init)
  sharding.check_split(shapes.params, mesh)
  shardings = sharding.infer(shapes, mesh)
  step = checkpoints.latest()
  if step is None:
    # Made inside one jit: no two arrays of it alias, so all can be donated.
    return initialize(experiment, jax.jit(init, out_shardings=shardings)())
  stored = jax.eval_shape(scan.unstack_blocks, shapes)
  restored = checkpoints.restore(
    step, sharding.annotate(stored, mesh)._asdict()
  )
  if 'detours' not in restored:  # of an earlier version
    none = jax.device_get(divergence.none_yet())
    restored['detours'] = sharding.replicate(none, mesh)
  ts = TrainState(**restored)
  if is_scanned(shapes):
    ts = jax.jit(scan.stack_blocks, out_shardings=shardings)(ts)
  return ts


def save(
  checkpoints: checkpoint.Checkpoints, ts: TrainState, results: dict[str, float]
):
  """Starts to write a checkpoint, with its blocks one by one."""
  if is_scanned(ts):
    ts = jax.jit(scan.unstack_blocks)(ts)
  checkpoints.save(int(ts.step), ts._asdict(), metrics=results)


def is_scanned(ts: TrainState) -> bool:
  """Whether the model's blocks are stacked for a scan."""
  unrolled = jax.eval_shape(scan.unstack_blocks, ts.params)
  return jax.tree.structure(unrolled) != jax.tree.structure(ts.params)
