"""Grey images in place of data that are not here, where only shapes matter."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax import data


@dataclasses.dataclass(frozen=True)
class Grey:
  """A source of equal images.

  Attributes:
    num_classes: k.
    size: how many images, for durations in epochs.
    side: of an image, in pixels, where no transform gives it another.
  """

  num_classes: int = 1000
  size: int = 1_281_167
  side: int = 256

  @property
  def class_names(self) -> tuple[str, ...]:
    """(k,)."""
    return tuple(map(str, range(self.num_classes)))

  @property
  def labels(self) -> None:
    """Not known."""
    return None

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, index: int) -> dict[str, Any]:
    image = np.full((self.side, self.side, 3), 128, np.uint8)
    return {'image': image, 'label': 0}

  def name(self, index: int) -> str:
    """Identifies an example in a warning."""
    return f'grey[{index}]'


# Of the data sets in configs/common.py; any other stands for ImageNet-1k.
FACTS = {
  'cifar10': Grey(10, 50_000, 32),
  'cifar100': Grey(100, 50_000, 32),
  'imagenet2012': Grey(),
  'resisc45': Grey(45, 31_500),
  'oxford_iiit_pet': Grey(37, 3_680),
  'oxford_flowers102': Grey(102, 1_020),
}


def grey_source(
  options: Mapping[str, Any], *, num_classes: int | None = None
) -> data.Source | None:
  """A source in place of `config.data.train`; None if that is here.

  Args:
    options: config.data.
    num_classes: replaces the data wherever they are.

  Raises:
    ValueError: what is wrong with an address.
  """
  address = options['train']
  if address and num_classes is None:
    try:
      data.open(address, data_dir=options['data_dir'])
      return None
    except data.AbsentError:
      pass
  name = [part for part in address.split(':') if part in FACTS]
  facts = FACTS[name[0]] if name else Grey()
  if num_classes is not None:
    facts = dataclasses.replace(facts, num_classes=num_classes)
  return facts
