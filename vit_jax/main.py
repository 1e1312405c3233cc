r"""Trains what a config says: `python -m vit_jax.main --config=FILE.py:ARG`.

For example:

  python -m vit_jax.main --config=configs/quickstart.py
  python -m vit_jax.main --config=configs/from_scratch.py:S_16 \
      --config.data.train=/my/images --workdir=runs/mine

configs/ has a file for each experiment, and configs/common.py says what each of
the values is that --config.KEY=VALUE changes. A run that is there continues.
"""

import logging
import os
import pathlib
import signal
import sys
from collections.abc import Sequence

import ml_collections
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from vit_jax.lookup import unknown

FLAGS = flags.FLAGS

CONFIG_FLAG = {
  'name': 'config',
  'default': None,
  'help_string': 'The experiment, such as configs/augreg.py:B_16. Any value of '
  'it can be changed: --config.batch_size=256.',
  # Options that the config does not mention may be given as well, such as
  # --config.model.drop_path=0.1; `experiment` refuses those that do not exist.
  'lock_config': False,
  'accept_new_attributes': True,
}
config_flags.DEFINE_config_file(**CONFIG_FLAG)
flags.DEFINE_string(
  'workdir',
  None,
  'The run directory; runs/NAME_OF_THE_CONFIG by default. If the run is there '
  'already, it continues where it stopped.',
)
flags.DEFINE_string(
  'coordinator',
  None,
  'HOST:PORT of process 0, of a run of several processes that neither a TPU '
  'pod nor SLURM nor Open MPI starts: docs/launch.md. Also '
  'JAX_COORDINATOR_ADDRESS.',
)
flags.DEFINE_integer(
  'num_processes', None, 'Of such a run. Also JAX_NUM_PROCESSES.', lower_bound=1
)
flags.DEFINE_integer(
  'process_id', None, 'Of this process, from 0. Also JAX_PROCESS_ID.'
)
flags.DEFINE_integer(
  'coordinator_timeout', 300, 'Seconds to wait for the other processes.'
)
flags.DEFINE_bool(
  'report', True, 'Write report.html, a page about the run, when it is done.'
)
flags.DEFINE_bool('traceback', False, 'Show the whole stack of an error.')

# What parsing may raise: a config file is code.
FLAG_ERRORS = (flags.Error, ValueError, AttributeError, KeyError, OSError)
# As of a process that SIGTERM ended, for those who start it again.
TERMINATED = 128 + signal.SIGTERM

USAGE = """Which experiment? For example:

  python -m vit_jax.main --config=configs/quickstart.py
  python -m vit_jax.main --config=configs/from_scratch.py:S_16 \\
      --config.data.train=/my/images

configs/ has one file for each; --help lists the options."""


def default_workdir(config_file: str) -> pathlib.Path:
  """configs/augreg.py:B_16 -> runs/augreg_B_16."""
  path, _, arg = config_file.partition(':')
  name = '_'.join(filter(None, [pathlib.Path(path).stem, arg]))
  return pathlib.Path('runs') / name.replace('/', '_').replace(',', '_')


def read_config(words: Sequence[str]) -> ml_collections.ConfigDict:
  """The config of `--config=FILE.py:ARG --config.key=value ...`, for a tool.

  Raises:
    ValueError: if the file, its argument or a flag is wrong; in one message.
  """
  values = flags.FlagValues()
  argv = ['', *words]
  config_flags.DEFINE_config_file(
    **CONFIG_FLAG, flag_values=values, sys_argv=argv
  )
  _find_config(argv)
  try:
    unused = values(argv)[1:]
  except FLAG_ERRORS as error:
    raise ValueError(str(_cause(error))) from error
  if unused or values['config'].value is None:
    raise ValueError(
      f'{unused[0]!r} is no flag.' if unused else 'Give --config=FILE.py:ARG.'
    )
  return values['config'].value


def summary(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> str:
  """Says how a run ended, where it lies, and what can be done with it."""
  from vit_jax import metrics

  results = {
    name: value
    for name, value in metrics.newest(workdir).items()
    if '/' in name and name.rpartition('/')[2] not in metrics.HIDDEN
  }
  shown = '  '.join(
    f'{name} {metrics.number(value)}' for name, value in sorted(results.items())
  )
  addresses = [evaluation['data'] for evaluation in config.evals.values()]
  # Some examples of the evaluation data, or any image of the user's.
  whole = [a for a in addresses if a and not a.endswith(']')]
  images = f"'{whole[0]}[:5]'" if whole else 'IMAGE_OR_FOLDER'
  return f"""
Done: {shown}
The run lies in {workdir}. Next:

  python -m vit_jax.tools.predict --workdir={workdir} {images}
  python -m vit_jax.tools.evaluate --workdir={workdir}
  tensorboard --logdir={workdir}
"""


def write_report(workdir: pathlib.Path) -> None:
  """Writes a page about a run that is done, which no failure here may undo.

  Not for several processes: the model may be nowhere as a whole.
  """
  try:
    # What draws takes seconds to import.
    from vit_jax.tools.work import report

    page = report.write(workdir, most=report.AT_THE_END)
  except Exception as error:  # such as of a device without memory
    print(f'There is no report: {error}', file=sys.stderr)
  else:
    print(f'Look at it in {page}')


def main(argv):
  """Trains, and says what to do next; a user's mistake is one message."""
  if argv[1:]:
    word = argv[1]
    sys.exit(f'Error: {word!r} is no option. Did you mean --config={word}?')
  if FLAGS.config is None:
    sys.exit(f'Error: {USAGE}')
  # They take seconds, which no --help and no misspelt flag should wait for.
  import jax

  from vit_jax import compiled, data, processes
  from vit_jax.train import train

  # absl's own handler, here by now, would take its level for everybody.
  logging.basicConfig(level=logging.WARNING, format='%(message)s', force=True)
  # What orbax logs with whole stacks is raised as well.
  absl_logging.set_verbosity(absl_logging.FATAL)
  try:
    compiled.keep()
    processes.meet(
      coordinator=FLAGS.coordinator,
      num_processes=FLAGS.num_processes,
      process_id=FLAGS.process_id,
      timeout=FLAGS.coordinator_timeout,
    )
    workdir = pathlib.Path(
      FLAGS.workdir or default_workdir(FLAGS['config'].config_filename)
    )
    train(FLAGS.config, workdir)
  except processes.Terminated as reason:
    print(reason, file=sys.stderr)
    sys.exit(TERMINATED)
  except (ValueError, OSError) as error:
    if FLAGS.traceback:
      raise
    message = f'Error{processes.where()}: {error}'
    if isinstance(error, data.StalledError):
      # An orderly exit would wait for the threads that hang.
      print(message, file=sys.stderr, flush=True)
      os._exit(1)
    sys.exit(message)
  if jax.process_index() == 0:
    print(summary(FLAGS.config, workdir))
    if FLAGS.report and jax.process_count() == 1:
      write_report(workdir)


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags; what is wrong in a config is a message, not a stack."""
  try:
    _find_config(argv)
    return FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    sys.exit(f'Error: {_misspelt(error)}')
  except FLAG_ERRORS as error:
    if '--traceback' in argv:
      raise
    sys.exit(f'Error: {_cause(error)}')


def _find_config(argv: Sequence[str]) -> None:
  """Raises a ValueError that helps to spell, if there is no such file."""
  for word in argv:
    name, _, value = word.lstrip('-').partition('=')
    path = pathlib.Path(value.partition(':')[0])
    if name == 'config' and value and not path.exists():
      known = map(str, sorted(path.parent.glob('*.py')))
      raise unknown(str(path), known=known, kind='config file')


def options() -> list[str]:
  """The options of this command: '--config', '--workdir', ..."""
  module = FLAGS.find_module_defining_flag('workdir')
  return [f'--{flag.name}' for flag in FLAGS.flags_by_module_dict()[module]]


def _misspelt(error: flags.UnrecognizedFlagError) -> ValueError:
  word = f'--{error.flagname}'
  return unknown(word, known=options(), kind='option')


def _cause(error: BaseException) -> BaseException:
  """An error in a config file comes with its whole stack in its text."""
  while 'Traceback' in str(error) and error.__context__:
    error = error.__context__
  return error


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
