"""The notebooks run from top to bottom, offline, on their small setting."""

import ast
import os
import pathlib

import jupyter_client
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


@pytest.fixture(scope='module')
def kernel():
  """One for all notebooks: most of their time would go into imports."""
  # One device, as on Colab; the conftest has eight.
  dropped = ('XLA_FLAGS', 'JAX_NUM_CPU_DEVICES')
  kept = {k: x for k, x in os.environ.items() if k not in dropped}
  # Little is computed, and much compiled.
  settings = {'VIT_JAX_SMALL': '1', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
  manager = jupyter_client.KernelManager(kernel_name='python3')
  manager.start_kernel(env=kept | settings)
  yield manager
  manager.shutdown_kernel(now=True)


# Leaves of what ran before no name and no module of the house.
FRESH = f"""
import os, sys
import matplotlib.pyplot
matplotlib.pyplot.close('all')
os.chdir({str(FOLDER)!r})
sys.path[:] = [path for path in sys.path if path != {str(FOLDER.parent)!r}]
for name in list(sys.modules):
  if name.partition('.')[0] in ('vit_jax', 'configs'):
    del sys.modules[name]
get_ipython().reset()
"""


@every_notebook
def test_a_notebook_runs(path, kernel):
  notebook = read(path)
  kept = len(pictures(notebook))
  notebook.cells.insert(0, nbformat.v4.new_code_cell(FRESH))
  nbclient.NotebookClient(notebook, km=kernel, timeout=600).execute()
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
