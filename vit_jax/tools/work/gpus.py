"""NVIDIA GPUs to compile for, on a machine that has none.

XLA asks a GPU what it is before it compiles for it. It takes a text in place of
the answer: a GpuTargetConfigProto, of xla/stream_executor/
device_description.proto, as in xla/backends/gpu/target_config.
"""

import os
import re
from collections.abc import Sequence

import jax

from vit_jax import chips

# Compute capability 9.0 in the CUDA C++ Programming Guide, "Technical
# Specifications per Compute Capability"; both as SXM modules.
_HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  memory_bandwidth: {bandwidth:.0f}
  device_memory_size: {memory}
  runtime_version: "13.0.0"
}}
dnn_version_info {{ major: 9 minor: 10 }}
platform_name: "CUDA"
device_description_str: "NVIDIA {name}"
"""
# Of one host; beyond it the links are others than in `chips`.
_NAME = re.compile(r'(h100|h200)(?::([1-8]))?')
# There is nothing to try variants on. Triton's products would be the first
# variant of many; a GPU mostly ends up with cuBLAS.
_FLAGS = '--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false'


def are_meant(name: str) -> bool:
  """Whether a topology is one of GPUs."""
  return _NAME.fullmatch(name) is not None


def topology(name: str) -> Sequence[jax.Device]:
  """The GPUs of one host, to compile for; none is needed.

  Must come before jax looks for devices.

  Args:
    name: h100 or h200 for one, h100:8 for eight.

  Raises:
    ValueError: if jax has no plugin for CUDA.
  """
  from jax.experimental import topologies

  kind, count = _NAME.fullmatch(name).groups()
  chip = chips.CHIPS[kind.upper()]
  os.environ['XLA_FLAGS'] = f'{os.getenv("XLA_FLAGS", "")} {_FLAGS}'
  jax.config.update('jax_platforms', 'cpu')
  try:
    return topologies.get_topology_desc(
      name,
      platform='cuda',
      topology=f'1x1x{count or 1}',
      target_config=_HOPPER.format(
        name=kind.upper(), memory=chip.memory, bandwidth=chip.memory_bandwidth
      ),
    ).devices
  except NotImplementedError as error:
    raise ValueError(
      f'--topology={name} needs what jax compiles for GPUs with, which is '
      'here without one as well: pip install -r requirements-cuda.txt'
    ) from error
