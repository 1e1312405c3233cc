"""Each promise in docs/promises.md names tests that there are."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / 'docs' / 'promises.md').read_text()
COMMANDS = re.findall(r'`pytest ([^`]+)`', TEXT)


def names(paths):
  """Of the tests in files and folders, which are there."""
  for path in paths:
    found = ROOT / path
    assert found.exists(), path
    for file in found.rglob('*_test.py') if found.is_dir() else (found,):
      yield from re.findall(r'^def (test_\w+)', file.read_text(), re.MULTILINE)


@pytest.mark.parametrize('command', COMMANDS)
def test_the_tests_of_a_promise_exist(command):
  paths, _, words = command.partition(' -k ')
  found = list(names(re.findall(r'tests/\S+', paths)))
  assert found
  for word in words.strip("'").split(' or ') if words else ():
    assert any(word in name for name in found), word
