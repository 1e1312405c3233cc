"""Where a run starts: from other runs and published checkpoints.

`config.init.params` says what the model starts from, and `config.init.teacher`
whom it learns from. Either is a run directory, 'runs/other', or one checkpoint
of it, 'runs/other@1000', of which the averages are taken, if it has them; or
what `pretrained.initialize` reads: a name, a path or an address.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vit_jax import models, pretrained, trained
from vit_jax.evaluators.passes import to_host
from vit_jax.experiment import Experiment, dummy_batch, teacher_spec
from vit_jax.models import scan
from vit_jax.step import TrainState

# For config.init.teacher: one that knows nothing, as tests may want it.
UNTRAINED = 'random'


def initialize(experiment: Experiment, ts: TrainState) -> TrainState:
  """Puts what `config.init` names in place of random numbers.

  Raises:
    ValueError: if something cannot be found or read, or does not fit.
  """
  options = dict(experiment.config['init'])
  del options['run']
  params, teacher = options.pop('params'), options.pop('teacher', '')
  if params:
    ts = _start_model(experiment, ts, source=params, **options)
  if teacher not in ('', UNTRAINED):
    initial = ts.state['teacher']
    arrays = _load_teacher(experiment, initial, source=teacher)
    place = jax.tree.map(lambda x: x.sharding, initial)
    arrays = jax.device_put(arrays, place)
    ts = ts._replace(state={**ts.state, 'teacher': arrays})
  return ts


def _start_model(
  experiment: Experiment, ts: TrainState, **options: Any
) -> TrainState:
  """Starts the model, and with it the optimiser and the averages."""
  judged = experiment.objective.judged(ts.params, ts.state)
  variables = {'params': judged['params'], **judged['state']}
  loaded = _load(variables, grid=experiment.grid, **options)
  place = jax.tree.map(lambda x: x.sharding, variables)
  own = jax.device_put(loaded, place)
  params = own.pop('params')
  # Schedule-free learning keeps a second copy of what it starts from.
  place_of_state = jax.tree.map(lambda x: x.sharding, ts.opt_state)
  init = jax.jit(experiment.optimizer.tx.init, out_shardings=place_of_state)
  state = {**ts.state, **own}
  ts = ts._replace(params=params, state=state, opt_state=init(params))
  if ts.ema is None:
    return ts
  # A copy: an array that is donated twice is an error.
  copy = jax.device_put(loaded, place)
  return ts._replace(ema={'params': copy.pop('params'), 'state': copy})


def _load_teacher(
  experiment: Experiment, variables: Mapping[str, Any], *, source: str
) -> dict[str, Any]:
  """Reads a teacher of these classes that knows such images."""
  config, class_names = experiment.config, experiment.source.class_names
  spec = teacher_spec(config, num_classes=len(class_names))
  normalize = spec.pop('normalize')
  _check_teacher(source, class_names=class_names, normalize=normalize)
  image = dummy_batch(experiment.image_shape, 'float32')['image']
  output = jax.eval_shape(models.build(**spec).apply, variables, image)
  options = {k: x for k, x in config['init'].items() if k == 'cache_dir'}
  grid = output.pyramid[-1].shape[1:3]
  return _load(variables, source=source, grid=grid, head='keep', **options)


def _check_teacher(
  source: str, *, class_names: Sequence[str], normalize: Mapping[str, Any]
) -> None:
  """Raises a ValueError if a teacher learnt other classes, or other numbers."""
  facts = trained.look_up(source)
  if facts is None:  # a file, which does not say
    return
  names = facts.class_names or class_names
  if tuple(names) != tuple(class_names):
    raise ValueError(
      f'The teacher {source} has {len(names)} classes, {", ".join(names[:3])}'
      f'..., and the data {len(class_names)}, {", ".join(class_names[:3])}...: '
      'they must be the same, in one order.'
    )
  for key, value in facts.normalize.items():
    if not np.allclose(value, normalize[key]):
      raise ValueError(
        f'The teacher {source} learnt from images of {key} {value} and would '
        f'see some of {normalize[key]}: give it its own mean and std in '
        'config.objective.teacher.normalize.'
      )


def _load(
  variables: Mapping[str, Any], *, source: str, **options: Any
) -> dict[str, Any]:
  """The arrays of a checkpoint in the structure of `variables`, on the host."""
  # Foreign names are mapped to blocks one by one.
  unrolled = jax.jit(scan.unstack_blocks)(variables)
  if (run := trained.find_run(source)) is not None:
    other = trained.load(run[0], step=run[1])
    options['loaded'] = {'params': other.params, **other.state}
  loaded = pretrained.initialize(to_host(unrolled), source=source, **options)
  if jax.tree.structure(unrolled) != jax.tree.structure(variables):
    loaded = scan.stack_blocks(loaded)
  return loaded
