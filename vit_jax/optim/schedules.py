"""Learning rates over a run: step -> rate, float32, under jit or not.

Each function takes the peak rate, and durations in whole steps. The rate is
`start` at step 0, rises linearly, and is `peak` at step `warmup`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

Step = int | Integer[Array, '*shape'] | Float[Array, '*shape']
Schedule = Callable[[Step], jax.Array]


def constant(
  peak: float, *, total_steps: int, warmup: int = 0, start: float = 0.0
) -> Schedule:
  """Stays at the peak."""
  _check(total_steps=total_steps, warmup=warmup)
  return _warmed_up(
    lambda step: jnp.full_like(step, peak), peak, start=start, warmup=warmup
  )


def cosine(
  peak: float,
  *,
  total_steps: int,
  warmup: int = 0,
  start: float = 0.0,
  end: float = 0.0,
) -> Schedule:
  """Falls along half a cosine to `end` at the last step (arXiv:1608.03983)."""
  _check(total_steps=total_steps, warmup=warmup)

  def decay(step):
    left = _left(step, total_steps, duration=total_steps - warmup)
    return end + (peak - end) * 0.5 * (1 - jnp.cos(math.pi * left))

  return _warmed_up(decay, peak, start=start, warmup=warmup)


def exponential(
  peak: float,
  *,
  total_steps: int,
  every: int,
  factor: float = 0.97,
  warmup: int = 0,
  start: float = 0.0,
) -> Schedule:
  """Is multiplied by `factor` after each `every` steps since the warm-up.

  Down a staircase, as EfficientNet is trained (arXiv:1905.11946, section 5.2).
  """
  _check(total_steps=total_steps, warmup=warmup)
  if every < 1:
    raise ValueError(f'{every=} must be at least 1 step.')
  if not 0 < factor <= 1:
    raise ValueError(f'{factor=} must be above 0, and at most 1.')

  def decay(step):
    return peak * factor ** jnp.floor((step - warmup) / every)

  return _warmed_up(decay, peak, start=start, warmup=warmup)


def linear(
  peak: float,
  *,
  total_steps: int,
  warmup: int = 0,
  start: float = 0.0,
  end: float = 0.0,
) -> Schedule:
  """Falls along a line to `end` at the last step."""
  _check(total_steps=total_steps, warmup=warmup)
  return wsd(
    peak,
    total_steps=total_steps,
    warmup=warmup,
    cooldown=total_steps - warmup,
    start=start,
    end=end,
  )


def rsqrt(
  peak: float,
  *,
  total_steps: int,
  warmup: int = 0,
  timescale: int = 10_000,
  cooldown: int = 0,
  start: float = 0.0,
) -> Schedule:
  """Falls as 1 / sqrt(1 + t / timescale), t steps after warm-up; then cools.

  During the last `cooldown` steps the rate is multiplied by a line from 1 to 0
  (Scaling Vision Transformers, arXiv:2106.04560, section 3.5 and appendix B).
  """
  _check(total_steps=total_steps, warmup=warmup, cooldown=cooldown)
  if timescale <= 0:
    raise ValueError(f'{timescale=} must be at least 1 step.')

  def decay(step):
    time = jnp.maximum(step - warmup, 0) / timescale
    rate = peak / jnp.sqrt(1 + time)
    return rate * _left(step, total_steps, duration=cooldown)

  return _warmed_up(decay, peak, start=start, warmup=warmup)


def wsd(
  peak: float,
  *,
  total_steps: int,
  cooldown: int,
  warmup: int = 0,
  start: float = 0.0,
  end: float = 0.0,
) -> Schedule:
  """Warms up, stays, and falls linearly to `end` during the last `cooldown`.

  The trunk of such a run can be continued, or cooled down from any checkpoint
  (MiniCPM, arXiv:2404.06395, section 4.2).
  """
  _check(total_steps=total_steps, warmup=warmup, cooldown=cooldown)

  def decay(step):
    return end + (peak - end) * _left(step, total_steps, duration=cooldown)

  return _warmed_up(decay, peak, start=start, warmup=warmup)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
  'constant': constant,
  'cosine': cosine,
  'exponential': exponential,
  'linear': linear,
  'rsqrt': rsqrt,
  'wsd': wsd,
}


def _left(step: jax.Array, total_steps: int, *, duration: int) -> jax.Array:
  """Falls from 1 to 0 during the last `duration` steps; stays 1 without any."""
  if not duration:
    return jnp.ones_like(step)
  return jnp.clip((total_steps - step) / duration, 0, 1)


def _warmed_up(
  schedule: Schedule, peak: float, *, start: float, warmup: int
) -> Schedule:
  def rate(step):
    step = jnp.asarray(step, jnp.float32)
    rising = start + (peak - start) * step / max(warmup, 1)
    return jnp.where(step < warmup, rising, schedule(step))

  return rate


def _check(*, total_steps: int, warmup: int, cooldown: int = 0) -> None:
  durations = {
    'total_steps': total_steps,
    'warmup': warmup,
    'cooldown': cooldown,
  }
  for name, steps in durations.items():
    if steps != int(steps) or steps < (name == 'total_steps'):
      raise ValueError(f'{name}={steps} is not a duration in whole steps.')
  if warmup + cooldown > total_steps:
    raise ValueError(
      f'{warmup=} and {cooldown=} do not fit into {total_steps=}; shorten '
      'them or train for longer.'
    )
