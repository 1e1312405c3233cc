"""Every backbone of configs/backbones.py is small, complete, and learns."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import backbones
from vit_jax import data, metrics, models

every_backbone = pytest.mark.parametrize('name', backbones.BACKBONES)


def test_no_architecture_is_left_out():
  configs = [backbones.get_config(name) for name in backbones.BACKBONES]
  assert {config.model.name for config in configs} == set(models.MODELS)
  assert backbones.TOP1.keys() == backbones.BACKBONES.keys()


@every_backbone
def test_a_floor_is_beyond_a_linear_model_and_below_what_was_measured(name):
  for kind, measured in backbones.TOP1[name].items():
    floor = backbones.floor(name, data=kind)
    assert backbones.LINEAR[kind] < floor < measured


@every_backbone
def test_a_backbone_is_small_and_fits_its_images(name):
  config = backbones.get_config(name)
  model = models.build(**config.model, num_classes=10)
  size = config.preprocess[0]['size']
  image = jnp.zeros((2, size, size, 3))
  output, variables = jax.eval_shape(
    model.init_with_output, jax.random.key(0), image
  )
  assert output.logits.shape == (2, 10)
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  assert 20_000 < count < 250_000


@pytest.mark.slow
@pytest.mark.parametrize('kind', backbones.DURATIONS)
@every_backbone
def test_a_backbone_learns(name, kind, tmp_path):
  config = backbones.get_config(f'{name},data={kind}')
  try:
    data.open(config.data.train)
  except data.AbsentError as error:
    pytest.skip(str(error))
  flag = f'--config=configs/backbones.py:{name},data={kind}'
  command = sys.executable, '-m', 'vit_jax.main', flag
  subprocess.run(
    [*command, f'--workdir={tmp_path}'], check=True, stdout=subprocess.DEVNULL
  )
  accuracy = 100 * metrics.newest(tmp_path)['test/accuracy']
  assert accuracy > backbones.floor(name, data=kind)
