"""Archives that were made to do harm, and what in the code could let them."""

import ast
import io
import pathlib
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest

from vit_jax import archives, data
from vit_jax.pretrained import files

ROOT = pathlib.Path(__file__).parent.parent
MIB = 2**20


class Trap:
  """Makes a file when it is unpickled."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return open, (self.path, 'w')


def member(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def archive(path, **members):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, content in members.items():
      file.writestr(name, content)
  return path


def header(text):
  """An array of the second version, whose header has four bytes of length."""
  return b'\x93NUMPY\x02\x00' + struct.pack('<I', len(text)) + text


@pytest.fixture
def bomb(tmp_path):
  """A few KB that hold 16 MiB of zeros."""
  path = tmp_path / 'bomb.npz'
  zeros = np.zeros(2 * MIB, np.uint8)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    for name in ('image', 'label'):
      with file.open(f'{name}.npy', 'w') as out:
        np.lib.format.write_array_header_1_0(
          out, {'descr': '|u1', 'fortran_order': False, 'shape': (8 * MIB,)}
        )
        for _ in range(4):
          out.write(zeros.data)
  return path


@pytest.mark.parametrize(
  'read', [files.read, lambda path: data.open(str(path))]
)
def test_a_small_archive_does_not_fill_the_memory(bomb, read, monkeypatch):
  monkeypatch.setattr(archives, 'ALWAYS', MIB)
  # Nothing is unpacked before that is known.
  monkeypatch.setattr(archives, '_read_array', lambda *_: 1 / 0)
  with pytest.raises(ValueError, match='bytes and claims to hold 16,777'):
    read(bomb)


def test_zeros_of_an_ordinary_size_are_read(tmp_path):
  path = tmp_path / 'zeros.npz'
  np.savez_compressed(path, a=np.zeros(MIB))
  assert path.stat().st_size < 8 * MIB / archives.MAX_RATIO
  assert files.read(path)['a'].shape == (MIB,)


def test_an_archive_holds_no_more_than_it_claims(tmp_path):
  path = archive(tmp_path / 'x.npz', **{'a.npy': member(np.zeros(MIB))})
  # The size before compression stands in the directory at the end.
  content = path.read_bytes()
  size = struct.pack('<I', len(member(np.zeros(MIB))))
  at = content.rindex(size)
  lie = content[:at] + struct.pack('<I', 1000) + content[at + 4 :]
  path.write_bytes(lie)
  with pytest.raises(ValueError, match=r'x\.npz is damaged'):
    files.read(path)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (header(b' ' * 20_000), 'a.npy in it has a header of 20,000 bytes'),
    (header(b"{'descr': open('x', 'w')}"), 'is damaged'),
    (header(b"{'descr': '<f4', 'fortran_order': 0, 'shape': (4,)}"), 'damaged'),
    (member(np.zeros(9))[:-1], 'is damaged'),
    (b'some text', 'a.npy in it is no array'),
    (b'', 'a.npy in it is no array'),
  ],
)
def test_an_array_that_is_none_is_refused(tmp_path, content, message):
  path = archive(tmp_path / 'x.npz', **{'a.npy': content})
  with pytest.raises(ValueError, match=message):
    files.read(path)
  assert not pathlib.Path('x').exists()


def test_a_shape_beyond_the_memory_is_refused(tmp_path):
  shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}"
  path = archive(tmp_path / 'x.npz', **{'a.npy': header(shape)})
  with pytest.raises(ValueError, match='is damaged'):
    files.read(path)


@pytest.mark.parametrize('length', [2**27, 2**40, 2**63])
def test_the_header_of_a_safetensors_file_is_limited(tmp_path, length):
  path = tmp_path / 'x.safetensors'
  path.write_bytes(struct.pack('<Q', length) + b'{}' + b' ' * 100)
  with pytest.raises(ValueError, match='header'):
    files.read(path)


def test_names_in_an_archive_lead_nowhere(tmp_path):
  (tmp_path / 'in').mkdir()
  name = '../escaped.npy'
  path = archive(tmp_path / 'in' / 'x.npz', **{name: member(np.ones(2))})
  assert list(files.read(path)) == ['../escaped']
  assert [x.name for x in tmp_path.rglob('*')] == ['in', 'x.npz']


@pytest.mark.parametrize('name', ['image', 'label', 'class_names'])
def test_a_pickle_in_a_file_of_images_is_not_run(tmp_path, name):
  arrays = {'image': np.zeros((2, 4, 4), np.uint8), 'label': np.arange(2)}
  arrays[name] = np.array([Trap(tmp_path / 'sprung')], dtype=object)
  np.savez(tmp_path / 'x.npz', allow_pickle=True, **arrays)
  with pytest.raises(ValueError, match='holds pickled objects'):
    data.open(str(tmp_path / 'x.npz'))
  pickle.loads(pickle.dumps(arrays[name]))
  assert (tmp_path / 'sprung').exists()  # The trap is one.


# What runs or unpacks what a file says. Pickles of our own travel between
# processes that belong to each other, in the libraries that start them.
HARMFUL = {
  *('eval', 'exec', 'compile', '__import__', 'breakpoint'),
  *('pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal'),
  *('yaml', 'jsonpickle', 'tarfile', 'runpy', 'subprocess', 'pty', 'code'),
  *('torch.load', 'numpy.load', 'np.load', 'np.fromfile', 'jnp.load'),
  *('os.system', 'os.popen', 'extractall', 'extract', 'unpack_archive'),
  *('trust_remote_code', 'shell'),
}
ALLOWED = {
  ('vit_jax/pretrained/files.py', 'torch.load'),
  ('vit_jax/tools/sweep.py', 'runpy'),  # of a config, which is a program
}


def harm(path):
  """What of that a file imports, calls, or gives as an option."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import | ast.ImportFrom):
      module = getattr(node, 'module', None)
      names = {alias.name.partition('.')[0] for alias in node.names}
      names = {module.partition('.')[0]} if module else names
    elif isinstance(node, ast.Call):
      called = ast.unparse(node.func)
      # A method may be called so as well: `model.eval()`, `re.compile()`.
      names = {called, *(option.arg for option in node.keywords)}
      if called.rpartition('.')[2].startswith(('extract', 'unpack_')):
        names.add(called.rpartition('.')[2])
    else:
      continue
    for name in names & HARMFUL:
      yield str(path.relative_to(ROOT)), name


def test_nothing_in_the_code_runs_what_a_file_says():
  paths = [*(ROOT / 'vit_jax').rglob('*.py'), *(ROOT / 'configs').glob('*.py')]
  assert {found for path in paths for found in harm(path)} == ALLOWED
  text = (ROOT / 'vit_jax/pretrained/files.py').read_text()
  assert re.findall(r'torch\.load\((.*)\)', text) == [
    "path, map_location='cpu', weights_only=True"
  ]
