import argparse
import io
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vit_jax.pretrained import files

ARRAYS = {
  'a/b': np.arange(6, dtype=np.float32).reshape(2, 3),
  'c': np.float32([1.5]),
}


class Trap:
  """Writes a file if it is ever unpickled."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return open, (self.path, 'w')


def same(ours, theirs):
  assert ours.keys() == theirs.keys()
  for name in ours:
    assert ours[name].dtype == theirs[name].dtype
    np.testing.assert_array_equal(ours[name], theirs[name])


def test_an_npz_file_is_read(tmp_path):
  np.savez(tmp_path / 'x.npz', **ARRAYS)
  same(files.read(tmp_path / 'x.npz'), ARRAYS)


def test_bfloat16_without_a_name_is_recognised(tmp_path):
  x = np.float32([1, -2.5, 3e20])
  void = x.astype(ml_dtypes.bfloat16).view('V2')
  np.savez(tmp_path / 'x.npz', x=void)
  same(
    files.read(tmp_path / 'x.npz'),
    {'x': x.astype(ml_dtypes.bfloat16).astype(np.float32)},
  )


@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_safetensors_file_is_read(tmp_path, dtype):
  arrays = {name: x.astype(dtype) for name, x in ARRAYS.items()}
  safetensors.numpy.save_file(arrays, tmp_path / 'x.safetensors')
  same(files.read(tmp_path / 'x.safetensors'), ARRAYS)


@pytest.mark.parity
@pytest.mark.parametrize('wrapper', [None, 'model', 'state_dict'])
def test_a_file_of_torch_is_read(tmp_path, wrapper):
  import torch

  content = {name: torch.from_numpy(x) for name, x in ARRAYS.items()}
  content['c'] = content['c'].bfloat16()
  torch.save({wrapper: content} if wrapper else content, tmp_path / 'x.pth')
  same(files.read(tmp_path / 'x.pth'), ARRAYS)


@pytest.mark.parity
def test_of_a_training_run_in_a_file_of_torch_the_average_is_read(tmp_path):
  import torch

  content = {name: torch.from_numpy(x) for name, x in ARRAYS.items()}
  run = {
    'args': argparse.Namespace(lr=0.1),
    'state_dict': {name: 0 * x for name, x in content.items()},
    'state_dict_ema': content,
  }
  torch.save(run, tmp_path / 'x.pth.tar')
  same(files.read(tmp_path / 'x.pth.tar'), ARRAYS)


@pytest.mark.parity
def test_a_pickle_in_a_file_of_torch_is_not_run(tmp_path):
  (tmp_path / 'x.bin').write_bytes(pickle.dumps(Trap(tmp_path / 'sprung')))
  with pytest.raises(ValueError, match=r'x\.bin.*not opened.*safetensors'):
    files.read(tmp_path / 'x.bin')
  assert not (tmp_path / 'sprung').exists()


def test_a_pickle_in_an_npz_file_is_not_run(tmp_path):
  trap = np.array([Trap(tmp_path / 'sprung')], dtype=object)
  np.savez(tmp_path / 'x.npz', trap=trap, allow_pickle=True)
  with pytest.raises(ValueError, match=r'x\.npz holds pickled objects'):
    files.read(tmp_path / 'x.npz')
  assert not (tmp_path / 'sprung').exists()


def test_without_torch_its_files_are_an_error_that_says_so(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'torch', None)
  (tmp_path / 'x.pth').write_bytes(b'anything')
  with pytest.raises(ValueError, match='pip install torch'):
    files.read(tmp_path / 'x.pth')


def npz_bytes():
  buffer = io.BytesIO()
  np.savez(buffer, **ARRAYS)
  return buffer.getvalue()


def flipped(content, at):
  return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('x.npz', npz_bytes()[:-30], 'not read to its end'),
    ('x.npz', b'', 'not read to its end'),
    ('x.npz', flipped(npz_bytes(), 180), 'is damaged'),
    ('x.npz', b'\n<!DOCTYPE html><html>404</html>', 'is a web page'),
    ('x.safetensors', b'<html>404</html>', 'is a web page'),
    ('x.safetensors', b'\x10' + bytes(40), 'is damaged or no safetensors'),
    ('x.safetensors', safetensors.numpy.save({}), 'holds no arrays'),
    pytest.param(
      *('x.pth', b'nothing', 'is damaged or holds more than arrays'),
      marks=pytest.mark.parity,
    ),
    ('x.h5', b'nothing', "not in '.h5'"),
  ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message) as caught:
    files.read(tmp_path / name)
  assert str(tmp_path / name) in str(caught.value)


def test_a_safetensors_file_that_was_cut_off_is_named(tmp_path):
  content = safetensors.numpy.save(ARRAYS)
  (tmp_path / 'x.safetensors').write_bytes(content[:-5])
  with pytest.raises(ValueError, match='damaged or no safetensors'):
    files.read(tmp_path / 'x.safetensors')


def test_a_file_that_is_not_there_is_named():
  with pytest.raises(ValueError, match='no file /no/where.npz'):
    files.read('/no/where.npz')
