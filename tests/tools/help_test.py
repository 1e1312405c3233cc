"""What the commands say before they work: at once, and with a remedy."""

import argparse
import pathlib
import re
import subprocess
import sys

import pytest

import vit_jax.tools
from vit_jax import evaluators
from vit_jax.main import options as main_options
from vit_jax.pretrained.targets import TARGETS
from vit_jax.tools import command, evaluate, export, inspect
from vit_jax.tools.__main__ import TOOLS
from vit_jax.tools.__main__ import main as tools
from vit_jax.tools.work import inspect as drawing

FILES = pathlib.Path(vit_jax.tools.__file__).parent.glob('*.py')


def parsers():
  """Every parser, by the words that come before its options."""
  found = {(name,): tool.parser() for name, tool in TOOLS.items()}
  for words, parser in list(found.items()):
    for action in parser._actions:
      if isinstance(action, argparse._SubParsersAction):
        found |= {(*words, name): x for name, x in action.choices.items()}
  return found


PARSERS = parsers()
every_parser = pytest.mark.parametrize('words', PARSERS, ids=' '.join)


def options(words):
  return [x for x in PARSERS[words]._actions if x.option_strings]


def said(*words, capsys):
  """The exit code of a tool, and what it prints."""
  with pytest.raises(SystemExit) as error:
    tools(list(words))
  out, err = capsys.readouterr()
  return error.value.code, ' '.join((out + err).split())


def main(*words, python=()):
  """The exit code of `vit_jax.main`, and what it prints."""
  process = subprocess.run(
    [sys.executable, *python, '-m', 'vit_jax.main', *words],
    capture_output=True,
    text=True,
  )
  return process.returncode, process.stdout + process.stderr


def test_every_command_is_in_the_list_of_tools(capsys):
  runnable = [x.stem for x in FILES if '\nif __name__ ==' in x.read_text()]
  assert set(runnable) == TOOLS.keys() | {'__main__'}
  assert tools([]) == 0
  listed = re.findall(r'vit_jax\.tools\.(\w+) +\w', capsys.readouterr().out)
  assert listed == list(TOOLS)


@every_parser
def test_help_has_every_option_its_default_and_an_example(words, capsys):
  code, text = said(*words, '--help', capsys=capsys)
  assert code == 0
  for option in options(words):
    # Of these two the name says all, or the list of choices.
    assert option.help or option.choices, option
    assert option.option_strings[-1] in text
    if option.default and option.default is not argparse.SUPPRESS:
      assert f'(default: {option.default})' in text, option
  parser = PARSERS[words]
  prose = f'{parser.description} {parser.epilog}'
  assert re.search(rf'{r"[. ]".join(words)}( \w+)? +\S', prose), prose


@every_parser
def test_a_misspelt_option_is_answered_with_the_right_one(words, capsys):
  for option in options(words):
    right = max(option.option_strings, key=len)
    wrong = right[:3] + right[4:]
    code, text = said(*words, f'{wrong}=1', capsys=capsys)
    assert code == 2
    assert f"Unknown option: '{wrong}'. Did you mean '{right}'" in text


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (('inspect', 'atention'), "Unknown view: 'atention'. .* 'attention'"),
    (('export', '--to=onx'), "Unknown --to: 'onx'. Did you mean 'onnx'"),
    (('evaluate', '--suite=robust'), "'robust'. Did you mean 'robustness'"),
    (('plan', '--confg.seed=1'), "'--confg.seed'. Did you mean '--config'"),
    (('sweep', 'x.py', '--confg.seed=1'), "mean '--config'"),
  ],
)
def test_other_misspelt_words_are_answered_too(words, message, capsys):
  code, text = said(*words, capsys=capsys)
  assert code == 2 and re.search(message, text), text


def test_a_misspelt_tool_is_answered_with_the_right_one():
  message = command(lambda: tools(['predct', '--workdir=x']))
  assert message.startswith("Error: Unknown tool: 'predct'. Did you mean 'pred")


def test_the_words_of_a_parser_are_those_of_the_tables():
  assert evaluate.EVALUATORS == tuple(evaluators.EVALUATORS)
  assert evaluate.SUITES == tuple(evaluators.SUITES)
  assert export.TARGETS == tuple(TARGETS)
  assert inspect.VIEWS.keys() == drawing.VIEWS.keys()


def test_the_help_of_main_has_every_option_its_default_and_an_example():
  code, text = main('--help', python=['-X', 'importtime'])
  assert code in (0, 1)  # absl's
  assert 'python -m vit_jax.main --config=configs/quickstart.py' in text
  for option in main_options():
    assert re.search(rf'--(\[no\])?{option[2:]}:', text), option
  assert "(default: '300')" in text
  # That would take seconds.
  assert not re.search(r'\| +(jax|flax|orbax|grain|numpy)\b', text)


@pytest.mark.parametrize(
  ('word', 'message'),
  [
    (None, 'For example:.*--config=configs/quickstart.py'),
    ('--wrkdir=x', "Unknown option: '--wrkdir'. Did you mean '--workdir'?"),
    ('configs/vit.py:b16', 'Did you mean --config=configs/vit.py:b16'),
    ('--config=configs/qickstart.py', "mean 'configs/quickstart.py'"),
  ],
)
def test_what_main_says_to_a_mistake_of_typing(word, message):
  code, text = main(*filter(None, [word]))
  assert code == 1 and text.startswith('Error: ')
  assert re.search(message, text, re.DOTALL), text


def test_no_tool_imports_jax_before_it_has_read_its_arguments():
  code = (
    'import contextlib, io, sys\n'
    'from vit_jax.tools.__main__ import TOOLS, main\n'
    'for name in TOOLS:\n'
    '  with contextlib.suppress(SystemExit), contextlib.redirect_stdout('
    'io.StringIO()):\n'
    "    main([name, '--help'])\n"
    "print([x for x in ('jax', 'flax', 'grain', 'orbax', 'matplotlib', 'numpy')"
    ' if x in sys.modules])'
  )
  out = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == '[]'
