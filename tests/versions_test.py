"""Which releases of libraries are tested, and what they are about to remove."""

import pathlib
import shutil
import subprocess
import warnings

import packaging.requirements
import pytest

ROOT = pathlib.Path(__file__).parent.parent


def requirements():
  lines = [
    line
    for path in ROOT.glob('requirements*.txt')
    for line in path.read_text().splitlines()
    if line and not line.startswith(('#', '-r'))
  ]
  return [packaging.requirements.Requirement(line) for line in lines]


def test_the_oldest_releases_are_the_lower_bounds(tmp_path):
  for path in (ROOT / 'Makefile', *ROOT.glob('requirements*.txt')):
    shutil.copy(path, tmp_path)
  pins = '.venv-oldest/pins.txt'
  subprocess.run(
    ['make', '-s', 'VERSIONS=oldest', pins], cwd=tmp_path, check=True
  )
  bounds = {
    f'{found.name}=={bound.version}'
    for found in requirements()
    for bound in found.specifier
    # What has extras, as jax[tpu], is required without them as well.
    if bound.operator == '>=' and not found.extras
  }
  assert {'jax', 'flax', 'optax'} <= {x.partition('==')[0] for x in bounds}
  assert sorted(bounds) == sorted((tmp_path / pins).read_text().split())


def test_extras_of_a_library_have_its_bounds():
  bounds = {x.name: x.specifier for x in requirements() if not x.extras}
  for found in requirements():
    assert found.specifier == bounds[found.name], found


def test_versions_that_are_not_known_are_refused():
  result = subprocess.run(
    ['make', '-n', 'VERSIONS=old', 'test'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode
  assert 'VERSIONS=old is neither newest nor oldest' in result.stderr


@pytest.mark.parametrize(
  'category', [DeprecationWarning, FutureWarning, PendingDeprecationWarning]
)
@pytest.mark.parametrize(
  ('module', 'fails'),
  [
    ('vit_jax.models.vit', True),
    ('configs.augreg', True),
    ('train_test', True),
    ('conftest', True),
    ('flax.linen.module', False),
    ('vit_jaxx', False),
  ],
)
def test_what_is_deprecated_fails_where_our_code_uses_it(
  module, category, fails
):
  warn = lambda: warnings.warn_explicit(
    'soon gone', category, 'file.py', 1, module
  )
  if fails:
    with pytest.raises(category, match='soon gone'):
      warn()
  else:
    with warnings.catch_warnings(record=True) as seen:
      warn()
    assert len(seen) == 1


def test_a_deprecated_name_counts_as_used_by_the_module_that_asks(tmp_path):
  (tmp_path / 'library.py').write_text(
    'import warnings\n'
    'def __getattr__(name):\n'
    '  warnings.warn(name, DeprecationWarning, stacklevel=2)\n'
  )
  (tmp_path / 'old_test.py').write_text('import library\nlibrary.gone\n')
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(tmp_path)
    with pytest.raises(DeprecationWarning, match='gone'):
      import old_test  # noqa: F401
