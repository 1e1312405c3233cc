"""From a config to the things that it names: built, checked, not yet run.

The training loop and the tools start here. All that can be wrong with a config
is found here, before the first step.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.errors
import jax
import jax.numpy as jnp

from vit_jax import (
  data,
  durations,
  evaluators,
  models,
  objectives,
  optim,
  sharding,
)
from vit_jax.keys import check_keys, is_optional
from vit_jax.ops import augment, flops
from vit_jax.ops.precision import cast
from vit_jax.types import Batch, Objective, Output, Params, State

logger = logging.getLogger(__name__)

Config = Mapping[str, Any]
Predict = Callable[[Params, State, Batch], Output]


# Those of an entry of `evals` that are not for the evaluator.
EVAL_KEYS = ('data', 'train', 'preprocess', 'optional')
# What of `loader` an evaluation follows: it decodes at full quality.
EVAL_LOADER = ('num_threads', 'num_workers', 'on_bad_image', 'timeout')


class Experiment(NamedTuple):
  """What the training loop needs.

  Attributes:
    config: with all durations in steps.
    total_steps: the length of the run.
    mesh: the devices.
    source: the training examples.
    image_shape: (h, w, c) after the transforms.
    grid: (h, w) of the model's coarsest map: tokens, for a ViT.
    objective: what is minimised.
    optimizer: how.
    evals: how it is judged, by name.
    flops: of a training step on one image, 2 per multiply-add; the backward
      pass counts as two forward passes.
  """

  config: Config
  total_steps: int
  mesh: Any
  source: data.Source
  image_shape: tuple[int, ...]
  grid: tuple[int, int]
  objective: Objective
  optimizer: optim.Optimizer
  evals: Mapping[str, evaluators.Run]
  flops: int


def build(
  config: Config,
  *,
  devices: Sequence[jax.Device] | None = None,
  source: data.Source | None = None,
) -> Experiment:
  """Builds all that a config names.

  Args:
    config: all of it.
    devices: of the mesh; None for all that are here.
    source: the training examples, in place of those that the config names.

  Raises:
    ValueError: if anything in it is unknown or does not fit.
  """
  check_keys(config)
  mesh = sharding.make_mesh(**config['mesh'], devices=devices)
  batch_size = config['batch_size']
  # What is left to the memory starts from one micro-batch, see `memory.settle`.
  accumulate = max(1, config['accumulate'])
  sharding.check_batch_size(batch_size, mesh, accumulate=accumulate)
  source, held_out = (source, None) if source else open_data(config)
  units = {'batch_size': batch_size, 'num_examples': len(source)}
  total_steps = durations.steps(config['duration'], **units)
  config = durations.resolve(config, total_steps=total_steps, **units)
  image_shape = first_shape(config, source, config['transforms'])
  objective = build_objective(config, num_classes=len(source.class_names))
  batch = dummy_batch(image_shape)
  params, state = jax.eval_shape(
    objective.init, jax.random.key(0), dummy_batch(image_shape, 'float32')
  )
  predict = make_predict(config, objective)
  output = jax.eval_shape(predict, params, state, batch)
  optimizer = optim.build(params, total_steps=total_steps, **config['optim'])
  optim.check(
    optimizer,
    batch_size=batch_size,
    accumulate=accumulate,
    ema=config['ema'],
  )
  if config['evals']:
    check_preprocess(config, source, predict, params=params, state=state)
  return Experiment(
    config=config,
    total_steps=total_steps,
    mesh=mesh,
    source=source,
    image_shape=image_shape,
    grid=output.pyramid[-1].shape[1:3],
    objective=objective,
    optimizer=optimizer,
    evals=build_evals(
      config,
      predict=predict,
      mesh=mesh,
      class_names=source.class_names,
      source=source,
      held_out=held_out,
    ),
    flops=3 * flops.count(predict, params, state, batch),
  )


def check_preprocess(
  config: Config,
  source: data.Source,
  predict: Predict,
  *,
  params: Params,
  state: State,
) -> None:
  """Raises a ValueError if the model cannot take what it is evaluated on."""
  own = {
    f'config.evals.{name}.preprocess': options['preprocess']
    for name, options in config['evals'].items()
    if 'preprocess' in options
  }
  for key, steps in {'config.preprocess': config['preprocess'], **own}.items():
    shape = first_shape(config, source, steps)
    try:
      jax.eval_shape(predict, params, state, dummy_batch(shape))
    except flax.errors.ScopeParamShapeError as error:
      trained_on = first_shape(config, source, config['transforms'])
      raise ValueError(
        f'config.transforms gives images {trained_on}, {key} {shape}, and the '
        f'model can take one size only: {error}'
      ) from error


def build_objective(config: Config, *, num_classes: int) -> Objective:
  """Builds the model, its teacher if it has one, and what it minimises."""
  model = models.build(**{'num_classes': num_classes, **config['model']})
  options = dict(config['objective'])
  if 'teacher' in options:
    spec = teacher_spec(config, num_classes=num_classes)
    normalize = {'old': config['normalize'], 'new': spec.pop('normalize')}
    options['teacher'] = models.build(**spec)
    options['to_teacher'] = functools.partial(augment.renormalize, **normalize)
  return objectives.build(model=model, **options)


def teacher_spec(config: Config, *, num_classes: int) -> dict[str, Any]:
  """A teacher for `models.build`, and `normalize`, of the images it knows."""
  spec = {'num_classes': num_classes, **config['objective']['teacher']}
  if 'scan' in spec:
    raise ValueError('config.objective.teacher.scan is that of config.model.')
  scan = {key: x for key, x in config['model'].items() if key == 'scan'}
  return {'normalize': config['normalize'], **spec, **scan}


def open_data(config: Config) -> tuple[data.Source, data.Source | None]:
  """Opens the training data, and what is held out of it for evaluation.

  Something is held out only if an evaluation set names no data of its own.
  """
  options = dict(config['data'])
  del options['repeats']
  if not options['train']:
    raise ValueError(
      'config.data.train names no data: give --config.data.train=/my/images '
      '(a folder for each class), a CSV file, or tfds:NAME.'
    )
  if all(evaluation['data'] for evaluation in config['evals'].values()):
    return data.open(options['train'], data_dir=options['data_dir']), None
  return data.open_pair(**options)


def open_eval(
  config: Config,
  address: str,
  *,
  class_names: Sequence[str],
  held_out: data.Source | None = None,
) -> data.Source:
  """Opens evaluation data; '' is what was held out of the training data."""
  if address or held_out is None:
    return data.open(
      address, class_names=class_names, data_dir=config['data']['data_dir']
    )
  if held_out.class_names != tuple(class_names):
    raise ValueError(
      'An evaluation with "train" of its own needs "data" as well: what is '
      'held out of the training data has other classes.'
    )
  return held_out


def build_evals(config: Config, **shared: Any) -> dict[str, evaluators.Run]:
  """Builds all evaluators of a config, see `build_eval`.

  Those that are `optional` are left out, with a warning, if their data are not
  there.
  """
  runs = {}
  for name, options in config['evals'].items():
    try:
      runs[name] = build_eval(config, options, **shared)
    except data.AbsentError as error:
      if not is_optional(options):
        raise
      logger.warning('%s is not evaluated: %s', name, error)
  return runs


def build_eval(
  config: Config,
  options: Mapping[str, Any],
  *,
  predict: Predict,
  mesh: Any,
  class_names: Sequence[str],
  source: data.Source | None = None,
  held_out: data.Source | None = None,
) -> evaluators.Run:
  """Builds one evaluator over its data.

  Args:
    config: of the run.
    options: `name` of the evaluator and its keywords; `data`, an address; and
      if need be `train`, the address of labelled examples, which are then those
      that name the classes; `preprocess`, instead of that of the config; and
      `optional`.
    predict: (params, state, uint8 batch) -> Output.
    mesh: the devices.
    class_names: of the model.
    source: the training data, for `train`: ''.
    held_out: of the training data, for `data`: ''.

  Raises:
    AbsentError: if there are no such data.
    ValueError: if anything is unknown or does not fit.
  """
  sharding.check_batch_size(config['eval_batch_size'], mesh)
  steps = {'preprocess': config['preprocess'], **options}['preprocess']
  transform = data.build_transforms(steps)
  index, count = sharding.share(mesh)

  def one_pass(source):
    for batch in data.one_pass(
      source,
      transform,
      batch_size=config['eval_batch_size'],
      process_index=index,
      process_count=count,
      # Runs of earlier versions do not have all of them.
      **{k: x for k, x in config['loader'].items() if k in EVAL_LOADER},
    ):
      yield sharding.put(batch, mesh)

  keywords = {k: x for k, x in options.items() if k not in EVAL_KEYS}
  if 'train' in options:
    train = source
    if options['train']:
      data_dir = config['data']['data_dir']
      train = data.open(options['train'], data_dir=data_dir)
    class_names = train.class_names
    keywords['train'] = lambda: one_pass(train)
  addresses = evaluators.addresses(options['name'], options['data'])
  sources = {
    key: open_eval(config, address, class_names=class_names, held_out=held_out)
    for key, address in addresses.items()
  }
  return evaluators.build(
    predict=sharding.on(mesh)(predict),
    batches=lambda *key: one_pass(sources[key]),
    **keywords,
  )


def first_shape(
  config: Config, source: data.Source, transforms: Sequence[Mapping[str, Any]]
) -> tuple[int, ...]:
  """Returns the shape (h, w, c) of images after the transforms."""
  return first_batch(config, source, transforms)['image'].shape[1:]


def first_batch(
  config: Config, source: data.Source, transforms: Sequence[Mapping[str, Any]]
) -> Batch:
  """Returns one example after the transforms, as a batch of one."""
  batches = data.pipeline(
    source,
    data.build_transforms(transforms),
    batch_size=1,
    seed=config['seed'],
    steps=1,
    on_bad_image=config['loader']['on_bad_image'],
  )
  return next(iter(batches))


def make_predict(config: Config, objective: Objective) -> Predict:
  """Returns (params, state, uint8 batch) -> Output in float32."""

  def predict(params, state, batch):
    image = augment.normalize(batch['image'], **config['normalize'])
    params, image = cast((params, image), config['dtype'])
    output = objective.predict(params, state, {**batch, 'image': image})
    return cast(output, 'float32')

  return predict


def dummy_batch(image_shape: tuple[int, ...], dtype: str = 'uint8') -> Batch:
  """A batch of one image (h, w, c), for its shapes.

  Objectives want float images, normalised; `make_predict` wants uint8.
  """
  return {
    'image': jnp.zeros((1, *image_shape), dtype),
    'label': jnp.zeros(1, jnp.int32),
    'mask': jnp.ones(1, jnp.float32),
  }
