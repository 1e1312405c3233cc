"""What a run does about a loss, or a gradient, that is not finite.

`config.on_divergence` says it:

- 'stop': the run ends with an error.
- 'skip': that step changes nothing but its number. It did not happen for the
  optimiser, hence neither for the schedules: a run ends that many updates
  short. After `MAX_SKIPS` in a row the run ends with an error.
- 'rollback': the run goes on from its newest checkpoint, with the batches that
  come next in the data: those of the steps that were lost are left out, as was
  done by hand for PaLM (arXiv:2204.02311, section 5.1). After `MAX_ROLLBACKS`
  to one checkpoint the run ends with an error.

Everything that decides is a function of the config and of the checkpoint, so
that a run that is killed at any moment and started again ends bit by bit like
one that was not. What was skipped and left out is counted in the state.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

POLICIES = ('stop', 'skip', 'rollback')
MAX_SKIPS = 10
MAX_ROLLBACKS = 3


class Diverged(ValueError):
  """Something is not finite.

  Attributes:
    step: the step that made it so.
  """

  def __init__(self, message: str, *, step: int):
    super().__init__(message)
    self.step = step


class Detours(NamedTuple):
  """How often a run left its way; each () int32.

  Attributes:
    skipped: steps that changed nothing.
    skipped_in_a_row: those of them since the last that did.
    rollbacks: to a checkpoint.
    batches_left_out: of the data, by rollbacks.
  """

  skipped: Any
  skipped_in_a_row: Any
  rollbacks: Any
  batches_left_out: Any


# What is reported of them.
REPORTED = {
  'stop': (),
  'skip': ('skipped', 'skipped_in_a_row'),
  'rollback': ('rollbacks', 'batches_left_out'),
}


def none_yet() -> Detours:
  """Of a run that begins."""
  return Detours(*(jnp.int32(0) for _ in Detours._fields))


def skip(finite: jax.Array, detours: Detours) -> Detours:
  """Counts a step, which is skipped unless it is finite, () bool."""
  missed = jnp.where(finite, 0, 1)
  return detours._replace(
    skipped=detours.skipped + missed,
    skipped_in_a_row=(detours.skipped_in_a_row + 1) * missed,
  )


def roll_back(detours: Detours, *, lost: int) -> Detours:
  """Counts a rollback over so many steps, whose batches do not come again."""
  return detours._replace(
    rollbacks=detours.rollbacks + 1,
    batches_left_out=detours.batches_left_out + lost,
  )


def report(detours: Detours, *, policy: str) -> dict[str, jax.Array]:
  """What belongs into the metrics of a step."""
  return {name: getattr(detours, name) for name in REPORTED[policy]}


def check_step(scalars: Mapping[str, float], *, step: int, policy: str) -> str:
  """Looks at the metrics of a step.

  Returns:
    '' if loss and gradient are finite, a message if the step was skipped.

  Raises:
    Diverged: otherwise.
  """
  bad = [k for k in ('loss', 'grad_norm') if not math.isfinite(scalars[k])]
  if not bad:
    return ''
  message = f'The {bad[0]} is {scalars[bad[0]]} at step {step}'
  if policy != 'skip':
    raise Diverged(f'{message}.', step=step)
  in_a_row = int(scalars['skipped_in_a_row'])
  if in_a_row >= MAX_SKIPS:
    raise Diverged(f'{message}, the {in_a_row}th in a row.', step=step)
  return f'{message}; it is skipped, as {int(scalars["skipped"]):,} so far.'


def check_way_on(
  error: Diverged, last: int | None, *, policy: str, tries: int
) -> None:
  """Raises the error, with what can be done, unless the run may roll back.

  Args:
    error: how the run diverged.
    last: the step of the newest checkpoint, None if there is none.
    policy: `config.on_divergence`.
    tries: how often the run came back to that checkpoint already.
  """
  if last is not None and policy == 'rollback' and tries < MAX_ROLLBACKS:
    return
  stands = 'there is no checkpoint yet'
  if last is not None:
    stands = f'its checkpoint of step {last} is good'
  if tries:
    stands += f', but {tries} ways on from it diverged'
  ways = ' or '.join(
    repr(name) for name in POLICIES if name not in ('stop', policy)
  )
  raise Diverged(
    f'{error} The run stops; {stands}. A lower config.optim.learning_rate, a '
    'longer warm-up or config.optim.clip_norm may help, in a new --workdir; '
    f'config.on_divergence={ways} goes on in this one.',
    step=error.step,
  ) from error


def check_arrays(tree: Any, *, step: int) -> None:
  """Raises Diverged if an array of a state holds a NaN or an infinity."""
  if names := not_finite(tree):
    raise Diverged(
      f'{names[0]} is not finite after step {step}'
      + (f', nor are {len(names) - 1} other arrays.' if names[1:] else '.'),
      step=step,
    )


def not_finite(tree: Any) -> list[str]:
  """Names the arrays that hold a NaN or an infinity, such as 'params/bias'.

  They may be spread over processes, all of which must ask.
  """
  paths, leaves = [], []
  for path, leaf in jax.tree.leaves_with_path(tree):
    if jnp.issubdtype(leaf.dtype, jnp.floating):
      paths.append(jax.tree_util.keystr(path, simple=True, separator='/'))
      leaves.append(leaf)
  finite = jax.device_get(_finite(leaves))
  return [path for path, good in zip(paths, finite, strict=True) if not good]


@jax.jit
def _finite(leaves: Sequence[jax.Array]) -> list[jax.Array]:
  return [jnp.isfinite(leaf).all() for leaf in leaves]
