"""The model of another library that computes what one of ours does."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

Size = tuple[int, int]  # (height, width) of an image


class Timm(NamedTuple):
  """A model of timm.

  Attributes:
    family: of its names, see `families.NAMES`.
    architecture: its entry point.
    args: of the model, besides the numbers of channels and classes.
    num_features: that the head reads.
    first_conv, classifier: names of its first and last layer.
  """

  family: str
  architecture: str
  args: dict[str, Any]
  num_features: int
  first_conv: str
  classifier: str | Sequence[str] = 'head'


class HuggingFace(NamedTuple):
  """A model of transformers.

  Attributes:
    family: of its names, see `families.NAMES`.
    config: what its `config.json` says of it alone.
  """

  family: str
  config: Mapping[str, Any]


def stage_widths(model: nn.Module) -> list[int]:
  """The width of each stage, where it doubles from one to the next."""
  return [model.width * 2**i for i in range(len(model.depths))]


def ratio(hidden: int, width: int) -> float:
  """The ratio hidden / width, such that int(ratio * width) is hidden again."""
  quotient = hidden / width
  exact = int(quotient * width) == hidden
  return quotient if exact else (hidden + 0.5) / width
