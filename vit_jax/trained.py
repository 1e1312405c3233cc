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
  judged = model if model['ema'] is None else model['ema']
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
