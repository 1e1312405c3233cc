"""What the tools do, once they have read their arguments.

Here jax and all the rooms are imported, which takes seconds; a tool does not,
so that its --help and its complaints come at once.
"""

import argparse

from vit_jax import compiled
from vit_jax.trained import Trained, load, load_pretrained


def load_model(args: argparse.Namespace) -> Trained:
  """Loads the model that the arguments of `tools.add_model` name."""
  compiled.keep()
  if args.workdir:
    return load(args.workdir, step=args.step)
  return load_pretrained(args.pretrained)
