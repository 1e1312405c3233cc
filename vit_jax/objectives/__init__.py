"""What is minimised: one file for each way to learn, for any fitting model."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from vit_jax.lookup import pick
from vit_jax.objectives.classification import classification
from vit_jax.objectives.distillation import distillation
from vit_jax.types import Objective

OBJECTIVES: dict[str, Callable[..., Objective]] = {
  'classification': classification,
  'distillation': distillation,
}


def build(name: str, *, model: nn.Module, **options: Any) -> Objective:
  """Returns an objective for a model.

  Args:
    name: one of `OBJECTIVES`.
    model: a module (image, train=...) -> Output.
    **options: the keywords of that objective.

  Raises:
    ValueError: if the name or an option is unknown, or does not fit the model.
  """
  spec = {'name': name, **options}
  return pick(OBJECTIVES, spec=spec, kind='objective')(model)
