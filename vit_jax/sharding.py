"""Where arrays live: the mesh, and which array is split over which axis.

Every step is one `jax.jit` over global arrays on a mesh with three axes:
`data` (each device sees other examples), `fsdp` (likewise, and parameters and
optimiser state are split as well) and `tensor` (a layer's heads and hidden
units are split). Nothing outside this file imports `jax.sharding`.
"""

import collections
import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import (
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
  SingleDeviceSharding,
)

from vit_jax.ops.place import Place, placed
from vit_jax.types import Batch

AXES = ('data', 'fsdp', 'tensor')

# How a kernel is split over `tensor`, read from its last dimension backwards,
# so that a stack of scanned blocks follows the same rule as one block. Column
# then row: one all-reduce after attention and one after the MLP.
TENSOR_RULES = (
  (r'.*/qkv/kernel', (None, None, 'tensor', None)),  # (d, 3, heads, t)
  (r'.*/qkv/bias', (None, 'tensor', None)),
  (r'.*/attn/out/kernel', ('tensor', None, None)),  # (heads, t, d)
  (r'.*/fc1/kernel', (None, 'tensor')),
  (r'.*/fc1/bias', ('tensor',)),
  (r'.*/fc2/kernel', ('tensor', None)),
)


def make_mesh(
  *,
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """Returns a mesh over all devices; one axis may be -1, "whatever is left".

  Where the devices are in slices, such as the GPUs of several hosts or the
  parts of a multislice TPU, within which they talk to each other much faster
  than across, neighbours on an axis stay in one slice as far as possible: the
  slices are spread over `data` first, `tensor` last.

  Raises:
    ValueError: if the axes do not multiply to the number of devices, or do not
      split over the slices.
  """
  devices = jax.devices() if devices is None else devices
  shape = [data, fsdp, tensor]
  if shape.count(-1) == 1:
    shape[shape.index(-1)] = len(devices) // -math.prod(shape)
  if min(shape) < 1 or math.prod(shape) != len(devices):
    raise ValueError(
      f'A mesh of {data=}, {fsdp=}, {tensor=} does not multiply to the '
      f'{len(devices)} devices here; leave one of the axes at -1.'
    )
  # CPUs of a lone process have no slice.
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices == 1:
    # jax.make_mesh would refuse fsdp=128 on a torus of 8 x 8 x 8 chips.
    grid = mesh_utils.create_device_mesh(
      shape, devices, allow_split_physical_axes=True
    )
  else:
    grid = _across_slices(shape, devices, slices=slices)
  # By default axes are Explicit, which linen does not know.
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _across_slices(
  shape: Sequence[int], devices: Sequence[Any], *, slices: int
) -> np.ndarray:
  """Devices in this shape, those of a slice next to each other."""
  inside, across, left = [], [], slices
  for size in shape:
    across.append(math.gcd(size, left))
    inside.append(size // across[-1])
    left //= across[-1]
  if left > 1:
    axes = ', '.join(f'{k}={n}' for k, n in zip(AXES, shape, strict=True))
    raise ValueError(
      f'A mesh of {axes} does not split over {slices} slices of devices: make '
      f'config.mesh.data a multiple of {slices}.'
    )
  return mesh_utils.create_hybrid_device_mesh(
    inside, across, devices, allow_split_physical_axes=True
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """A sharding that puts the whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
  """A sharding that splits the first dimension, the batch."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def first_device() -> SingleDeviceSharding:
  """A sharding that puts the whole array on one device of this process."""
  return SingleDeviceSharding(jax.local_devices()[0])


def num_shards(mesh: Mesh) -> int:
  """Over how many devices the batch is split."""
  return mesh.shape['data'] * mesh.shape['fsdp']


def check_batch_size(batch_size: int, mesh: Mesh, *, accumulate: int = 1):
  """Raises a ValueError if a (micro-)batch does not split over the mesh."""
  devices = num_shards(mesh)
  if batch_size % (devices * accumulate):
    unit = devices * accumulate
    nearest = max(unit, round(batch_size / unit) * unit)
    raise ValueError(
      f'{batch_size=} does not split over {devices} devices'
      + (f' times {accumulate} micro-batches' if accumulate > 1 else '')
      + f'; the nearest that does is {nearest}.'
    )


def side_by_side(
  function: Callable[[Any, Any], Any], shared: Any, split: Any, *, mesh: Mesh
) -> Any:
  """Runs a function on the parts of a batch that different devices hold.

  The first axis of `split` counts what must stay together. Where each device
  holds several of these, it is one part; where some share one, those are.

  Args:
    function: (shared, part of split) -> arrays.
    shared: arrays that all parts see.
    split: arrays (n, ...), whose first axis is cut into parts.
    mesh: over which `split` is, see `batched`.

  Returns:
    The arrays, stacked on a new first axis, which counts the parts.
  """
  count = jax.tree.leaves(split)[0].shape[0]
  parts = math.gcd(count, num_shards(mesh))
  devices = mesh.devices.reshape(parts, -1, mesh.shape['tensor'])
  by_part = Mesh(
    devices, ('part', 'data', 'tensor'), axis_types=(AxisType.Auto,) * 3
  )
  # Within a part, the mesh is what is left of this one.
  rest = functools.partial(jax.shard_map, axis_names={'data', 'tensor'})
  place = _place(by_part, rest, batch=('data',))

  def one(*args):
    with placed(place):
      return jax.tree.map(lambda x: x[None], function(*args))

  # Not by `jax.vmap`: it makes a convolution grouped, which XLA then runs for
  # all groups on every device.
  return jax.shard_map(
    one,
    mesh=by_part,
    in_specs=(PartitionSpec(), PartitionSpec('part')),
    out_specs=PartitionSpec('part'),
    axis_names={'part'},
    check_vma=False,
  )(shared, split)


@functools.lru_cache(maxsize=8)
def share(mesh: Mesh) -> tuple[int, int]:
  """Which part of a batch is this process's, and of how many.

  There is one for each process, unless `tensor` spans several: these work on
  the same examples, and must load the same.

  Raises:
    ValueError: if processes would share some of their examples only.
  """
  count = num_shards(mesh)
  rows = collections.defaultdict(set)  # by process
  for device, (part,) in batched(mesh).devices_indices_map((count,)).items():
    rows[device.process_index].add(part.indices(count)[0])
  parts = sorted({tuple(sorted(of_one)) for of_one in rows.values()})
  if sum(map(len, parts)) != count or len(set(map(len, parts))) > 1:
    raise ValueError(
      f'config.mesh.tensor={mesh.shape["tensor"]} splits the devices of the '
      f'{len(rows)} processes unevenly: choose a divisor or a multiple of how '
      'many each has.'
    )
  return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def put(batch: Batch, mesh: Mesh) -> Batch:
  """Makes global arrays of this process's rows of a batch, see `share`."""
  sharding = batched(mesh)
  _, count = share(mesh)
  return {
    key: jax.make_array_from_process_local_data(
      sharding, value, (len(value) * count, *value.shape[1:])
    )
    for key, value in batch.items()
  }


@contextlib.contextmanager
def keep_batch_split(batch_size: int, mesh: Mesh) -> Iterator[None]:
  """Inside, what modules return stays split over the devices as the batch is.

  Where a batch and a kernel are split over one axis, XLA may move either. Left
  alone it gathers the batch of a large model, and each device computes a part
  of the kernel for all images: G/14 then sends 1.7 TB a step (docs/plan.md).
  With `fsdp` of one device there is nothing to state.

  Args:
    batch_size: of what the modules see, over all devices.
    mesh: of the batch.
  """
  if mesh.shape['fsdp'] == 1:
    yield
    return

  def constrain(x):
    # Windows and views of an image are as many rows next to each other.
    is_batched = isinstance(x, jax.Array) and x.ndim
    if not is_batched or x.shape[0] % batch_size:
      return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    spec = PartitionSpec(('data', 'fsdp'), *free)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  def intercept(method, args, kwargs, context):
    returned = method(*args, **kwargs)
    if context.method_name != '__call__':
      return returned
    return jax.tree.map(constrain, returned)

  with nn.intercept_methods(intercept):
    yield


@contextlib.contextmanager
def on(mesh: Mesh) -> Iterator[None]:
  """Inside, models are traced for these devices, see `ops.place`."""
  shard = functools.partial(jax.shard_map, mesh=mesh)
  with placed(_place(mesh, shard, batch=('data', 'fsdp'))):
    yield


def _place(
  mesh: Mesh, shard: Callable[..., Any], *, batch: tuple[str, ...]
) -> Place:
  """Where `shard` splits examples over these axes, and heads over `tensor`."""
  spec = PartitionSpec(batch, None, 'tensor')
  by_shard = functools.partial(
    shard, in_specs=spec, out_specs=spec, check_vma=False
  )
  examples = math.prod(mesh.shape[axis] for axis in batch)
  shards = examples, mesh.shape['tensor']
  return Place(mesh.devices.flat[0], shards, by_shard)


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts arrays that all processes hold onto every device."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(
      replicated(mesh), x, global_shape=x.shape
    ),
    tree,
  )


def infer(tree: Any, mesh: Mesh) -> Any:
  """Returns a NamedSharding for each leaf of a tree of (abstract) arrays.

  A leaf follows the first rule of `TENSOR_RULES` that its path matches; the
  largest dimension that is left and divides is then split over `fsdp`. An
  optimiser's moments carry the path of their parameter and so its sharding.
  """

  def leaf(path, x):
    name = '/' + jax.tree_util.keystr(path, simple=True, separator='/')
    return NamedSharding(mesh, _spec(name, np.shape(x), mesh))

  return jax.tree_util.tree_map_with_path(leaf, tree)


def annotate(tree: Any, mesh: Mesh) -> Any:
  """Returns abstract arrays that say where each belongs, see `infer`."""
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding
    ),
    tree,
    infer(tree, mesh),
  )


def check_split(params: Any, mesh: Mesh) -> None:
  """Checks that `infer` splits parameters over the axes that were asked for.

  Small arrays may stay whole under `fsdp`: a bias costs nothing.

  Raises:
    ValueError: if a rule for `tensor` matches a parameter that does not divide,
      or none; or if `fsdp` leaves half of the parameters whole.
  """
  tensor, fsdp = mesh.shape['tensor'], mesh.shape['fsdp']
  is_ruled, whole, total = False, {}, 0
  for path, x in jax.tree.leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = _spec(f'/{name}', x.shape, mesh)
    total += math.prod(x.shape)
    if 'fsdp' not in spec:
      whole[name] = x.shape
    axes = _rule(f'/{name}', x.shape)
    if tensor > 1 and 'tensor' in axes:
      is_ruled = True
      size = x.shape[axes.index('tensor') - len(axes)]
      if size % tensor:
        raise ValueError(
          f'config.mesh.{tensor=} does not divide the {size} heads or units of '
          f'{name} {x.shape}: choose one of '
          f'{[n for n in range(1, size + 1) if size % n == 0]}.'
        )
  if tensor > 1 and not is_ruled:
    raise ValueError(
      f'config.mesh.{tensor=} would split no parameter of this model: no name '
      f'matches one of {[pattern for pattern, _ in TENSOR_RULES]}. Leave it at '
      '1 and use config.mesh.fsdp.'
    )
  left = sum(math.prod(shape) for shape in whole.values())
  if fsdp > 1 and 2 * left > total:
    name, shape = max(whole.items(), key=lambda item: math.prod(item[1]))
    raise ValueError(
      f'config.mesh.{fsdp=} would leave {left:,} of {total:,} parameters whole '
      f'on every device, the largest in {name} {shape}. Choose a number that '
      'divides one of its sizes, such as '
      f'{max(math.gcd(size, fsdp) for size in shape)}.'
    )


def _rule(name: str, shape: tuple[int, ...]) -> tuple[str | None, ...]:
  """The last axes of a parameter by `TENSOR_RULES`, () if none matches."""
  for pattern, axes in TENSOR_RULES:
    if re.fullmatch(pattern, name) and len(shape) >= len(axes):
      return axes
  return ()


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  axes = _rule(name, shape)
  spec = [*(None,) * (len(shape) - len(axes)), *axes]
  for i, axis in enumerate(spec):
    # An axis of one device splits nothing: it leaves the dimension to fsdp.
    if axis and (mesh.shape[axis] == 1 or shape[i] % mesh.shape[axis]):
      spec[i] = None
  free = [
    i
    for i, axis in enumerate(spec)
    if axis is None and shape[i] % mesh.shape['fsdp'] == 0
  ]
  if mesh.shape['fsdp'] > 1 and free:
    spec[max(free, key=lambda i: shape[i])] = 'fsdp'
  return PartitionSpec(*spec)
