"""What accelerators can do, from their vendors' pages.

TPUs: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, "System
architecture"; the links of v4 from table 4 of arXiv:2304.01433, 6 of 50 GB/s.
GPUs: NVIDIA's data sheets of the A100, H100 and H200, as SXM modules and
without sparsity.
"""

from typing import NamedTuple


class Chip(NamedTuple):
  """One device; None is what depends on the model, or is not known.

  Attributes:
    peak_flops: dense products in bfloat16, FLOP/s.
    memory: bytes of HBM.
    memory_bandwidth: of HBM, bytes/s.
    link_bandwidth: to other chips, bytes/s, one way, over all links together:
      ICI of a TPU, NVLink of a GPU. Vendors give twice that, for both ways.
  """

  peak_flops: float
  memory: int | None = None
  memory_bandwidth: float | None = None
  link_bandwidth: float | None = None


_V5E = Chip(197e12, 16 * 10**9, 819e9, 200e9)
_V5P = Chip(459e12, 95 * 2**30, 2765e9, 600e9)
_V6E = Chip(918e12, 32 * 10**9, 1640e9, 400e9)
# By what jax calls them, or a part of it. A device of TPU v2 and v3 is a core,
# half a chip; from v4 on it is a chip.
CHIPS = {
  'TPU v2': Chip(22.5e12),
  'TPU v3': Chip(61.5e12),
  'TPU v4': Chip(275e12, 32 * 2**30, 1200e9, 300e9),
  'TPU v5 lite': _V5E,
  'TPU v5e': _V5E,
  'TPU v5': _V5P,
  'TPU v5p': _V5P,
  'TPU v6 lite': _V6E,
  'TPU v6e': _V6E,
  'A100': Chip(312e12),
  'H100': Chip(989e12, 80 * 10**9, 3.35e12, 450e9),
  'H200': Chip(989e12, 141 * 10**9, 4.8e12, 450e9),
}


def find(device_kind: str) -> Chip | None:
  """Returns the chip whose name is in the kind of a device, None if none is."""
  names = [name for name in CHIPS if name in device_kind]
  return CHIPS[max(names, key=len)] if names else None
