"""Judges a trained model: `python -m vit_jax.tools.evaluate --workdir=...`."""

import sys
from collections.abc import Sequence

from vit_jax.tools import Parser, add_model, command

# The keys of the tables in vit_jax/evaluators, which take jax to import.
EVALUATORS = (
  *('classification', 'corruption', 'few_shot', 'knn', 'multilabel'),
  'sharpness',
)
SUITES = ('few_shot', 'robustness')


def parser() -> Parser:
  """Of the arguments."""
  parser = Parser(
    prog='python -m vit_jax.tools.evaluate',
    description='Evaluates a run as its config does, or on other data.',
    epilog='example: python -m vit_jax.tools.evaluate '
    '--workdir=runs/quickstart --data=digits:test --evaluator=knn',
  )
  add_model(parser)
  sets = parser.add_mutually_exclusive_group()
  sets.add_argument(
    '--data',
    action='append',
    help='address of data as in config.data.train, instead of the evaluation '
    'sets of the config; may be repeated',
  )
  sets.add_argument(
    '--suite',
    choices=SUITES,
    help='those of these data sets that TFDS has prepared here',
  )
  parser.add_argument(
    '--evaluator',
    choices=EVALUATORS,
    help='default: as in the config, or for --data the first there',
  )
  parser.add_argument(
    '--train',
    default='',
    help='for few_shot and knn: address of the labelled examples; default: '
    'those of the run',
  )
  parser.add_argument(
    '--batch_size', type=int, help="default: the config's eval_batch_size"
  )
  parser.add_argument('--json', action='store_true', help='for programs')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command."""
  args = parser().parse_args(argv)
  from vit_jax.tools.work import evaluate

  return evaluate.run(args)


if __name__ == '__main__':
  sys.exit(command(main))
