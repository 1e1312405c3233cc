"""Restores a run onto the devices here and saves it anew, for the tests.

python tests/resave.py FROM TO --fsdp=N --coordinator=...
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from vit_jax import checkpoint, experiment, processes, train


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('origin', type=pathlib.Path)
  parser.add_argument('target', type=pathlib.Path)
  parser.add_argument('--fsdp', type=int)
  parser.add_argument('--coordinator')
  parser.add_argument('--num_processes', type=int)
  parser.add_argument('--process_id', type=int)
  args = parser.parse_args()
  processes.meet(
    coordinator=args.coordinator,
    num_processes=args.num_processes,
    process_id=args.process_id,
  )
  run = checkpoint.read_run(args.origin)
  del run['versions']
  run['config']['mesh']['fsdp'] = args.fsdp
  built = experiment.build(run['config'])
  with checkpoint.Checkpoints(args.origin) as checkpoints:
    ts = train.restore_or_init(built, checkpoints)
  with checkpoint.Checkpoints(args.target) as checkpoints:
    train.save(checkpoints, ts, {})
  checkpoint.write_run(args.target, **run)


if __name__ == '__main__':
  main()
