"""How a model is judged: one file, one judgement.

An evaluator is built once, from the prediction function and a data set, and
returns `run(params, state) -> {name: float}`. It counts every example once:
`batches()` pads the last batch and says so in `mask`, and a mean is a sum over
a sum.
"""

from collections.abc import Callable, Iterable
from typing import Any

from vit_jax.evaluators import classification
from vit_jax.lookup import pick
from vit_jax.types import Batch, Output, Params, State

Run = Callable[[Params, State], dict[str, float]]

EVALUATORS = {'classification': classification.classification}


def build(
  name: str,
  *,
  predict: Callable[[Params, State, Batch], Output],
  batches: Callable[[], Iterable[Batch]],
  **options: Any,
) -> Run:
  """Builds an evaluator.

  Args:
    name: one of `EVALUATORS`.
    predict: (params, state, batch) -> Output; the evaluator jits it.
    batches: returns one pass over the data, batches of global arrays.
    **options: the keywords of that evaluator.

  Raises:
    ValueError: if the name or an option is unknown.
  """
  spec = {'name': name, **options}
  return pick(EVALUATORS, spec=spec, kind='evaluator')(predict, batches)
