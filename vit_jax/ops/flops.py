"""Counting the floating-point operations of a function without running it."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def count(fn: Callable[..., Any], *args: Any) -> int:
  """FLOPs of all matrix products and convolutions in `fn(*args)`.

  A multiply-add counts as 2. Of the branches of a condition the largest counts;
  the body of a scan counts once for each step, that of a `while` loop, whose
  length nobody knows, once. Under `shard_map` the devices add up. Nothing is
  compiled. A Pallas kernel counts as what its `cost_estimate` says; of kernels
  written outside JAX only cuDNN's attention counts.

  Args:
    fn: a function that `jax.make_jaxpr` accepts.
    *args: trees of arrays or of `jax.ShapeDtypeStruct`.
  """
  return trace(fn, *args)[0]


def trace(fn: Callable[..., Any], *args: Any) -> tuple[int, Any]:
  """`count`, and the shapes of what `fn(*args)` returns, in one trace."""
  jaxpr, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
  return _count(jaxpr.jaxpr), shapes


def _count(jaxpr: core.Jaxpr) -> int:
  return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(eqn: core.JaxprEqn) -> int:
  name = eqn.primitive.name
  if name == 'dot_general':
    return _dot(eqn)
  if name == 'conv_general_dilated':
    return _conv(eqn)
  if name in _ATTENTION:
    return _ATTENTION[name] * _attention_product(eqn)
  if name == 'pallas_call':
    return eqn.params['cost_estimate'].flops
  inner = [_count(jaxpr) for jaxpr in _inner_jaxprs(eqn.params)]
  if name == 'cond':
    return max(inner)
  if name == 'scan':
    return eqn.params['length'] * sum(inner)
  if name == 'shard_map':
    return eqn.params['mesh'].size * sum(inner)
  return sum(inner)


def _inner_jaxprs(params: dict[str, Any]) -> list[core.Jaxpr]:
  """What jit, scan, remat, cond and custom derivatives carry as parameters."""
  found = []
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else [value]:
      if isinstance(item, core.ClosedJaxpr):
        found.append(item.jaxpr)
      elif isinstance(item, core.Jaxpr):
        found.append(item)
  return found


def _shape(variable: Any) -> tuple[int, ...]:
  return variable.aval.shape


def _dot(eqn: core.JaxprEqn) -> int:
  (contracted, _), _ = eqn.params['dimension_numbers']
  left = _shape(eqn.invars[0])
  out = _shape(eqn.outvars[0])
  return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


# Of cuDNN, by the number of products; the gradient computes the logits anew.
_ATTENTION = {
  'dot_product_attention_fwd_wrapper': 2,
  'dot_product_attention_bwd_wrapper': 5,
}


def _attention_product(eqn: core.JaxprEqn) -> int:
  b, queries, heads, width = _shape(eqn.invars[0])
  keys = _shape(eqn.invars[1])[1]
  return 2 * b * heads * queries * keys * width


def _conv(eqn: core.JaxprEqn) -> int:
  kernel = _shape(eqn.invars[1])
  out = _shape(eqn.outvars[0])
  # The axis of the output's channels comes first in the specification.
  out_axis = eqn.params['dimension_numbers'].rhs_spec[0]
  taps = math.prod(kernel) // kernel[out_axis]
  # The gradient of a strided convolution sees its input spread out with zeros
  # in between, and those are not multiplied by a good kernel.
  zeros = math.prod(eqn.params['lhs_dilation'])
  return 2 * math.prod(out) * taps // zeros
