"""Durations in a config: '90 epochs', '10_000 steps', '1e6 examples', '5%'."""

import math
import re
from typing import Any

_PATTERN = re.compile(
  r'(?P<number>\d[\d_]*(\.\d+)?(e\d+)?)\s*'
  r'(?P<unit>steps?|epochs?|examples?|%)?'
)


def steps(
  duration: str | int,
  *,
  batch_size: int,
  num_examples: int,
  total_steps: int | None = None,
) -> int:
  """Returns a duration in steps, rounded up; a bare number counts steps.

  Args:
    duration: such as '90 epochs', '10_000 steps', '1e6 examples' or '5%'.
    batch_size: examples a step, over all devices.
    num_examples: examples an epoch.
    total_steps: what a percentage refers to.

  Raises:
    ValueError: if the text is no duration, or a percentage of nothing.
  """
  match = _PATTERN.fullmatch(str(duration).strip())
  if match is None:
    raise ValueError(
      f'{duration!r} is no duration; write it like "90 epochs", '
      '"10_000 steps", "1e6 examples" or "5%".'
    )
  number = float(match['number'].replace('_', ''))
  unit = (match['unit'] or 'step').removesuffix('s')
  if unit == '%':
    if total_steps is None:
      raise ValueError(
        f'The run itself cannot last {duration!r}; give steps, epochs or '
        'examples.'
      )
    exact = number * total_steps / 100
  else:
    examples = {'step': batch_size, 'epoch': num_examples, 'example': 1}[unit]
    exact = number * examples / batch_size
  if math.isinf(exact):
    raise ValueError(f'{duration!r} is beyond all numbers.')
  # 1e-9: 1.1 * 100 examples must not become one step more by rounding.
  return math.ceil(exact - 1e-9)


def resolve(tree: Any, **kwargs: Any) -> Any:
  """Replaces each text that reads like a duration with a unit by its steps."""
  if isinstance(tree, dict):
    return {key: resolve(value, **kwargs) for key, value in tree.items()}
  if isinstance(tree, str):
    match = _PATTERN.fullmatch(tree.strip())
    return steps(tree, **kwargs) if match and match['unit'] else tree
  return tree
