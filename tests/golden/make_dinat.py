"""Records what the authors' NAT and DiNAT do: `tests/golden/dinat.npz`.

Run by hand; it was last run with Python 3.11, torch 2.13.0, timm 1.0.31, g++
and the authors' code at d334f5b and v0.14.6:

  pip install torch torchvision timm
  python tests/golden/make_dinat.py NAT NATTEN

where NAT is a checkout of
github.com/SHI-Labs/Neighborhood-Attention-Transformer and NATTEN one of
github.com/SHI-Labs/NATTEN, the package of its attention, of which later
releases have no biases. So that it need not be built, its module is written
here with indices; only the functions that find a window and its biases are
NATTEN's, compiled from a header of its kernels.

The file holds an `image`, (b, h, w, c), and of a small model of each kind
`KIND/state/NAME`, its random arrays, and `KIND/output/MODULE`, what came out of
some modules. Besides, of DiNAT-Mini, `M/names`, lines of a name and a shape.
"""

import argparse
import contextlib
import ctypes
import pathlib
import subprocess
import sys
import tempfile
import types

import numpy as np
import torch
from torch import nn

FILE = pathlib.Path(__file__).parent / 'dinat.npz'
FIELDS = dict(
  embed_dim=8,
  depths=(2, 3),
  num_heads=(2, 4),
  mlp_ratio=2,
  kernel_size=3,
  # Lattices of the first maps, 11 x 10, differ in length; the second, 6 x 5,
  # are smaller than a window.
  dilations=((1, 3), (1, 2, 1)),
  num_classes=5,
)
SIZE = (43, 38)
BLOCKS = ('blocks.0.attn', 'blocks.0', 'blocks.1.attn', 'blocks.1')
MODULES = {
  'dinat': ('patch_embed', *(f'levels.0.{name}' for name in BLOCKS))
  + ('levels.0.downsample', 'levels.1.blocks.1', 'levels.1', 'norm', 'head'),
  'dinat_s': ('patch_embed', 'layers.0.blocks.1', 'layers.0.downsample')
  + ('layers.1', 'norm', 'head'),
}


def compile_windows(natten, directory):
  """NATTEN's functions: index, length, kernel size, its half, dilation -> int.

  Returns:
    `get_window_start` and `get_pb_start`.
  """
  source = '#include <algorithm>\n#include "natten_cpu_commons.h"\n'
  names = ('get_window_start', 'get_pb_start')
  for name in names:
    source += (
      f'extern "C" int c_{name}(int i, int n, int k, int m, int d) '
      f'{{ return {name}(i, n, k, m, d); }}\n'
    )
  headers = pathlib.Path(natten) / 'src' / 'natten' / 'csrc' / 'cpu'
  path = pathlib.Path(directory) / 'windows.so'
  flags = ('-shared', '-fPIC', '-I', headers, '-o', path)
  command = ('c++', *flags, '-x', 'c++', '-')
  subprocess.run(command, input=source, text=True, check=True)
  library = ctypes.CDLL(path)
  return [getattr(library, f'c_{name}') for name in names]


class NeighborhoodAttention2D(nn.Module):
  """The module of this name, with the names of its parameters."""

  windows = ()  # what `compile_windows` returns

  def __init__(
    self, dim, num_heads, kernel_size, dilation=None, bias=True, **rest
  ):
    super().__init__()
    assert bias and rest.pop('qkv_bias') and not any(rest.values())
    self.kernel_size, self.dilation = kernel_size, dilation or 1
    self.qkv = nn.Linear(dim, 3 * dim)
    side = 2 * kernel_size - 1
    self.rpb = nn.Parameter(torch.zeros(num_heads, side, side))
    self.proj = nn.Linear(dim, dim)

  def neighbors(self, length):
    """Along an axis: index (length, k) of the keys, and of their biases."""
    size, step = self.kernel_size, self.dilation
    window, bias = (
      torch.tensor([f(i, length, size, size // 2, step) for i in range(length)])
      for f in self.windows
    )
    k = torch.arange(size)
    return window[:, None] + step * k, bias[:, None] + k

  def forward(self, x):
    """Maps (b, h, w, d)."""
    _, h, w, d = x.shape
    least = self.kernel_size * self.dilation
    x = nn.functional.pad(x, (0, 0, 0, max(0, least - w), 0, max(0, least - h)))
    b, y, z, _ = x.shape
    heads = len(self.rpb)
    q, k, v = self.qkv(x).reshape(b, y, z, 3, heads, -1).unbind(3)
    rows, row_bias = self.neighbors(y)
    columns, column_bias = self.neighbors(z)
    near = rows[:, None, :, None], columns[None, :, None, :]
    bias = self.rpb[
      :, row_bias[:, None, :, None], column_bias[None, :, None, :]
    ]  # (heads, y, x, k, k)
    logits = torch.einsum('byxht,byxklht->bhyxkl', q, k[:, *near])
    logits = (d // heads) ** -0.5 * logits + bias
    weights = logits.flatten(-2).softmax(-1).reshape(logits.shape)
    mixed = torch.einsum('bhyxkl,byxklht->byxht', weights, v[:, *near])
    return self.proj(mixed.flatten(-2)[:, :h, :w])


def randomise(model):
  """Gives all that is learned a value that an error would not survive."""
  torch.manual_seed(0)
  for name, value in model.named_parameters():
    is_scale = 'gamma' in name or ('norm' in name and name.endswith('weight'))
    torch.nn.init.normal_(value.data, 1.0 if is_scale else 0.0, 0.3)
  return model.eval()


def record(model, image, *, modules):
  """Returns the arrays of one model."""
  arrays = {}
  for name, value in model.state_dict().items():
    arrays[f'state/{name}'] = value.numpy()
  for name in modules:

    def keep(module, inputs, output, *, name=name):
      arrays[f'output/{name}'] = output.numpy()

    model.get_submodule(name).register_forward_hook(keep)
  with torch.no_grad():
    model(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
  return arrays


def load(nat, natten):
  """The authors' modules `dinat` and `dinats`."""
  # A torchvision built for CUDA fails to find these beside a torch for CPUs.
  library = torch.library.Library('torchvision', 'DEF')
  with contextlib.suppress(RuntimeError):
    for name in ('nms', 'qnms'):
      library.define(
        f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
      )
  with tempfile.TemporaryDirectory() as directory:
    NeighborhoodAttention2D.windows = compile_windows(natten, directory)
  package = types.ModuleType('natten')
  package.NeighborhoodAttention2D = NeighborhoodAttention2D
  sys.modules['natten'] = package
  sys.path.insert(0, str(pathlib.Path(nat) / 'classification'))
  import dinat
  import dinats

  return dinat, dinats


def main():
  """Writes the file."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('nat', help='a checkout of the models')
  parser.add_argument('natten', help='a checkout of NATTEN, v0.14.6')
  args = parser.parse_args()
  dinat, dinats = load(args.nat, args.natten)
  image = np.random.default_rng(0).normal(size=(1, *SIZE, 3))
  arrays = {'image': image.astype(np.float32)}
  models = {
    'dinat': dinat.DiNAT(**FIELDS, layer_scale=1.0),
    'dinat_s': dinats.DiNAT_s(**FIELDS),
  }
  for kind, model in models.items():
    modules = MODULES[kind]
    found = record(randomise(model), arrays['image'], modules=modules)
    arrays |= {f'{kind}/{name}': value for name, value in found.items()}
  state = dinat.dinat_mini().state_dict()
  lines = [f'{name} {tuple(x.shape)}' for name, x in state.items()]
  arrays['M/names'] = np.array('\n'.join(lines))
  np.savez_compressed(FILE, **arrays)


if __name__ == '__main__':
  main()
