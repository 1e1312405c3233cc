"""A JAX function as an ONNX graph with any number of images in a batch.

The function is traced to a jaxpr, and each of its operations becomes a node or
two. What does not depend on the images is computed now: standardised weights,
position tables, transposed kernels. So this file knows operations and no
architecture; a model with a new operation needs a line in `OPERATIONS`.

Needs the package `onnx` (`pip install -r requirements-export.txt`).
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import onnx

# The oldest that has all reductions with axes as inputs; readers of 2023 on.
OPSET, IR_VERSION = 18, 10
# A protocol buffer cannot exceed 2 GiB; beyond this the weights get a file.
MAX_BYTES_INSIDE = 2**30

# What is known while the graph is made, or the name of what is not.
Value = np.ndarray | str


def build(
  function: Callable[[jax.Array], jax.Array],
  image_shape: Sequence[int],
  *,
  metadata: Mapping[str, str],
) -> onnx.ModelProto:
  """Returns the graph `image` -> `logits` of a function of a batch of images.

  Args:
    function: uint8 (b, h, w, c) -> float32 (b, k).
    image_shape: (h, w, c).
    metadata: stored with the graph.

  Raises:
    ValueError: if the function has an operation that is not in the table.
  """
  (batch,) = jax.export.symbolic_shape('batch')
  image = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
  closed = jax.make_jaxpr(function)(image)
  (_, *classes) = closed.out_avals[0].shape
  graph = _Graph()
  (logits,) = _trace(graph, closed.jaxpr, closed.consts, ['image'])
  graph.nodes.append(onnx.helper.make_node('Identity', [logits], ['logits']))
  port = onnx.helper.make_tensor_value_info
  model = onnx.helper.make_model(
    onnx.helper.make_graph(
      graph.used_nodes('logits'),
      'vit_jax',
      [port('image', onnx.TensorProto.UINT8, ('batch', *image_shape))],
      [port('logits', onnx.TensorProto.FLOAT, ('batch', *classes))],
      graph.used_constants('logits'),
    ),
    opset_imports=[onnx.helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='vit_jax',
  )
  onnx.helper.set_model_props(model, dict(metadata))
  return model


def save(model: onnx.ModelProto, path: str) -> None:
  """Writes the graph; very large weights go to a file beside it."""
  size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
  onnx.save_model(
    model,
    path,
    save_as_external_data=size > MAX_BYTES_INSIDE,
    location='model.onnx.data',
  )


class _Graph:
  """Nodes and constants as they come; known values are computed instead."""

  def __init__(self):
    self.nodes = []
    self.constants = {}

  def add(self, op: str, *inputs: Value, **attributes: Any) -> str:
    """Appends a node; returns the name of its output."""
    names = [self._name(value) for value in inputs]
    output = f'{op}_{len(self.nodes)}'
    node = onnx.helper.make_node(op, names, [output], **attributes)
    self.nodes.append(node)
    return output

  def reshape(self, value: Value, shape: Sequence[Any]) -> Value:
    """Another shape; at most one side may depend on the batch."""
    sides = [side if isinstance(side, int) else -1 for side in shape]
    if sides.count(-1) > 1:
      raise ValueError(
        f'ONNX cannot reshape to {shape}: only one side is free.'
      )
    if not isinstance(value, str):
      return value.reshape(sides)
    return self.add('Reshape', value, np.array(sides, np.int64))

  def transpose(self, value: Value, order: Sequence[int]) -> Value:
    """Axis i of the result is axis order[i] of the value."""
    order = [int(axis) for axis in order]
    if order == sorted(order):
      return value
    if not isinstance(value, str):
      return value.transpose(order)
    return self.add('Transpose', value, perm=order)

  def used_nodes(self, output: str) -> list[onnx.NodeProto]:
    """The nodes that contribute to an output, in order."""
    needed, used = {output}, []
    for node in reversed(self.nodes):
      if node.output[0] in needed:
        needed.update(node.input)
        used.append(node)
    return used[::-1]

  def used_constants(self, output: str) -> list[onnx.TensorProto]:
    """The constants that contribute to an output."""
    inputs = {name for node in self.used_nodes(output) for name in node.input}
    return [
      onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
      for name, value in self.constants.items()
      if name in inputs
    ]

  def _name(self, value: Value) -> str:
    if isinstance(value, str):
      return value
    name = f'constant_{len(self.constants)}'
    self.constants[name] = value
    return name


def _trace(
  graph: _Graph, jaxpr: Any, constants: Iterable[Any], inputs: Sequence[Value]
) -> list[Value]:
  """Walks through the operations; returns the values of the outputs."""
  env: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
  env.update(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))

  def read(variable):
    if isinstance(variable, jax.extend.core.Literal):
      return np.asarray(variable.val, variable.aval.dtype)
    return env[variable]

  for eqn in jaxpr.eqns:
    values = [read(variable) for variable in eqn.invars]
    env.update(zip(eqn.outvars, _apply(graph, eqn, values), strict=True))
  return [read(variable) for variable in jaxpr.outvars]


def _apply(graph: _Graph, eqn: Any, values: list[Value]) -> Sequence[Value]:
  """The values of an operation's outputs."""
  name = eqn.primitive.name
  if name in INLINED:
    inner = eqn.params[INLINED[name]]
    return _trace(graph, inner.jaxpr, inner.consts, values)
  shapes = [variable.aval.shape for variable in eqn.outvars]
  sized = all(isinstance(side, int) for shape in shapes for side in shape)
  if sized and not any(isinstance(value, str) for value in values):
    outputs = eqn.primitive.bind(*values, **eqn.params)
    outputs = outputs if eqn.primitive.multiple_results else [outputs]
    return [np.asarray(output) for output in outputs]
  if name not in OPERATIONS:
    raise ValueError(
      f'This model cannot be written as ONNX: the operation {name!r} is not '
      'in the table of vit_jax/pretrained/onnx_graph.py. Add it there, or '
      'export to stablehlo.'
    )
  return [OPERATIONS[name](graph, eqn, *values)]


def _node(graph: _Graph, eqn: Any, *values: Value, op: str) -> str:
  return graph.add(op, *values)


def _reshape(graph: _Graph, eqn: Any, value: Value) -> Value:
  return graph.reshape(value, eqn.outvars[0].aval.shape)


def _cast(graph: _Graph, eqn: Any, value: Value) -> str:
  kind = onnx.helper.np_dtype_to_tensor_dtype(eqn.outvars[0].aval.dtype)
  return graph.add('Cast', value, to=kind)


def _integer_pow(graph: _Graph, eqn: Any, value: Value) -> str:
  exponent = np.array(eqn.params['y'], eqn.outvars[0].aval.dtype)
  return graph.add('Pow', value, exponent)


def _erfc(graph: _Graph, eqn: Any, value: Value) -> str:
  one = np.ones((), eqn.outvars[0].aval.dtype)
  return graph.add('Sub', one, graph.add('Erf', value))


def _reduce(graph: _Graph, eqn: Any, value: Value, *, op: str) -> str:
  axes = np.array(eqn.params['axes'], np.int64)
  return graph.add(op, value, axes, keepdims=0)


def _concatenate(graph: _Graph, eqn: Any, *values: Value) -> str:
  return graph.add('Concat', *values, axis=eqn.params['dimension'])


def _broadcast(graph: _Graph, eqn: Any, value: Value) -> Value:
  """New sides of length 1 where there were none, then as long as they must."""
  shape = eqn.outvars[0].aval.shape
  old = eqn.invars[0].aval.shape
  ones = [1] * len(shape)
  for axis, side in zip(eqn.params['broadcast_dimensions'], old, strict=True):
    ones[axis] = side
  value = graph.reshape(value, ones)
  if tuple(ones) == tuple(shape):
    return value
  batch = graph.add('Shape', 'image', start=0, end=1)
  sides = []
  for side in shape:
    if not isinstance(side, int) and str(side) != 'batch':
      raise ValueError(f'ONNX cannot broadcast to a side of length {side}.')
    sides.append(np.array([side]) if isinstance(side, int) else batch)
  return graph.add('Expand', value, graph.add('Concat', *sides, axis=0))


def _slice(graph: _Graph, eqn: Any, value: Value) -> str:
  starts, ends = eqn.params['start_indices'], eqn.params['limit_indices']
  return _cut(graph, value, starts, ends, eqn.params['strides'])


def _gather(graph: _Graph, eqn: Any, value: Value, index: Value) -> Value:
  """Known places: one slice, `x[:, 0]`, or several, `x[:, ::2, ::2]`."""
  numbers, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
  axes, kept = numbers.start_index_map, numbers.offset_dims
  if isinstance(index, str):
    raise ValueError('ONNX export knows no indices that depend on the image.')
  if index.ndim == 1:
    starts = [0] * len(sizes)
    for axis, start in zip(axes, index, strict=True):
      starts[axis] = int(start)
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    part = _cut(graph, value, starts, ends, None)
    return graph.reshape(part, eqn.outvars[0].aval.shape)
  if axes != numbers.collapsed_slice_dims:
    raise ValueError(f'ONNX export knows no indices like {numbers}.')
  first = graph.transpose(value, (*axes, *_others(sizes, axes)))
  output = graph.add('GatherND', first, index.astype(np.int64))
  # The axes of the index come first, and go where `kept` are not.
  order = (*_others(eqn.outvars[0].aval.shape, kept), *kept)
  return graph.transpose(output, np.argsort(order).tolist())


def _cut(
  graph: _Graph,
  value: Value,
  starts: Sequence[int],
  ends: Sequence[Any],
  steps: Sequence[int] | None,
) -> str:
  """value[starts[0] : ends[0] : steps[0], ...]."""
  # An end that depends on the batch can only be that of the axis.
  ends = [end if isinstance(end, int) else np.iinfo(int).max for end in ends]
  steps = steps or [1] * len(starts)
  limits = (starts, ends, range(len(starts)), steps)
  return graph.add('Slice', value, *(np.array(x, np.int64) for x in limits))


def _dot_general(graph: _Graph, eqn: Any, left: Value, right: Value) -> Value:
  """A product of matrices: (batch, free, summed) by (batch, summed, free)."""
  (sum_l, sum_r), (batch_l, batch_r) = eqn.params['dimension_numbers']
  shape_l, shape_r = (variable.aval.shape for variable in eqn.invars)
  # Weights stand on the right of `MatMul`, so that it can prepare them.
  swap = not isinstance(left, str) and not batch_l
  if swap:
    left, sum_l, shape_l, right, sum_r, shape_r = (
      *(right, sum_r, shape_r),
      *(left, sum_l, shape_l),
    )
  free_l = _others(shape_l, sum_l, batch_l)
  free_r = _others(shape_r, sum_r, batch_r)
  left = graph.transpose(left, (*batch_l, *free_l, *sum_l))
  right = graph.transpose(right, (*batch_r, *sum_r, *free_r))
  batch = [shape_l[axis] for axis in batch_l]
  rows = [shape_l[axis] for axis in free_l]
  columns = [shape_r[axis] for axis in free_r]
  summed = math.prod(shape_l[axis] for axis in sum_l)
  merged = [math.prod(rows)] if batch else rows
  product = graph.add(
    'MatMul',
    graph.reshape(left, (*batch, *merged, summed)),
    graph.reshape(right, (*batch, summed, math.prod(columns))),
  )
  product = graph.reshape(product, (*batch, *rows, *columns))
  if not swap:
    return product
  axes = range(len(rows) + len(columns))
  return graph.transpose(product, (*axes[len(rows) :], *axes[: len(rows)]))


def _others(shape: Sequence[Any], *taken: Sequence[int]) -> list[int]:
  used = {axis for axes in taken for axis in axes}
  return [axis for axis in range(len(shape)) if axis not in used]


def _conv(graph: _Graph, eqn: Any, image: Value, kernel: Value) -> Value:
  params = eqn.params
  if any(dilation != 1 for dilation in params['lhs_dilation']):
    raise ValueError('ONNX export knows no transposed convolutions.')
  spec = params['dimension_numbers']
  output = graph.add(
    'Conv',
    graph.transpose(image, spec.lhs_spec),
    graph.transpose(kernel, spec.rhs_spec),
    strides=params['window_strides'],
    pads=_pads(params['padding']),
    dilations=params['rhs_dilation'],
    group=params['feature_group_count'],
  )
  return graph.transpose(output, np.argsort(spec.out_spec).tolist())


def _max_pool(graph: _Graph, eqn: Any, image: Value) -> Value:
  """Of images (b, h, w, c)."""
  spatial, window = slice(1, 3), eqn.params['window_dimensions']
  if len(window) != 4 or window[0] != 1 or window[3] != 1:
    raise ValueError(f'ONNX export knows no pooling over windows of {window}.')
  output = graph.add(
    'MaxPool',
    graph.transpose(image, (0, 3, 1, 2)),
    kernel_shape=window[spatial],
    strides=eqn.params['window_strides'][spatial],
    pads=_pads(eqn.params['padding'][spatial]),
    dilations=eqn.params['window_dilation'][spatial],
  )
  return graph.transpose(output, (0, 2, 3, 1))


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
  """First what goes before each axis, then what goes after."""
  return [before for before, _ in padding] + [after for _, after in padding]


# Operations that hold others, by the parameter in which they hold them.
INLINED = {
  'closed_call': 'call_jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'jit': 'jaxpr',
}

_ONE_TO_ONE = {
  'abs': 'Abs',
  'add': 'Add',
  'div': 'Div',
  'erf': 'Erf',
  'exp': 'Exp',
  'log': 'Log',
  'logistic': 'Sigmoid',
  'max': 'Max',
  'min': 'Min',
  'mul': 'Mul',
  'neg': 'Neg',
  'sqrt': 'Sqrt',
  'sub': 'Sub',
  'tanh': 'Tanh',
}
_REDUCTIONS = {'reduce_max': 'ReduceMax', 'reduce_sum': 'ReduceSum'}

# Each is called as (graph, equation, *values) and returns one value.
OPERATIONS: dict[str, Callable[..., Value]] = {
  **{k: functools.partial(_node, op=op) for k, op in _ONE_TO_ONE.items()},
  **{k: functools.partial(_reduce, op=op) for k, op in _REDUCTIONS.items()},
  'broadcast_in_dim': _broadcast,
  'concatenate': _concatenate,
  'conv_general_dilated': _conv,
  'convert_element_type': _cast,
  'dot_general': _dot_general,
  'erfc': _erfc,
  'gather': _gather,
  'integer_pow': _integer_pow,
  'reduce_window_max': _max_pool,
  'reshape': _reshape,
  'rsqrt': lambda graph, eqn, x: graph.add('Reciprocal', graph.add('Sqrt', x)),
  'slice': _slice,
  'square': lambda graph, eqn, x: graph.add('Mul', x, x),
  'squeeze': _reshape,
  'copy': lambda graph, eqn, x: x,
  'stop_gradient': lambda graph, eqn, x: x,
  'transpose': lambda graph, eqn, x: graph.transpose(
    x, eqn.params['permutation']
  ),
}
