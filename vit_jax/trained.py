"""A trained model, ready to use: from a run directory, or as published."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vit_jax import checkpoint, pretrained
from vit_jax.experiment import (
  Predict,
  build_objective,
  dummy_batch,
  make_predict,
)
from vit_jax.pretrained import catalogue
from vit_jax.pretrained.entry import NUM_CLASSES, Entry
from vit_jax.types import Objective, Params, State


class Trained(NamedTuple):
  """What the tools need.

  Attributes:
    name: the run and its step, or the name of the published checkpoint.
    run: `config`, `class_names` and `image_shape`, as in run.json.
    objective: the model, as a pure function.
    predict: (params, state, uint8 batch) -> Output in float32.
    params, state: see `types`; the moving averages, where the run keeps them.
  """

  name: str
  run: Mapping[str, Any]
  objective: Objective
  predict: Predict
  params: Params
  state: State


class Facts(NamedTuple):
  """What is on record about a trained model.

  Attributes:
    model: for `models.build`.
    normalize: `mean` and `std` of the images that it was trained on.
    class_names: in the order of its head; None if they are not known.
  """

  model: Mapping[str, Any]
  normalize: Mapping[str, Any]
  class_names: tuple[str, ...] | None


def find_run(source: str) -> tuple[pathlib.Path, int | None] | None:
  """The directory and the step of 'runs/other@1000', if there is such a run.

  Without a step it is None, which stands for the newest checkpoint.
  """
  directory, _, step = source.partition('@')
  path = pathlib.Path(directory)
  if not (path / checkpoint.RUN_FILE).is_file():
    return None
  return path, int(step) if step else None


def look_up(source: str) -> Facts | None:
  """What is known of a run, 'runs/other' or 'runs/other@1000', or a name.

  Returns:
    None if it is neither a run nor in the catalogue.
  """
  if (found := find_run(source)) is not None:
    run = checkpoint.read_run(found[0])
    model = dict(run['config']['model'])
    model.pop('scan', None)  # in files, blocks are one by one
    normalize = run['config']['normalize']
    return Facts(model, normalize, tuple(run['class_names']))
  if (entry := catalogue.look_up(source)) is None:
    return None
  config = published_config(entry)
  named = entry.labels in catalogue.NAMED
  names = catalogue.class_names(entry.labels) if named else None
  return Facts(config['model'], config['normalize'], names)


def load(workdir: str | pathlib.Path, *, step: int | None = None) -> Trained:
  """Loads a model from its run directory.

  Args:
    workdir: the run directory.
    step: which checkpoint; None for the newest.

  Raises:
    ValueError: if there is no run, or no such checkpoint.
  """
  workdir = pathlib.Path(workdir)
  run = checkpoint.read_run(workdir)
  step, model = checkpoint.read_model(workdir, step=step)
  config = run['config']
  config['model'].pop('scan', None)  # in files, blocks are one by one
  objective = build_objective(config, num_classes=len(run['class_names']))
  judged = model['ema']
  if judged is None:
    judged = objective.judged(model['params'], model['state'])
  return Trained(
    name=f'{workdir}, step {step:,}',
    run=run,
    objective=objective,
    predict=make_predict(config, objective),
    params=judged['params'],
    state=judged['state'],
  )


def load_pretrained(
  name: str, *, cache_dir: str | pathlib.Path | None = None
) -> Trained:
  """Loads a published checkpoint with its head, preprocessing and classes.

  Args:
    name: of the catalogue; a file name of AugReg; or the path of a copy that
      ends in one of these.
    cache_dir: where downloads are kept.

  Raises:
    ValueError: if there is no such checkpoint, or its head is zeros.
  """
  entry = catalogue.find(name)
  config = published_config(entry)
  number = NUM_CLASSES[entry.labels]
  objective = build_objective(config, num_classes=number)
  image_shape = (entry.preprocessing.size, entry.preprocessing.size, 3)
  params, state = jax.eval_shape(
    objective.init, jax.random.key(0), dummy_batch(image_shape, 'float32')
  )
  predict = make_predict(config, objective)
  output = jax.eval_shape(predict, params, state, dummy_batch(image_shape))
  state = pretrained.initialize(
    # The file has all of them: these only tell their shapes.
    jax.tree.map(
      lambda x: np.zeros(x.shape, x.dtype), {'params': params, **state}
    ),
    source=name,
    grid=output.pyramid[-1].shape[1:3],
    head='keep',
    cache_dir=cache_dir,
  )
  return Trained(
    name=entry.name,
    run={
      'config': config,
      'class_names': _class_names(entry),
      'image_shape': image_shape,
    },
    objective=objective,
    predict=predict,
    params=state.pop('params'),
    state=state,
  )


def published_config(entry: Entry) -> dict[str, Any]:
  """What a config says about a trained model, of a published one."""
  recipe = entry.preprocessing
  return {
    'model': {'name': entry.model, 'variant': entry.variant, **entry.overrides},
    'objective': {'name': 'classification', 'loss': entry.loss},
    'dtype': 'float32',
    'ema': 0.0,
    'preprocess': recipe.ops(),
    'normalize': {'mean': recipe.mean, 'std': recipe.std},
    'data': {'data_dir': None},
    'evals': {},
    'eval_batch_size': 64,
    'loader': {'num_threads': None, 'num_workers': 0, 'on_bad_image': 'skip'},
  }


def _class_names(entry: Entry) -> tuple[str, ...]:
  """The names of an entry's classes, or their numbers."""
  if entry.labels in catalogue.NAMED:
    return catalogue.class_names(entry.labels)
  return tuple(map(str, range(NUM_CLASSES[entry.labels])))
