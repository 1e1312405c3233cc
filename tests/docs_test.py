"""Every command that a document shows is one that works.

By default each is parsed: its module, options and config exist. Those of the
pages run, in small settings, with `-m slow`.
"""

import ast
import glob
import pathlib
import re
import shlex
import shutil
import textwrap

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart
from tests.configs_test import shrink
from tests.tools.help_test import PARSERS
from vit_jax import keys, main, models, trained
from vit_jax.tools import sweep
from vit_jax.tools.__main__ import TOOLS
from vit_jax.train import train

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
  *(ROOT / 'README.md', ROOT / 'CONTRIBUTING.md'),
  *sorted((ROOT / 'docs').glob('*.md')),
]
CODE = [
  *sorted((ROOT / 'configs').glob('*.py')),
  *(ROOT / 'vit_jax' / 'main.py',),
  *sorted((ROOT / 'vit_jax' / 'tools').glob('*.py')),
  *sorted((ROOT / 'benchmarks').glob('*.py')),
]
PROGRAMS = (
  *('python', 'python3', '.venv/bin/python', 'pip', 'make', 'tensorboard'),
  *('launch/tpu_pod.sh', 'sbatch', 'mpirun', 'kubectl', 'sha256sum'),
)
# What is not run here, by a part of the command, and why.
NOT_RUN = {
  '-m venv': 'CI does, by make',
  'pip install': 'CI does, by make',
  'make ': 'sets up an environment; CI does',
  '-m pytest': 'is this',
  '-m benchmarks': 'takes minutes, and a machine of its own',
  '--pretrained=augreg': 'downloads weights',
  '--topology': 'wants a compiler that is in an environment of its own',
  '--suite=robustness': 'wants data sets of TFDS',
  '--coordinator': 'tests/multiprocess_test.py does',
  'launch/': 'wants a pod or a cluster; tests/launch_test.py has stubs',
  'mpirun': 'wants Open MPI',
  'tensorboard --logdir': 'serves until it is stopped',
  'tools.demo': 'serves until it is stopped; tests/tools/demo_test.py asks it',
  'sha256sum': 'tests/integrity_test.py does',
  'runs/digits': 'wants 24 runs; tests/tools/scaling_laws_test.py has some',
}


FENCED = re.compile(r'^ *```(\w*)\n(.*?)^ *```', re.DOTALL | re.MULTILINE)
# What flags alone may be for: `--config.batch_size=256`.
ANY = '--config=ANY'
CONFIGS = ('quickstart.py', 'from_scratch.py:S_16', 'cifar10.py:plain')
# Words that stand for others: `tools.inspect VIEW`.
STAND_IN = re.compile(r'\b(FILE|VIEW)\b')


def read(path):
  """A page, or what a file of code says of itself."""
  text = path.read_text()
  if path.suffix == '.md':
    return text
  examples = [main.USAGE] if path.stem == 'main' else []
  if path.parent.name == 'tools':
    for (tool, *_), parser in PARSERS.items():
      examples += [parser.epilog or ''] * (tool == path.stem)
  lines = '\n'.join(examples).replace('example: ', '')
  return f'{ast.get_docstring(ast.parse(text)) or ""}\n{lines}'


def commands(path):
  """The commands that it shows, each in one line."""
  text = re.sub(r' *\\\n\s*', ' ', read(path))
  inline = re.findall(r'(?<!`)`([^`]+)`(?!`)', FENCED.sub('', text))
  inline = [' '.join(shown.split()) for shown in inline]
  lines = [x.strip() for x in text.splitlines() if '`' not in x]
  found = []
  for line in inline + lines:
    # Neither what the shell does with it, nor what is said beside it.
    line = re.split(r' \| | > |; |  +(?=[a-z])', line.removeprefix('until '))[0]
    if line.startswith(('... --config', '--config.')):
      found.append(f'python -m vit_jax.main {ANY} {line.removeprefix("... ")}')
    elif line.partition(' ')[0] in PROGRAMS and ' ' in line:
      found.append(' '.join(line.split()))
  return [x for x in dict.fromkeys(found) if not STAND_IN.search(x)]


def words(command):
  """What is typed after `python -m`; omissions are filled in."""
  command = command.replace('--config=...', '--config=configs/quickstart.py')
  typed = shlex.split(command, comments=True)
  typed = [x.replace('...', 'x') for x in typed if x != '...']
  if 'vit_jax.main' in typed:
    return typed[typed.index('vit_jax.main') :]
  return typed[typed.index('-m') + 1 :] if '-m' in typed else typed


def check_main(typed):
  """The flags of a training command exist, and so does its config."""
  for word in typed:
    name = word.partition('=')[0]
    assert name in main.options() or name.startswith('--config.'), word
  # Others are mentions, such as `--config.loader.num_workers`.
  flags = [x for x in typed if x.startswith('--config') and '=' in x]
  if ANY not in flags:
    return flags and check_config(flags)
  problems = []
  for config in CONFIGS:
    try:
      return check_config([f'--config=configs/{config}', *flags[1:]])
    except ValueError as error:
      problems.append(error)
  raise problems[0]


def check_config(flags):
  config = main.read_config(flags)
  keys.check_keys(config.to_dict())
  models.build(**config.model)


def check_tool(name, typed):
  if not typed:
    return  # A mention.
  args, rest = TOOLS[name].parser().parse_known_args(typed)
  if name == 'sweep':
    first, *_ = sweep.commands(args.config, flags=rest)
    check_main(words(shlex.join(first))[1:])
  elif name == 'plan':
    check_main(rest)
  else:
    assert not rest


def check(command):
  """Raises if there is no such command, or it has no such option."""
  program = command.split()[0]
  module, *typed = words(command) or ['']
  if program == 'make':
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
    assert module == 'make' and typed[0] in targets
  elif module == 'vit_jax.main':
    check_main(typed)
  elif module.startswith('vit_jax.tools.'):
    check_tool(module.rpartition('.')[2], typed)
  elif module.startswith(('vit_jax', 'benchmarks')):
    path = ROOT / module.replace('.', '/')
    assert path.with_suffix('.py').exists() or (path / '__main__.py').exists()
  for word in (word for word in words(command) if word[0] != '-'):
    if re.match(r'(tests|launch|configs|requirements)[\w/-]*\.', word):
      assert (ROOT / word.partition(':')[0]).exists(), word


@pytest.fixture
def pretended(monkeypatch):
  """Runs and files that a config asks for by name are there."""
  facts = trained.Facts({'name': 'vit', 'variant': 'S/16'}, {}, None)
  normalize = {'mean': (0.5,) * 3, 'std': (0.5,) * 3}
  look_up = trained.look_up

  def found(source):
    if source.startswith('runs/'):
      return facts._replace(normalize=normalize)
    return look_up(source)

  monkeypatch.setattr(trained, 'look_up', found)
  monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('path', PAGES + CODE, ids=lambda path: path.stem)
def test_the_commands_of_a_document_can_be_parsed(path, pretended):
  for command in commands(path):
    try:
      check(command)
    except (Exception, SystemExit) as error:
      pytest.fail(f'{command}: {error!r}')


def test_commands_are_found_however_they_are_shown():
  shown = {path.stem: len(commands(path)) for path in PAGES + CODE}
  assert shown['README'] > 5 and shown['commands'] > 20
  assert shown['data'] > 4  # indented
  assert shown['augreg'] > 3 and shown['zoo'] == 4 and shown['main'] > 2


def shown_by_pages():
  found = [command for path in PAGES for command in commands(path)]
  return list(dict.fromkeys(found))


def why_not(command):
  return [part for part in NOT_RUN if part in command]


def test_what_is_not_run_is_still_shown():
  for part in NOT_RUN:
    assert any(part in command for command in shown_by_pages()), part


def test_python_of_the_pages_is_python():
  for path in PAGES:
    for language, code in FENCED.findall(path.read_text()):
      if language == 'python':
        compile(textwrap.dedent(code), str(path), 'exec')


def test_every_file_that_a_page_links_to_is_there():
  for path in PAGES:
    links = re.findall(r'\]\(([^)#]+)\)|src="([^"]+)"', path.read_text())
    for link in filter(None, sum(links, ())):
      assert '://' in link or (path.parent / link).exists(), (path, link)


@pytest.fixture(scope='module')
def desk(tmp_path_factory):
  """A folder with the images and the runs that the pages speak of."""
  desk = tmp_path_factory.mktemp('desk')
  (desk / 'configs').symlink_to(ROOT / 'configs')
  rng = np.random.default_rng(0)
  for index in range(24):
    path = desk / 'my' / 'images' / f'{"abc"[index % 3]}' / f'{index}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rng.integers(256, size=(48, 40, 3), dtype=np.uint8))
  shutil.copy(path, desk / 'photo.jpg')
  shutil.copytree(path.parent, desk / 'folder')
  config = quickstart.get_config()
  shrink(config, '')
  config.duration, config.log_every = '4 steps', '1 steps'
  config.data.train = 'digits:train[:32]'
  config.evals.test.data = 'digits:test[:32]'
  train(config, desk / 'runs' / 'quickstart')
  for name in ('mine', 'one', 'other'):
    shutil.copytree(desk / 'runs' / 'quickstart', desk / 'runs' / name)
  return desk


def runnable(command):
  """Not what is only mentioned, and flags alone, which are parsed."""
  mention = command.endswith(('vit_jax.main', 'vit_jax.tools'))
  return 'vit_jax' in command and not mention and ANY not in command


@pytest.mark.slow
@pytest.mark.parametrize(
  'command', [x for x in shown_by_pages() if runnable(x) and not why_not(x)]
)
def test_a_command_runs(command, desk, tmp_path, monkeypatch):
  monkeypatch.chdir(desk)
  module, *typed = words(command.replace('/my/', f'{desk}/my/'))
  if module == 'vit_jax.main':
    config = main.read_config([x for x in typed if x.startswith('--config')])
    shrink(config, f'{desk}/my/images')
    train(config, tmp_path / 'run')
  else:
    name = module.removeprefix('vit_jax.tools.')
    # As a shell does; '*' alone is quoted, for names that are not of files.
    found = [sorted(glob.glob(x)) if '/' in x else [] for x in typed]
    typed = [
      x for word, all_ in zip(typed, found, strict=True) for x in all_ or [word]
    ]
    assert TOOLS[name].main(typed) == 0


@pytest.mark.slow
def test_python_of_the_pages_runs(desk, monkeypatch):
  monkeypatch.chdir(desk)
  shape = trained.load('runs/quickstart').run['image_shape']
  # An array of jax, as the annotations have it, which users do not check.
  images = jnp.zeros((2, *shape), jnp.uint8)
  for path in PAGES:
    for language, code in FENCED.findall(path.read_text()):
      if language == 'python':
        names = {'images': images}
        exec(textwrap.dedent(code).replace('load_pretrained(', 'print('), names)
        if 'Bag' in names:
          image = np.zeros((2, 8, 8, 3), np.float32)
          bag = names['Bag'](num_classes=5)
          output, _ = bag.init_with_output(jax.random.key(0), image)
          assert output.logits.shape == (2, 5)
