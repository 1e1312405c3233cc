"""The words that every room of the house shares.

Letters in shapes and einsums, everywhere:
  b batch          h w height, width (pixels or patches)   c channels
  n tokens         d width of the model                    k classes
  t head dimension, or text tokens                         m boxes
  v views          p patch size                            q queries
In comments the same letters are written large: `# (B, N, D)`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
# A batch holds `image`, uint8 (b, h, w, c) as it left the host, or float
# (b, h, w, c) once it is normalised; `label`, int32 (b,), or soft float (b, k);
# and `mask`, float (b,), which is 0 where an example only pads the batch.
Batch = Mapping[str, Any]
# Trees of arrays: what the gradient moves, and what it does not (batch
# statistics, an EMA teacher, a centre, a frozen tower).
Params = Any
State = Any


class Output(NamedTuple):
  """What a backbone returns; `jit` prunes the parts that nobody uses.

  Attributes:
    logits: (b, k) of the classification head; None if the model has no head.
    pooled: (b, d) the features that the head reads.
    pyramid: feature maps (b, h, w, d), finest first.
    heads: logits (b, k) of each head, where there are several and `logits` is
      their mean.
  """

  logits: Array | None
  pooled: Array
  pyramid: tuple[Array, ...] = ()
  heads: tuple[Array, ...] = ()


class Objective(NamedTuple):
  """What is minimised: four pure functions, in the manner of optax.

  An objective is written for one logical device. It names no mesh axis and
  averages over the whole batch: under `jit` with sharded inputs that batch is
  the global one.

  Attributes:
    init: (rng, batch) -> params, state.
    loss: (params, state, batch, rng) -> loss, (state, metrics).
    predict: (params, state, batch) -> Output.
    after_step: (params, state, step) -> state, after the parameters moved.
    frozen: names of what in `state` never changes and `predict` does not read,
      such as a teacher: it is neither averaged, judged nor exported.
  """

  init: Callable[..., tuple[Params, State]]
  loss: Callable[..., tuple[Array, tuple[State, dict[str, Array]]]]
  predict: Callable[..., Output]
  after_step: Callable[..., State] = lambda params, state, step: state
  frozen: tuple[str, ...] = ()

  def judged(self, params: Params, state: State) -> dict[str, Any]:
    """Returns `params` and `state` by name, without what is frozen."""
    own = {name: x for name, x in state.items() if name not in self.frozen}
    return {'params': params, 'state': own}
