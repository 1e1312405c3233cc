"""`python -m vit_jax.main`, which also notes what data each step takes.

  python -m tests.soak.noted NOTES --config=...

Process p appends a line 'STEP SHA256' to NOTES.p for each batch that the loop
takes: of all bytes that this process has of it, pixels, labels and mask.
"""

import hashlib
import runpy
import sys

import jax
import numpy as np

from vit_jax import feed

# TensorBoard's writer would import it where it is installed, for seconds.
sys.modules['torch'] = None
NOTES = sys.argv.pop(1)
batches = feed.batches


def noted(experiment, *, first_step, left_out=0):
  found = batches(experiment, first_step=first_step, left_out=left_out)
  with open(f'{NOTES}.{jax.process_index()}', 'a', buffering=1) as file:
    for step, batch in enumerate(found, first_step + 1):
      digest = hashlib.sha256()
      for leaf in jax.tree.leaves(batch):
        for shard in leaf.addressable_shards:
          digest.update(np.asarray(shard.data).tobytes())
      file.write(f'{step} {digest.hexdigest()}\n')
      yield batch


feed.batches = noted
runpy.run_module('vit_jax.main', run_name='__main__', alter_sys=True)
