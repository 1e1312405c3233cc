"""A run on disk: what it is, and where it stands.

`runs/NAME/run.json` says what a run is: its config, class names, preprocessing
and versions, so that nothing else is needed to predict. `checkpoints/STEP/`
holds the state after that step in two items: `model` (params, state, EMA) and
`optimizer` (step, optimiser state). The position in the data is a function of
the step (see `data/pipeline.py`), and so is every random number; hence the
step is all that an exact resume needs besides the arrays.

On disk the blocks of a model are always stored one by one, whether the run
unrolled or scanned them, so a run may resume or be read in either form.
"""

import importlib.metadata
import json
import pathlib
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from vit_jax.sharding import first_device

RUN_FILE = 'run.json'
# What may change when a run goes on: it alters how, but not what, it learns.
FREE = (
  'config.checkpoint.keep',
  'config.eval_batch_size',
  'config.loader',
  'config.log_every',
  'config.mesh',
  'config.model.scan',
  'config.wandb',
)
# What is needed to predict; the rest is needed to go on training.
MODEL = ('params', 'state', 'ema')
VERSIONS = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain')


def write_run(
  workdir: pathlib.Path,
  *,
  config: Mapping[str, Any],
  class_names: Sequence[str],
  image_shape: Sequence[int],
):
  """Writes what a run is; or, if it is there already, checks that it is this.

  Raises:
    ValueError: if the directory holds a run with another config; the message
      shows the difference.
  """
  run = {
    'config': config,
    'class_names': list(class_names),
    'image_shape': list(image_shape),
  }
  run = json.loads(json.dumps(run))
  path = workdir / RUN_FILE
  if path.exists():
    stored = read_run(workdir)
    lines = [
      line
      for key in run
      for line in diff(stored[key], run[key], key)
      if not re.match(rf'. ({"|".join(FREE)})[.:]', line)
    ]
    if lines:
      raise ValueError(
        f'{workdir} holds another run (- there, + now):\n'
        + '\n'.join(f'  {line}' for line in lines)
        + '\nGive another --workdir, or delete that one to start over.'
      )
  elif jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    run['versions'] = {
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name) for name in VERSIONS},
    }
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(run, indent=2) + '\n')
    partial.replace(path)


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


def diff(old: Any, new: Any, path: str) -> list[str]:
  """Lists the differences of two trees, `- path: old` and `+ path: new`."""
  if isinstance(old, dict) and isinstance(new, dict):
    lines = []
    for key in sorted(old.keys() | new.keys()):
      if key not in new:
        lines.append(f'- {path}.{key}: {old[key]!r}')
      elif key not in old:
        lines.append(f'+ {path}.{key}: {new[key]!r}')
      else:
        lines += diff(old[key], new[key], f'{path}.{key}')
    return lines
  return [] if old == new else [f'- {path}: {old!r}', f'+ {path}: {new!r}']


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
    """
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
      pathlib.Path(workdir).absolute() / 'checkpoints',
      options=ocp.CheckpointManagerOptions(
        preservation_policy=keep_policy,
        best_fn=(lambda metrics: metrics[best]) if best else None,
        best_mode=best_mode,
        cleanup_tmp_directories=True,
      ),
      item_names=('model', 'optimizer'),
    )

  def latest(self) -> int | None:
    """Returns the step of the newest checkpoint, None if there is none."""
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
    """
    items = _split(tree)
    measured = {k: v for k, v in metrics.items() if k == self._best}
    self._manager.save(
      step,
      args=ocp.args.Composite(
        **{k: ocp.args.StandardSave(v) for k, v in items.items()}
      ),
      metrics=measured or None,
    )

  def restore(self, step: int, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a checkpoint into abstract arrays with shardings."""
    items = _split(tree)
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        **{k: ocp.args.StandardRestore(v) for k, v in items.items()}
      ),
    )
    return {**restored.model, **restored.optimizer}

  def __enter__(self):
    return self

  def __exit__(self, *_):
    """Waits for the last checkpoint to be on disk."""
    self._manager.wait_until_finished()
    self._manager.close()


def _split(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  model = {key: tree[key] for key in MODEL}
  rest = {key: tree[key] for key in tree if key not in MODEL}
  return {'model': model, 'optimizer': rest}


def steps(workdir: pathlib.Path) -> list[int]:
  """Lists the steps of which a run has a complete checkpoint."""
  directory = pathlib.Path(workdir) / 'checkpoints'
  return sorted(
    int(p.name)
    for p in directory.glob('[0-9]*')
    if p.is_dir() and p.name.isdigit()
  )


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
    ValueError: if there is no such checkpoint.
  """
  there = steps(workdir)
  if not there or (step is not None and step not in there):
    raise ValueError(
      f'{workdir} has no checkpoint of step {step}; it has {there}.'
      if there
      else f'{workdir} has no checkpoint yet.'
    )
  step = there[-1] if step is None else step
  path = pathlib.Path(workdir).absolute() / 'checkpoints' / str(step) / 'model'
  with ocp.StandardCheckpointer() as checkpointer:
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=first_device()),
      dict(checkpointer.metadata(path).item_metadata.tree),
    )
    return step, checkpointer.restore(path, shapes)
