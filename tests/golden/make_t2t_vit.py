"""Records what the authors' T2T-ViT does: `tests/golden/t2t_vit.npz`.

Run by hand; it was last run with Python 3.11, torch 2.13.0, timm 1.0.31 and
yitu-opensource/T2T-ViT at 0f63dc9:

  pip install torch torchvision timm
  python tests/golden/make_t2t_vit.py T2T_VIT

where T2T_VIT is a checkout of github.com/yitu-opensource/T2T-ViT.

The file holds an `image`, (b, h, w, c), and of a small model with each kind of
layers between the splits `KIND/state/NAME`, its random arrays, and
`KIND/output/MODULE`, what came out of some modules. Besides, of two models as
they were published, `VARIANT/names`, lines of a name and a shape.
"""

import argparse
import contextlib
import pathlib
import sys

import numpy as np
import torch

FILE = pathlib.Path(__file__).parent / 't2t_vit.npz'
FIELDS = dict(
  img_size=48,
  embed_dim=16,
  depth=2,
  num_heads=2,
  mlp_ratio=2,
  num_classes=5,
  token_dim=8,
)
MODULES = (
  'tokens_to_token.attention1',
  'tokens_to_token.attention2',
  'tokens_to_token.project',
  'blocks.0',
  'blocks.1',
  'norm',
  'head',
)


def randomise(model):
  """Gives all that is learned a value that an error would not survive."""
  torch.manual_seed(0)
  for name, value in model.named_parameters():
    if not value.requires_grad:  # positions and random features
      continue
    if value.ndim == 2:
      torch.nn.init.normal_(value.data, 0.0, value.shape[1] ** -0.5)
    else:
      is_scale = 'norm' in name and name.endswith('weight')
      torch.nn.init.normal_(value.data, 1.0 if is_scale else 0.0, 0.2)
  return model.eval()


def record(model, image):
  """Returns the arrays of one model."""
  arrays = {}
  for name, value in model.state_dict().items():
    arrays[f'state/{name}'] = value.numpy()
  for name in MODULES:

    def keep(module, inputs, output, *, name=name):
      arrays[f'output/{name}'] = output.numpy()

    model.get_submodule(name).register_forward_hook(keep)
  with torch.no_grad():
    model(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
  return arrays


def main():
  """Writes the file."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('t2t_vit', help='a checkout of the repository')
  args = parser.parse_args()
  # A torchvision built for CUDA fails to find these beside a torch for CPUs.
  library = torch.library.Library('torchvision', 'DEF')
  with contextlib.suppress(RuntimeError):
    for name in ('nms', 'qnms'):
      library.define(
        f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
      )
  sys.path.insert(0, args.t2t_vit)
  from models import t2t_vit

  image = np.random.default_rng(0).normal(size=(1, 48, 48, 3))
  arrays = {'image': image.astype(np.float32)}
  for kind in ('performer', 'transformer'):
    model = randomise(t2t_vit.T2T_ViT(tokens_type=kind, **FIELDS))
    found = record(model, arrays['image'])
    arrays |= {f'{kind}/{name}': value for name, value in found.items()}
  for variant in ('7', 't_14'):
    state = getattr(t2t_vit, f't2t_vit_{variant}')().state_dict()
    lines = [f'{name} {tuple(x.shape)}' for name, x in state.items()]
    arrays[f'{variant}/names'] = np.array('\n'.join(lines))
  np.savez_compressed(FILE, **arrays)


if __name__ == '__main__':
  main()
