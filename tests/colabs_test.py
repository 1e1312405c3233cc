"""The notebooks run from top to bottom, offline, on their small setting."""

import ast
import os
import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'colabs'
NOTEBOOKS = sorted(FOLDER.glob('*.ipynb'))
every_notebook = pytest.mark.parametrize(
  'path', NOTEBOOKS, ids=lambda path: path.stem
)


def read(path):
  return nbformat.read(path, as_version=4)


def pictures(notebook):
  return [
    output
    for cell in notebook.cells
    for output in cell.get('outputs', ())
    if 'image/png' in output.get('data', {})
  ]


def test_there_are_notebooks():
  assert NOTEBOOKS


@every_notebook
def test_a_notebook_runs(path, monkeypatch):
  # One device, as on Colab; the conftest has eight.
  for name in ('XLA_FLAGS', 'JAX_NUM_CPU_DEVICES'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('VIT_JAX_SMALL', '1')
  notebook = read(path)
  kept = len(pictures(notebook))
  client = nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(FOLDER)}},
  )
  client.execute()
  assert len(pictures(notebook)) == kept > 0


@every_notebook
def test_a_notebook_imports_and_never_defines(path):
  code = '\n'.join(
    cell.source for cell in read(path).cells if cell.cell_type == 'code'
  )
  kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
  assert not [x.name for x in ast.walk(ast.parse(code)) if isinstance(x, kinds)]


@every_notebook
def test_what_is_kept_names_no_machine(path):
  text = path.read_text()
  assert os.path.expanduser('~') + '/' not in text
  assert '/tmp/' not in text
