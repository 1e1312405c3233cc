"""Writes a run as this version does: `tests/golden/run.tar.gz`.

Run by hand, from the top of the repository, only when a run on disk changes in
such a way that old ones are worth keeping apart:

  JAX_PLATFORMS=cpu PYTHONPATH=. python tests/golden/make_run.py

The file was written at 43dbba7, with jax 0.10.2, flax 0.12.8 and orbax 0.12.8,
before checkpoints had checksums and counted skipped steps. It holds a run of
six steps as a kill after the fifth would have left it, with the checkpoint of
step 4, and all six rows of its metrics.
"""

import pathlib
import tarfile
import tempfile

from configs import quickstart
from vit_jax.train import train

FILE = pathlib.Path(__file__).parent / 'run.tar.gz'


def main():
  config = quickstart.get_config()
  config.duration = '6 steps'
  config.batch_size = 16
  config.model.width = 8
  config.model.depth = 2
  config.model.mlp_dim = 8
  config.model.num_heads = 2
  config.eval_batch_size = 64
  config.eval_every = '3 steps'
  config.log_every = '1 steps'
  config.checkpoint = {'every': '2 steps', 'keep': 2}
  config.checkpoint.best, config.checkpoint.best_mode = '', 'max'
  config.data.train = 'digits:train[:64]'
  config.evals.test.data = 'digits:test[:50]'
  with tempfile.TemporaryDirectory() as directory:
    workdir = pathlib.Path(directory) / 'run'
    train(config, workdir)
    with tarfile.open(FILE, 'w:gz') as archive:
      for name in ('run.json', 'metrics.jsonl', 'checkpoints/4'):
        archive.add(workdir / name, name, filter=anonymous)


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
  """Of nobody, with the rights that new files have."""
  info.uid = info.gid = 0
  info.uname = info.gname = ''
  return info


if __name__ == '__main__':
  main()
