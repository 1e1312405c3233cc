"""One small run that the tools are tested on."""

import cv2
import numpy as np
import pytest

from configs import common, quickstart
from vit_jax.train import train


@pytest.fixture(scope='session')
def images(tmp_path_factory):
  """20 images of noise in an .npz, and some of them as files in folders."""
  directory = tmp_path_factory.mktemp('images')
  rng = np.random.default_rng(0)
  image = rng.integers(256, size=(20, 24, 20, 3), dtype=np.uint8)
  np.savez(
    directory / 'all.npz',
    image=image,
    label=np.arange(20) % 3,
    class_names=['cat', 'cow', 'dog'],
  )
  for name in ('whole/a.png', 'whole/b.jpg', 'broken/c.png', 'broken/e.png'):
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), image[ord(path.stem) - ord('a')])
  (directory / 'broken' / 'd.jpg').write_bytes(b'\xff\xd8 no image')
  return directory


@pytest.fixture(scope='session')
def small_run(images, tmp_path_factory):
  """The directory of a run of 4 steps on `images`, with two checkpoints."""
  workdir = tmp_path_factory.mktemp('run')
  config = quickstart.get_config()
  config.duration = '4 steps'
  config.batch_size = config.eval_batch_size = 8
  config.checkpoint.every = '2 steps'
  config.ema = 0.0
  config.model.patch_size = 8
  config.model.width = 16
  config.model.depth = 1
  config.data.train = str(images / 'all.npz')
  config.transforms = config.preprocess = (common.op('resize', size=16),)
  config.evals = {
    'noise': common.evaluation(str(images / 'all.npz')),
    'test': common.evaluation(''),
  }
  config.checkpoint.best = ''
  config.loader.num_threads = 0
  train(config, workdir)
  return workdir
