"""One page about a run.

`report.html` in the run directory holds the results, the curves, the confusion
of classes, the calibration, the most confident mistakes as pictures, and the
config. It is one file that needs neither a network nor scripts. It can be made
at any time; `vit_jax.main` makes it at the end of a run.
"""

import argparse
import pathlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jinja2

from vit_jax import checkpoint, metrics
from vit_jax.experiment import open_data, open_eval
from vit_jax.keys import is_optional
from vit_jax.pretrained.catalogue import words
from vit_jax.tools.pictures import sources, verdicts
from vit_jax.tools.work import judgement
from vit_jax.trained import Trained, load

FILE = 'report.html'
# Examples of a set that are looked at when a run ends, at most.
AT_THE_END = 1000
# Classes that are still told apart in a matrix; pairs that are listed of more.
MATRIX, PAIRS = 25, 20
PICTURE = 160  # pixels of the longer side, at most


def run(args: argparse.Namespace) -> int:
  """Writes the page."""
  page = write(args.workdir, args.output, step=args.step, most=args.most)
  print(f'Written to {page}')
  return 0


def write(
  workdir: pathlib.Path,
  output: pathlib.Path | None = None,
  **options: Any,
) -> pathlib.Path:
  """Writes the page of a run, see `render`; returns where it is."""
  output = output or workdir / FILE
  output.write_text(render(workdir, **options), encoding='utf-8')
  return output


def render(
  workdir: pathlib.Path, *, step: int | None = None, most: int | None = None
) -> str:
  """Returns the page of a run.

  Args:
    workdir: the run directory.
    step: which checkpoint; None for the newest.
    most: examples of a set, at most; None for all.

  Raises:
    ValueError: if there is no run, or no such checkpoint.
  """
  run = checkpoint.read_run(workdir)
  config = run['config']
  rows = metrics.read_rows(workdir / 'metrics.jsonl')
  trained, sets = None, []
  if step is not None or checkpoint.steps(workdir):
    trained = load(workdir, step=step)
    sets = list(_sets(trained, most=most))
  page = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  ).get_template(FILE)
  drawn = verdicts.curves(rows)
  newest = {name: value for row in rows for name, value in row.items()}
  where = shlex.quote(str(workdir))
  return page.render(
    title=workdir.absolute().name,
    subtitle=_subtitle(config, trained),
    facts=_facts(trained, newest, config['evals']),
    results=_results(newest, config['evals']),
    curves=sources.svg(drawn, alike='curves') if drawn else '',
    sets=sets,
    config=list(_flat(config)),
    commands=f'python -m vit_jax.tools.evaluate --workdir={where}\n'
    f'python -m vit_jax.tools.report --workdir={where}',
    versions='  '.join(f'{k} {x}' for k, x in run['versions'].items()),
  )


def _subtitle(config: Mapping[str, Any], trained: Trained | None) -> str:
  model = config['model']
  variant = f' {model["variant"]}' if 'variant' in model else ''
  step = trained.name.rpartition(', ')[2] if trained else 'no checkpoint yet'
  return f'{model["name"]}{variant} on {config["data"]["train"]}, {step}'


def _facts(
  trained: Trained | None,
  newest: Mapping[str, Any],
  evals: Mapping[str, Any],
) -> list[tuple[str, str]]:
  """What one wants to know first: names and values, in words."""
  facts = [
    (f'accuracy on {name}', f'{newest[f"{name}/accuracy"]:.2%}')
    for name in evals
    if f'{name}/accuracy' in newest
  ][:3]
  if trained:
    size = sum(x.size for x in jax.tree.leaves(trained.params))
    facts += [
      ('parameters', _rounded(size)),
      ('classes', f'{len(trained.run["class_names"]):,}'),
    ]
  if 'step' in newest:
    facts.append(('steps', f'{newest["step"]:,}'))
  return facts


def _rounded(number: int) -> str:
  for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
    if number >= size:
      return f'{number / size:.3g} {unit}'
  return str(number)


def _results(
  newest: Mapping[str, Any], evals: Mapping[str, Any]
) -> dict[str, Any]:
  """A table of the newest value of each metric of each set."""
  found = {
    name: {
      metric.removeprefix(f'{name}/'): value
      for metric, value in newest.items()
      if metric.startswith(f'{name}/')
    }
    for name in evals
  }
  columns = list(dict.fromkeys(x for values in found.values() for x in values))
  return {
    'columns': columns,
    'rows': [
      (name, [metrics.number(x[k]) if k in x else '' for k in columns])
      for name, x in found.items()
      if x
    ],
  }


def _sets(trained: Trained, *, most: int | None) -> Iterator[dict[str, Any]]:
  """Judges each set that the run was evaluated on as a classifier."""
  config = trained.run['config']
  for name, options in config['evals'].items():
    if options['name'] != 'classification':
      continue
    spec = {'preprocess': config['preprocess'], **options}
    try:
      held_out = None if spec['data'] else open_data(config)[1]
      source = open_eval(
        config,
        spec['data'],
        class_names=trained.run['class_names'],
        held_out=held_out,
      )
      known = {k: spec[k] for k in ('loss', 'classes') if k in spec}
      found = judgement.judge(
        trained, source, preprocess=spec['preprocess'], most=most, **known
      )
    except (ValueError, OSError) as error:
      # Such as data that are on another machine.
      if is_optional(options):
        continue
      yield {'name': name, 'problem': f'It could not be looked at: {error}'}
    else:
      yield _set(name, found)


def _set(name: str, found: judgement.Judgement) -> dict[str, Any]:
  names = [words(x) for x in found.class_names]
  number, accuracy = len(found.label), found.correct.mean()
  whole = number == found.total
  bins = judgement.calibration(found)
  confusion, pairs = '', []
  if len(names) <= MATRIX:
    matrix = judgement.confusion(found)
    confusion = sources.svg(
      verdicts.confusion(matrix, class_names=names), alike=f'{name} confusion'
    )
  else:
    pairs = [
      (names[a], names[b], f'{n:,}', f'{size:,}')
      for a, b, n, size in judgement.confused_pairs(found, most=PAIRS)
    ]
  return {
    'name': name,
    'problem': '',
    'made_of': f'{found.correct.sum():,} of {number:,} examples are right, '
    f'{accuracy:.2%}'
    + ('.' if whole else f', evenly spread over all {found.total:,}.'),
    'num_classes': f'{len(names):,}',
    'confusion': confusion,
    'pairs': pairs,
    'reliability': sources.svg(
      verdicts.reliability(bins), alike=f'{name} bins'
    ),
    'worst': [
      {
        'name': one.name.rpartition('/')[2],
        'image': sources.picture(one.image, longer=PICTURE),
        'small': max(one.image.shape[:2]) <= sources.SMALL,
        'label': names[one.label],
        'guess': names[one.guess],
        'confidence': f'{one.confidence:.0%}',
        'share': f'{one.share:.1%}',
      }
      for one in found.worst
    ],
  }


def _flat(
  config: Mapping[str, Any], path: str = ''
) -> Iterator[tuple[str, str]]:
  """Keys and values of a config, as on the command line."""
  for key, value in config.items():
    if isinstance(value, Mapping) and value:
      yield from _flat(value, f'{path}{key}.')
    else:
      yield path + key, str(value) if str(value) else "''"
