"""Records what the authors' Mobile-Former does: `mobile_former.npz`.

Run by hand; it was last run with Python 3.11, torch 2.13.0, timm 1.0.31 and
AAboys/MobileFormer at f447310:

  pip install torch torchvision timm
  python tests/golden/make_mobile_former.py MOBILE_FORMER

where MOBILE_FORMER is a checkout of github.com/AAboys/MobileFormer, three of
whose modules are not published; what it asks of them is written here.

The file holds an `image`, (b, h, w, c), and of a small model with the blocks of
96M, and of one with those and the groups of 26M:
- `VARIANT/small/names`, lines of a name and a shape, and `VARIANT/small/state`,
  these arrays one after the other, random;
- `VARIANT/output/MODULE`, what came out of some modules, tokens as (b, n, d);
- of the second, `26m/trained/logits` of one pass in training, and
  `26m/trained/state`, those of the arrays that it moved, as they are after it,
  the variance of a batch being its own, not torch's unbiased estimate of one.
Besides, of models as they were published, `VARIANT/names`.
"""

import argparse
import contextlib
import io
import pathlib
import sys
import types

import numpy as np
import torch
from torch import nn

FILE = pathlib.Path(__file__).parent / 'mobile_former.npz'
SIZE = (37, 26)
FIELDS = dict(
  num_classes=5,
  num_features=12,
  token_num=3,
  token_dim=8,
  gbr_type='attn',
  gbr_dynamic=[True, False, False],
  gbr_ffn=True,
)
# Of each block: its kind, expansion, width, repetitions, stride; the last
# number is a second expansion, where there is one.
VARIANTS = {
  '96m': dict(
    stem_chs=4,
    group_num=1,
    block_args=[
      ['DnaBlock3', 2, 4, 1, 1, 0],
      ['DnaBlock3', 3, 4, 1, 2, 4],
      ['DnaBlock3', 2, 8, 1, 2, 4],
      ['DnaBlock', 2, 8, 1, 1, 3],
      ['DnaBlock3', 2, 4, 1, 2, 4],
      ['DnaBlock', 3, 4, 1, 1, 4],
      ['DnaBlock', 2, 8, 1, 1, 4],
      ['DnaBlock3', 2, 8, 1, 2, 4],
      ['DnaBlock', 2, 8, 1, 1, 4],
    ],
  ),
  '26m': dict(
    stem_chs=4,
    group_num=4,
    block_args=[
      ['DnaBlock3', 3, 8, 1, 2, 0],
      ['DnaBlock', 3, 8, 1, 1, 3],
      ['DnaBlock3', 2, 12, 1, 2, 4],
      ['DnaBlock', 2, 12, 1, 1, 3],
      ['DnaBlock3', 3, 8, 1, 2, 4],
      ['DnaBlock', 2, 8, 1, 1, 4],
      ['DnaBlock', 2, 12, 1, 1, 4],
      ['DnaBlock3', 2, 12, 1, 2, 4],
      ['DnaBlock', 2, 12, 1, 1, 4],
    ],
  ),
}
NAMED = ('508m', '96m', '26m')


PARTS = ('local_global', 'global_block', 'act1')
MODULES = (
  *('stem.1', 'stem', 'features.0.conv'),
  *(f'features.{i}' for i in range(9)),
  # A block that halves the map, and one that adds to it.
  *(f'features.2.{part}' for part in (*PARTS, 'conv2', 'act3', 'conv4')),
  *(f'features.3.{part}' for part in (*PARTS, 'act2', 'conv3')),
  *('local_global', 'classifier.conv', 'classifier.fc.1', 'classifier'),
)


def randomise(model):
  """Gives all that is kept a value that an error would not survive."""
  torch.manual_seed(0)
  for name, value in model.named_parameters():
    if name == 'tokens.weight':
      torch.nn.init.normal_(value.data)
    elif value.ndim > 1:
      torch.nn.init.normal_(value.data, 0.0, value[0].numel() ** -0.5)
    else:
      start = 1.0 if name.endswith('weight') else 0.0
      torch.nn.init.normal_(value.data, start, 0.2)
  for name, value in model.named_buffers():
    if name.endswith('running_mean'):
      torch.nn.init.normal_(value, 0.0, 0.2)
    elif name.endswith('running_var'):
      torch.nn.init.uniform_(value, 0.5, 2.0)
  for value in model.state_dict().values():
    value.copy_(rounded(value))


def rounded(x):
  """The nearest multiple of 1/256: half of the bits, for the file's sake."""
  return (256 * x).round() / 256


def lines_of(state):
  """A name and a shape each, as they are stored."""
  lines = [f'{name} {tuple(x.shape)}' for name, x in state.items()]
  return np.array('\n'.join(lines))


def joined(state):
  """All arrays, one after the other."""
  return np.concatenate([np.ravel(x) for x in state.values()])


def record(model, image):
  """Returns the arrays of one model."""
  state = model.state_dict()
  arrays = {'small/names': lines_of(state), 'small/state': joined(state)}

  def keep(name):
    def hook(module, inputs, output):
      # The map of (map, tokens), the tokens of (tokens, attention).
      output = output[0] if isinstance(output, tuple) else output
      if output.ndim == 3:
        output = output.transpose(0, 1)
      # What comes next may overwrite it.
      arrays[f'output/{name}'] = output.numpy().copy()

    return hook

  hooks = [
    model.get_submodule(name).register_forward_hook(keep(name))
    for name in MODULES
  ]
  with torch.no_grad():
    model.eval()(image)
  for hook in hooks:
    hook.remove()
  return arrays


def train(model, image):
  """Returns the arrays of one pass in training, which changes the model."""
  before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
  count = {}
  for name, module in model.named_modules():
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):

      def keep(module, inputs, *, name=name):
        count[f'{name}.running_var'] = inputs[0].numel() // inputs[0].shape[1]

      module.register_forward_pre_hook(keep)
  with torch.no_grad():
    logits = model.train()(image).numpy()
  after = {k: v.numpy() for k, v in model.state_dict().items()}
  for name, n in count.items():
    kept = np.float32(0.9) * before[name]
    after[name] = kept + (after[name] - kept) * (n - 1) / n
  moved = {k: x for k, x in after.items() if '.running_' in k}
  return {'trained/logits': logits, 'trained/state': joined(moved)}


def load(checkout):
  """The authors' module `mobile_former`."""
  # A torchvision built for CUDA fails to find these beside a torch for CPUs.
  library = torch.library.Library('torchvision', 'DEF')
  with contextlib.suppress(RuntimeError):
    for name in ('nms', 'qnms'):
      library.define(
        f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
      )
  package = types.ModuleType('authors')
  package.__path__ = [str(checkout)]
  stubs = {
    'layers': dict(DropPath=lambda rate: nn.Identity()),
    'registry': dict(register_model=lambda function: function),
    'helpers': dict(
      build_model_with_cfg=lambda cls, name, pretrained, *, default_cfg, **kw: (
        cls(**kw)
      ),
      default_cfg_for_features=None,
    ),
  }
  sys.modules['authors'] = package
  for name, content in stubs.items():
    module = types.ModuleType(f'authors.{name}')
    vars(module).update(content)
    sys.modules[module.__name__] = module
  from authors import mobile_former

  return mobile_former


def main():
  """Writes the file."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('mobile_former', help='a checkout of the repository')
  args = parser.parse_args()
  authors = load(args.mobile_former)
  image = np.random.default_rng(0).normal(size=(3, *SIZE, 3))
  arrays = {'image': rounded(image).astype(np.float32)}
  image = torch.from_numpy(arrays['image'].transpose(0, 3, 1, 2).copy())
  shared = authors.common_model_kwargs | FIELDS
  with contextlib.redirect_stdout(io.StringIO()):  # they print what they build
    for name, fields in VARIANTS.items():
      model = authors.MobileFormer(**shared, **fields)
      randomise(model)
      found = record(model, image)
      if name == '26m':
        found |= train(model, image)
      arrays |= {f'{name}/{key}': value for key, value in found.items()}
    for name in NAMED:
      model = getattr(authors, f'mobile_former_{name}')()
      arrays[f'{name}/names'] = lines_of(model.state_dict())
  np.savez_compressed(FILE, **arrays)


if __name__ == '__main__':
  main()
