"""The command on a short run; the comparisons with torch are in parity/."""

import json
import sys

import jax
import numpy as np
import onnx
import pytest

from configs import quickstart
from vit_jax.models import vit
from vit_jax.pretrained import files, google_npz, torch_names
from vit_jax.tools import export
from vit_jax.tools.work import export as work
from vit_jax.train import train
from vit_jax.trained import load

SIZE = {'width': 16, 'depth': 1, 'mlp_dim': 32, 'num_heads': 2}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  config = quickstart.get_config()
  config.duration = '2 steps'
  config.batch_size = 16
  config.ema = 0.0
  config.optim.schedule = {'name': 'constant', 'warmup': '0%'}
  config.checkpoint.best = ''
  config.model.update(SIZE | {'pool': 'token'})
  workdir = tmp_path_factory.mktemp('run')
  train(config, workdir)
  return workdir


def run(workdir, target, *options):
  code = export.main([f'--workdir={workdir}', f'--to={target}', *options])
  assert code == 0
  return workdir / 'export' / target


def params(workdir):
  return work.subject(load(workdir)).params


@pytest.mark.parametrize('target', ['npz', 'stablehlo'])
def test_an_export_says_who_read_it_and_how_far_it_is(workdir, target, capsys):
  directory = run(workdir, target)
  out = ' '.join(capsys.readouterr().out.split())
  reader = {'npz': 'vit_jax', 'stablehlo': f'jax {jax.__version__}'}[target]
  assert f'Read by {reader}, which computes the same logits for 64' in out
  assert (directory / 'labels.txt').read_text().split() == list('0123456789')
  facts = json.loads((directory / 'preprocessing.json').read_text())
  assert facts['image_shape'] == [16, 16, 3]
  assert facts['normalize'] == {'mean': [0.5] * 3, 'std': [0.5] * 3}
  usage = (directory / 'README.md').read_text()
  assert usage.startswith('# A model for')
  assert not list(directory.parent.glob('.export-*'))


def test_the_npz_has_the_parameters_of_the_run(workdir, tmp_path):
  run(workdir, 'npz', f'--output={tmp_path}')
  ours = google_npz.to_ours(files.read(tmp_path / 'model.npz'))
  expected = params(workdir)
  assert ours.keys() == expected.keys()
  for path, value in expected.items():
    np.testing.assert_array_equal(ours[path], value, err_msg=path)


@pytest.mark.parametrize('target', ['timm', 'hf'])
def test_without_torch_the_arrays_are_read_back(
  workdir, target, tmp_path, monkeypatch, capsys
):
  monkeypatch.setitem(sys.modules, 'torch', None)
  monkeypatch.setitem(sys.modules, 'timm', None)
  run(workdir, target, f'--output={tmp_path}')
  assert 'Read by vit_jax (no t' in capsys.readouterr().out
  ours = torch_names.to_ours(
    files.read(tmp_path / 'model.safetensors'), num_heads=2
  )
  for path, value in params(workdir).items():
    np.testing.assert_array_equal(ours[path], value, err_msg=path)
  config = json.loads((tmp_path / 'config.json').read_text())
  if target == 'timm':
    assert config['model_args']['act_layer'] == 'gelu_tanh'
    assert config['label_names'] == list('0123456789')
  else:
    assert config['hidden_act'] == 'gelu_pytorch_tanh'
    assert config['id2label']['7'] == '7'


def test_stablehlo_needs_neither_the_model_nor_its_batch_size(
  workdir, tmp_path
):
  run(workdir, 'stablehlo', f'--output={tmp_path}')
  exported = jax.export.deserialize(
    bytearray((tmp_path / 'model.stablehlo').read_bytes())
  )
  assert set(exported.platforms) == {'cpu', 'cuda', 'tpu'}
  for batch_size in (1, 5):
    images = np.zeros((batch_size, 16, 16, 3), np.uint8)
    assert exported.call(images).shape == (batch_size, 10)


def test_onnx_carries_what_its_user_must_know(workdir, tmp_path, capsys):
  run(workdir, 'onnx', f'--output={tmp_path}', '--data=digits:train[:7]')
  assert 'for 7 images' in capsys.readouterr().out
  model = onnx.load(tmp_path / 'model.onnx')
  facts = {entry.key: entry.value for entry in model.metadata_props}
  assert 'not normalized' in facts['input']
  assert json.loads(facts['class_names']) == list('0123456789')


@pytest.mark.parametrize('pos_embed', ['sincos2d', 'none'])
def test_fixed_positions_become_parameters(pos_embed):
  model = vit.ViT(2, num_classes=3, pos_embed=pos_embed, **SIZE)
  added = work.with_positions({}, model, grid=(2, 3))
  assert added['pos_embed'].shape == (1, 1 + 6, 16)
  assert not added['pos_embed'][:, 0].any()
  assert added['pos_embed'][:, 1:].any() == (pos_embed == 'sincos2d')


def test_what_a_target_cannot_express_is_said_and_nothing_is_written(
  workdir, tmp_path
):
  subject = work.subject(load(workdir))
  fields = SIZE | {'pool': 'gap', 'layer_scale': 0.1}
  subject = subject._replace(model=vit.ViT(2, num_classes=10, **fields))
  images = np.zeros((1, 16, 16, 3), np.uint8)
  with pytest.raises(ValueError, match="pool='gap'.*layer_scale"):
    work.export(subject, tmp_path / 'bad', to='hf', images=images)
  assert not list(tmp_path.iterdir())


def test_an_export_that_computes_something_else_is_an_error(
  workdir, tmp_path, monkeypatch
):
  def spoilt(foreign):
    ours = google_npz_to_ours(foreign)
    return {**ours, 'norm/bias': ours['norm/bias'] + 1}

  google_npz_to_ours = google_npz.to_ours
  monkeypatch.setattr(google_npz, 'to_ours', spoilt)
  with pytest.raises(ValueError, match='computes something else'):
    run(workdir, 'npz', f'--output={tmp_path / "bad"}')
  assert not (tmp_path / 'bad').exists()


def test_an_unknown_target_lists_the_known(workdir, capsys):
  with pytest.raises(SystemExit):
    run(workdir, 'coreml')
  assert 'stablehlo' in capsys.readouterr().err
