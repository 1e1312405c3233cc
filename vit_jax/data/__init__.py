"""What arrives: sources, transforms and the pipeline, all on the host.

pair = data.open_pair('/my/images')
transform = data.build_transforms([{'name': 'inception_crop', 'size': 224}])
for batch in data.pipeline(
  pair.train, transform, batch_size=512, seed=0, steps=1000
):
  ...
"""

import difflib
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.data import transforms
from vit_jax.data.decoding import DecodeError, decode
from vit_jax.data.pipeline import Transform, one_pass, pipeline
from vit_jax.data.sources import (
  Arrays,
  Pair,
  Source,
  open,
  open_pair,
  unlabelled,
)

__all__ = [
  'TRANSFORMS',
  'Arrays',
  'DecodeError',
  'Pair',
  'Source',
  'Transform',
  'build_transforms',
  'decode',
  'one_pass',
  'open',
  'open_pair',
  'pipeline',
  'unlabelled',
]

TRANSFORMS = {
  'central_crop': transforms.central_crop,
  'inception_crop': transforms.inception_crop,
  'random_crop': transforms.random_crop,
  'random_resized_crop': transforms.random_resized_crop,
  'resize': transforms.resize,
  'resize_small': transforms.resize_small,
}


def build_transforms(ops: Sequence[Mapping[str, Any]]) -> Transform:
  """Makes one function (image, rng) -> image of a list of settings.

  Args:
    ops: applied in this order, each a name of TRANSFORMS with its keywords:
      `{'name': 'inception_crop', 'size': 224}`.

  Raises:
    ValueError: an unknown name or keyword, or a keyword that is missing.
  """
  return functools.partial(_apply, functions=[_bind(op) for op in ops])


def _apply(
  image: np.ndarray, rng: np.random.Generator, *, functions: list[Transform]
) -> np.ndarray:
  for function in functions:
    image = function(image, rng)
  return image


def _bind(op: Mapping[str, Any]) -> Transform:
  if 'name' not in op:
    raise ValueError(f"The transform {dict(op)} has no 'name'.")
  name = op['name']
  if name not in TRANSFORMS:
    raise ValueError(_unknown('transform', name, TRANSFORMS))
  keywords = {key: value for key, value in op.items() if key != 'name'}
  _, _, *options = inspect.signature(TRANSFORMS[name]).parameters.values()
  for keyword in keywords:
    known = [option.name for option in options]
    if keyword not in known:
      raise ValueError(_unknown(f'keyword of {name}', keyword, known))
  for option in options:
    if option.default is option.empty and option.name not in keywords:
      raise ValueError(f'{name} needs {option.name!r}.')
  return functools.partial(TRANSFORMS[name], **keywords)


def _unknown(kind: str, name: str, known: Sequence[str] | Mapping) -> str:
  nearest = difflib.get_close_matches(name, known)
  hint = f' Did you mean {" or ".join(nearest)}?' if nearest else ''
  return f'Unknown {kind} {name!r}; there are {", ".join(known)}.{hint}'
