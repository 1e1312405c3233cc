"""Judges a trained model."""

import argparse
import json
from typing import Any

import jax
import rich.table

from vit_jax import experiment, sharding
from vit_jax.evaluators import EVALUATORS, SUITES
from vit_jax.tools import show
from vit_jax.tools.work.loading import load_model
from vit_jax.trained import Trained


def run(args: argparse.Namespace) -> int:
  """Evaluates what the arguments ask for."""
  trained = load_model(args)
  config = trained.run['config']
  if args.batch_size:
    config['eval_batch_size'] = args.batch_size
  evals = chosen(args, trained)
  source = held_out = None
  if any('' in options.values() for options in evals.values()):
    if args.pretrained:
      raise ValueError(
        f'The training data of {trained.name} are not known: give --train.'
      )
    # By the config of the run: what it held out is not among its examples.
    source, held_out = experiment.open_data(config)
  mesh = sharding.make_mesh()
  # Beside the batches, which are split over all devices.
  params, state = jax.device_put(
    (trained.params, trained.state), sharding.replicated(mesh)
  )
  runs = experiment.build_evals(
    {**config, 'evals': evals},
    predict=trained.predict,
    mesh=mesh,
    class_names=trained.run['class_names'],
    source=source,
    held_out=held_out,
  )
  if not runs:
    raise ValueError('None of these data sets is here.')
  results = {name: run(params, state) for name, run in runs.items()}
  if args.json:
    print(json.dumps(results, indent=2))
  else:
    show(_table(results), title=trained.name)
  return 0


def chosen(
  args: argparse.Namespace, trained: Trained
) -> dict[str, dict[str, Any]]:
  """The evaluations that the arguments ask for, as entries of config.evals.

  Raises:
    ValueError: if there is none, or `train` is for none of them.
  """
  config = trained.run['config']
  loss = {'loss': 'softmax', **config['objective']}['loss']
  specs = {name: {'name': name} for name in EVALUATORS}
  specs['classification']['loss'] = specs['sharpness']['loss'] = loss
  specs['few_shot']['train'] = specs['knn']['train'] = ''
  if args.suite:
    size = trained.run['image_shape'][0]
    evals = SUITES[args.suite](loss=loss, size=size)
  elif args.data:
    first = next(iter(config['evals'].values()), specs['classification'])
    evals = {address: {**first, 'data': address} for address in args.data}
  else:
    evals = config['evals']
  if not evals:
    raise ValueError(f'{trained.name} names no evaluation set: give --data.')
  if args.evaluator:
    evals = {
      name: {**specs[args.evaluator], 'data': options['data']}
      for name, options in evals.items()
    }
  if args.train:
    if not all('train' in options for options in evals.values()):
      raise ValueError('--train is for --evaluator=few_shot and knn only.')
    evals = {name: {**x, 'train': args.train} for name, x in evals.items()}
  return evals


def _table(results: dict[str, dict[str, float]]) -> rich.table.Table:
  table = rich.table.Table()
  table.add_column('data', overflow='fold')
  # Not all evaluators measure the same; a dict keeps the order.
  metrics = dict.fromkeys(key for values in results.values() for key in values)
  for metric in metrics:
    table.add_column(metric, justify='right')
  for name, values in results.items():
    table.add_row(
      name, *(f'{values[m]:.6g}' if m in values else '' for m in metrics)
    )
  return table
