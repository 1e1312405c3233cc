"""A run on disk: what it is, and where it stands.

`runs/NAME/run.json` says what a run is: its config, class names, preprocessing
and versions, so that nothing else is needed to predict. `checkpoints/STEP/`
holds the state after that step in two items: `model` (params, state, EMA) and
`optimizer` (step, optimiser state). The position in the data is a function of
the step (see `data/pipeline.py`), and so is every random number; hence the
step is all that an exact resume needs besides the arrays.

Every checkpoint carries checksums, see `integrity`. None is written of a state
that is not finite.

On disk the blocks of a model are always stored one by one, whether the run
unrolled or scanned them, so a run may resume or be read in either form.
"""

import importlib.metadata
import json
import pathlib
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from vit_jax import divergence, integrity
from vit_jax.lookup import diff
from vit_jax.sharding import first_device

RUN_FILE = 'run.json'
# What may change when a run goes on: it alters how, but not what, it learns.
FREE = (
  'config.checkpoint.keep',
  'config.eval_batch_size',
  'config.loader',
  'config.log_every',
  'config.memory_gib',
  'config.mesh',
  'config.model.scan',
  'config.on_divergence',
  *('config.wandb', 'config.watch'),
)
# What may change when a run goes on as another one, see `branch`.
BRANCHING = (
  *FREE,
  'config.checkpoint',
  'config.duration',
  'config.eval_every',
  'config.evals',
  r'config.init.(?!teacher)\w+',
  'config.optim.schedule',
)
# What is needed to predict; the rest is needed to go on training.
MODEL = ('params', 'state', 'ema')
VERSIONS = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain')


def check_run(
  workdir: pathlib.Path,
  *,
  config: Mapping[str, Any],
  class_names: Sequence[str],
  image_shape: Sequence[int],
):
  """Checks that a directory is free, or holds this run.

  Raises:
    ValueError: if the directory holds a run with another config; the message
      shows the difference.
  """
  if not (workdir / RUN_FILE).exists():
    return
  run = _as_stored(config, class_names, image_shape)
  lines = _changes(read_run(workdir), run, free=FREE)
  if lines:
    raise ValueError(
      f'{workdir} holds another run (- there, + now):\n{lines}\nGive another '
      '--workdir, or delete that one to start over.'
    )


def write_run(
  workdir: pathlib.Path,
  *,
  config: Mapping[str, Any],
  class_names: Sequence[str],
  image_shape: Sequence[int],
):
  """Writes what a run is, unless it is there already."""
  path = workdir / RUN_FILE
  if path.exists() or jax.process_index() != 0:
    return
  workdir.mkdir(parents=True, exist_ok=True)
  run = _as_stored(config, class_names, image_shape)
  run['versions'] = {
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in VERSIONS},
  }
  partial = path.with_suffix('.partial')
  partial.write_text(json.dumps(run, indent=2) + '\n')
  partial.replace(path)


def branch(
  workdir: pathlib.Path,
  origin: str,
  *,
  total_steps: int,
  config: Mapping[str, Any],
  class_names: Sequence[str],
  image_shape: Sequence[int],
):
  """Lets a new run go on from a checkpoint of another, if it did not yet.

  It takes over all of it: parameters, optimiser and step; hence also the place
  in the data, and the random numbers. What follows is what the other run would
  have done, had it been given this duration and this schedule.

  Args:
    workdir: of the new run.
    origin: 'runs/other' for the newest checkpoint, 'runs/other@1000' for one.
    total_steps: of the new run, those before the branch included.
    config: of the new run; may differ from the other in `BRANCHING` only.
    class_names: of its data.
    image_shape: of its data.

  Raises:
    ValueError: if there is no such checkpoint, if it is too late for this run,
      or if the runs differ; the message shows the difference.
  """
  if steps(workdir):
    return
  run = _as_stored(config, class_names, image_shape)
  other, _, step = origin.partition('@')
  lines = _changes(read_run(pathlib.Path(other)), run, free=BRANCHING)
  if lines:
    raise ValueError(
      f'config.init.run: this run differs from {other} in more than its '
      f'duration and schedule (- there, + here):\n{lines}\nIts parameters '
      f'alone go anywhere: give config.init.params={origin}.'
    )
  step = _find_step(pathlib.Path(other), int(step) if step else None)
  integrity.check_whole(_directory(other) / str(step))
  if step >= total_steps:
    raise ValueError(
      f'config.init.run is at step {step}, but config.duration ends at '
      f'{total_steps}; it counts from the beginning of {other}.'
    )
  # Not before all have seen that there is nothing yet.
  multihost_utils.sync_global_devices('branch')
  if jax.process_index() == 0:
    copy = _directory(workdir) / str(step)
    partial = copy.with_suffix('.partial')
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(_directory(other) / str(step), partial)
    partial.replace(copy)
  # Nobody looks for the checkpoint before it is there.
  multihost_utils.sync_global_devices('branched')


def _as_stored(
  config: Mapping[str, Any],
  class_names: Sequence[str],
  image_shape: Sequence[int],
) -> dict[str, Any]:
  """What a run is, as it comes back from a file."""
  run = {
    'config': config,
    'class_names': list(class_names),
    'image_shape': list(image_shape),
  }
  return json.loads(json.dumps(run))


def _changes(
  old: Mapping[str, Any], new: Mapping[str, Any], *, free: Sequence[str]
) -> str:
  """Lines of what differs, but for the keys that are free to."""
  return '\n'.join(
    f'  {line}'
    for key in new
    for line in diff(old[key], new[key], key)
    if not re.match(rf'. ({"|".join(free)})[.:]', line)
  )


def read_run(workdir: pathlib.Path) -> dict[str, Any]:
  """Reads what a run is.

  Raises:
    ValueError: if there is no run in this directory.
  """
  path = pathlib.Path(workdir) / RUN_FILE
  if not path.exists():
    raise ValueError(
      f'{workdir} is no run directory: it has no {RUN_FILE}. Give the '
      '--workdir of `python -m vit_jax.main`.'
    )
  return json.loads(path.read_text())


class Checkpoints:
  """The checkpoints of one run; saving does not hold up the training."""

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    keep: int = 2,
    best: str = '',
    best_mode: str = 'max',
  ):
    """Opens `workdir/checkpoints`.

    Args:
      workdir: the run directory.
      keep: how many of the latest checkpoints are kept.
      best: the metric, such as 'test/accuracy', whose best checkpoint is kept
        as well; '' for none.
      best_mode: 'max' or 'min'.

    Raises:
      ValueError: if all checkpoints that there are are damaged.
    """
    self._directory = _directory(workdir)
    integrity.keep_whole(self._directory)
    keep_policy: Any = checkpoint_managers.LatestN(keep)
    if best:
      sign = 1.0 if best_mode == 'max' else -1.0
      keep_policy = checkpoint_managers.AnyPreservationPolicy(
        [
          keep_policy,
          checkpoint_managers.BestN(
            get_metric_fn=lambda metrics: sign * metrics[best],
            n=1,
            keep_checkpoints_without_metrics=False,
          ),
        ]
      )
    self._best = best
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=keep_policy,
        best_fn=(lambda metrics: metrics[best]) if best else None,
        best_mode=best_mode,
        cleanup_tmp_directories=True,
        todelete_subdir=integrity.DELETED,
        temporary_path_class=integrity.Sealed,
      ),
      item_names=('model', 'optimizer'),
    )

  def latest(self) -> int | None:
    """Returns the step of the newest checkpoint, None if there is none.

    Raises:
      OSError: if the newest could not be written.
    """
    with integrity.writing(self._directory):
      self._manager.wait_until_finished()
    return self._manager.latest_step()

  def save(
    self, step: int, tree: Mapping[str, Any], *, metrics: Mapping[str, float]
  ):
    """Starts writing a checkpoint; returns when the arrays may be reused.

    Args:
      step: how many steps were taken.
      tree: the state after them; the entries `MODEL` are one item on disk, so
        that a model can be read without its optimiser.
      metrics: what was measured at this very step; may be empty.

    Raises:
      Diverged: if the state is not finite.
      OSError: if this checkpoint, or the one before, could not be written.
    """
    divergence.check_arrays(tree, step=step)
    items = _split(tree)
    measured = {k: v for k, v in metrics.items() if k == self._best}
    with integrity.writing(self._directory):
      self._manager.save(
        step,
        args=ocp.args.Composite(
          **{k: ocp.args.StandardSave(v) for k, v in items.items()}
        ),
        metrics=measured or None,
        custom_metadata=integrity.MARK,
      )

  def check(self):
    """Raises an OSError if a checkpoint could not be written; does not wait."""
    if not self._manager.is_saving_in_progress():
      with integrity.writing(self._directory):
        self._manager.wait_until_finished()
      integrity.sweep(self._directory)

  def restore(self, step: int, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a checkpoint into abstract arrays with shardings.

    Entries that the checkpoint does not have, one of an earlier version, are
    left out.

    Raises:
      ValueError: if the checkpoint is not finite.
    """
    path = self._directory / str(step)
    items = {}
    for name, item in _split(tree).items():
      stored = _stored(path / name)
      items[name] = {key: item[key] for key in item if key in stored}
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        **{k: ocp.args.StandardRestore(v) for k, v in items.items()}
      ),
    )
    restored = {**restored.model, **restored.optimizer}
    integrity.check_finite(path, restored)
    return restored

  def __enter__(self):
    return self

  def __exit__(self, _, error, __):
    """Waits for the last checkpoint to be on disk."""
    if isinstance(error, integrity.WriteError):
      return  # there is none to wait for
    with integrity.writing(self._directory):
      self._manager.wait_until_finished()
    integrity.sweep(self._directory)
    self._manager.close()


def _split(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  model = {key: tree[key] for key in MODEL}
  rest = {key: tree[key] for key in tree if key not in MODEL}
  return {'model': model, 'optimizer': rest}


def steps(workdir: pathlib.Path) -> list[int]:
  """Lists the steps of which a run has a complete checkpoint."""
  return integrity.steps(_directory(workdir))


def _directory(workdir: str | pathlib.Path) -> pathlib.Path:
  return pathlib.Path(workdir).absolute() / 'checkpoints'


def read_model(
  workdir: pathlib.Path, *, step: int | None = None
) -> tuple[int, dict[str, Any]]:
  """Reads the model of a run onto the first device.

  Args:
    workdir: the run directory.
    step: which checkpoint; None for the newest.

  Returns:
    The step, and {'params', 'state', 'ema'} with unrolled blocks.

  Raises:
    ValueError: if there is no such checkpoint, or it is damaged, or what it
      holds is not finite.
  """
  step = _find_step(workdir, step)
  path = _directory(workdir) / str(step)
  integrity.check_whole(path, item='model')
  with ocp.StandardCheckpointer() as checkpointer:
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=first_device()),
      dict(checkpointer.metadata(path / 'model').item_metadata.tree),
    )
    model = checkpointer.restore(path / 'model', shapes)
  integrity.check_finite(path, model)
  return step, model


def _stored(item: pathlib.Path) -> set[str]:
  """The entries that an item of a checkpoint has."""
  with ocp.StandardCheckpointer() as checkpointer:
    return set(checkpointer.metadata(item).item_metadata.tree)


def _find_step(workdir: pathlib.Path, step: int | None) -> int:
  """The step, or the newest, if there is a checkpoint of it."""
  there = steps(workdir)
  if not there or (step is not None and step not in there):
    raise ValueError(
      f'{workdir} has no checkpoint of step {step}; it has {there}.'
      if there
      else f'{workdir} has no checkpoint yet.'
    )
  return there[-1] if step is None else step
