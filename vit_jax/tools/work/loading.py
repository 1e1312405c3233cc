"""The model that a tool works on."""

import argparse

from vit_jax import compiled
from vit_jax.trained import Trained, load, load_pretrained


def load_model(args: argparse.Namespace) -> Trained:
  """Loads the model that the arguments of `tools.add_model` name."""
  compiled.keep()
  if args.workdir:
    return load(args.workdir, step=args.step)
  return load_pretrained(args.pretrained)
