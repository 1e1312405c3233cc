"""What arrives: sources, transforms and the pipeline, all on the host.

pair = data.open_pair('/my/images')
transform = data.build_transforms([{'name': 'inception_crop', 'size': 224}])
for batch in data.pipeline(
  pair.train, transform, batch_size=512, seed=0, steps=1000
):
  ...
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.data import transforms
from vit_jax.data.arrays import Arrays
from vit_jax.data.batches import StalledError
from vit_jax.data.decoding import DecodeError, decode
from vit_jax.data.files import AbsentError
from vit_jax.data.pipeline import (
  Image,
  Transform,
  all_of,
  indices,
  one_pass,
  pipeline,
)
from vit_jax.data.sources import (
  Pair,
  Source,
  open,
  open_pair,
  splits,
  unlabelled,
)
from vit_jax.lookup import pick

__all__ = [
  'TRANSFORMS',
  'AbsentError',
  'Arrays',
  'DecodeError',
  'Pair',
  'Source',
  'StalledError',
  'Transform',
  'all_of',
  'build_transforms',
  'check_fixed',
  'decode',
  'indices',
  'one_pass',
  'open',
  'open_pair',
  'pipeline',
  'splits',
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
# Those that draw random numbers, and what to do on the device instead.
RANDOM = {
  'inception_crop': 'there is none on the device, leave on_device off',
  'random_crop': (
    'put {"name": "random_crop", "pad": ...} first into config.augment'
  ),
  'random_resized_crop': 'there is none on the device, leave on_device off',
}


def build_transforms(ops: Sequence[Mapping[str, Any]]) -> Transform:
  """Makes one function (image, rng) -> image of a list of settings.

  Args:
    ops: applied in this order, each a name of TRANSFORMS with its keywords:
      `{'name': 'inception_crop', 'size': 224}`.

  Raises:
    ValueError: an unknown name or keyword, or a keyword that is missing.
  """
  functions = [pick(TRANSFORMS, spec=op, kind='transform') for op in ops]
  return functools.partial(_apply, functions=functions)


def check_fixed(ops: Sequence[Mapping[str, Any]]) -> None:
  """Raises a ValueError if a transform draws random numbers.

  Those that do cannot be applied once for all epochs.
  """
  for op in ops:
    if op['name'] in RANDOM:
      raise ValueError(
        f'config.transforms has the random {op["name"]!r}, but with '
        'config.loader.on_device images are transformed only once: '
        f'{RANDOM[op["name"]]}.'
      )


def _apply(
  image: Image, rng: np.random.Generator, *, functions: list[Transform]
) -> Image:
  for function in functions:
    image = function(image, rng)
  return image
