"""The rules of the house, as assertions; CONTRIBUTING.md gives the reasons."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'vit_jax'
FILES = sorted(PACKAGE.rglob('*.py'))
ALL_FILES = FILES + sorted((ROOT / 'configs').glob('*.py'))

# What each room may import from the house, besides itself.
BASE = {'types', 'ops', 'lookup'}
ROOMS = {
  'types': set(),
  'lookup': set(),
  'durations': set(),
  'archives': set(),
  'ops': BASE,
  'layers': BASE,
  'models': BASE | {'layers'},
  'objectives': BASE | {'layers', 'models'},
  'optim': BASE,
  'data': {'lookup', 'archives'},
  'evaluators': BASE,
  'pretrained': BASE | {'archives'},
  'sharding': BASE,
  'chips': set(),
  'hlo': set(),
  'keys': {'data', 'divergence', 'lookup', 'sharding'},
  'metrics': {'chips'},
  'processes': set(),
  'compiled': set(),
  'divergence': set(),
  'integrity': {'divergence'},
  'checkpoint': BASE | {'sharding', 'divergence', 'integrity'},
}
# Where the rooms meet.
MEETING = {
  *('experiment', 'trained', 'step', 'feed', 'initialize', 'memory', 'train'),
  *('main', 'tools', 'watch'),
}


def room(path):
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def tree(path):
  return ast.parse(path.read_text())


def imports(path):
  """Names of the modules that a file imports, fully qualified."""
  found = set()
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def called(path):
  """Dotted names of what a file calls or refers to: 'jax.jit'."""
  return {
    ast.unparse(node)
    for node in ast.walk(tree(path))
    if isinstance(node, ast.Attribute)
  }


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_one_way(path):
  if room(path) in MEETING | {'__init__'}:
    return
  inside = {
    name.split('.')[1] for name in imports(path) if name.startswith('vit_jax.')
  }
  assert inside <= ROOMS[room(path)] | {room(path)}


def test_every_room_has_its_rule():
  rooms = {room(path) for path in FILES} - {'__init__'}
  assert rooms == ROOMS.keys() | MEETING


def test_no_module_is_found_by_a_string():
  for path in FILES:
    assert 'import_module' not in path.read_text(), path


def test_the_config_stops_at_train():
  allowed = {PACKAGE / 'main.py', PACKAGE / 'train.py'}
  users = {p for p in FILES if any('ml_collections' in i for i in imports(p))}
  assert users <= allowed


def test_no_option_hides_behind_get():
  for path in FILES:
    assert '.get(' not in path.read_text(), path


def test_a_step_is_differentiated_in_one_place():
  for path in FILES:
    # Second derivatives are asked for by `curvature` alone.
    if path not in (PACKAGE / 'step.py', PACKAGE / 'ops' / 'curvature.py'):
      assert not called(path) & {'jax.grad', 'jax.value_and_grad'}, path


def test_only_one_file_knows_of_shardings():
  for path in FILES:
    names = imports(path) | called(path)
    if path != PACKAGE / 'sharding.py':
      assert not any(name.startswith('jax.sharding') for name in names), path


def test_tensorflow_is_never_imported():
  for path in ALL_FILES:
    assert not any(i.startswith('tensorflow.') for i in imports(path)), path


def test_models_and_layers_choose_no_dtype_and_print_nothing():
  for path in [*PACKAGE.glob('models/*.py'), *PACKAGE.glob('layers/*.py')]:
    text = path.read_text()
    assert not re.search(r'\bprint\(|bfloat16|float16', text), path


@pytest.mark.parametrize(
  'path', ALL_FILES, ids=lambda p: str(p.relative_to(ROOT))
)
def test_files_and_functions_are_short(path):
  assert len(path.read_text().splitlines()) <= 400
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.FunctionDef):
      # The docstring of a public function may be as long as it needs to be.
      first = node.body[1 if ast.get_docstring(node) else 0 :]
      if first:
        assert node.end_lineno - first[0].lineno < 60, node.name


def test_the_loop_stays_short():
  assert len((PACKAGE / 'train.py').read_text().splitlines()) <= 250


def test_importing_the_package_imports_no_tensorflow_and_no_torch():
  code = (
    'import sys, vit_jax.train\n'
    'from vit_jax.tools.work import predict, zoo\n'
    'print([m for m in ("tensorflow", "torch") if m in sys.modules])'
  )
  out = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == '[]'
