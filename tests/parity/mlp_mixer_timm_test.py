"""MLP-Mixer against timm with random weights, stage by stage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models.mlp_mixer import MlpMixer

pytestmark = pytest.mark.parity


def mixer_params(state, *, depth):
  """Parameters of timm -> parameters of our Mixer."""

  def dense(name):
    return {'kernel': state[f'{name}.weight'].T, 'bias': state[f'{name}.bias']}

  def norm(name):
    return {'scale': state[f'{name}.weight'], 'bias': state[f'{name}.bias']}

  def mlp(name):
    return {fc: dense(f'{name}.{fc}') for fc in ('fc1', 'fc2')}

  blocks = {
    f'block_{i}': {
      'norm1': norm(f'blocks.{i}.norm1'),
      'token_mlp': mlp(f'blocks.{i}.mlp_tokens'),
      'norm2': norm(f'blocks.{i}.norm2'),
      'channel_mlp': mlp(f'blocks.{i}.mlp_channels'),
    }
    for i in range(depth)
  }
  patches = {
    'kernel': state['stem.proj.weight'].transpose(2, 3, 1, 0),
    'bias': state['stem.proj.bias'],
  }
  return blocks | {
    'patch_embed': {'proj': patches},
    'norm': norm('norm'),
    'head': dense('head'),
  }


def test_mixer_equals_timm(timm):
  import torch

  torch.manual_seed(0)
  theirs = timm.models.mlp_mixer.MlpMixer(
    num_classes=5,
    img_size=(16, 24),
    patch_size=8,
    num_blocks=2,
    embed_dim=32,
    mlp_ratio=(0.5, 4.0),
    act_layer=functools.partial(torch.nn.GELU, approximate='tanh'),
  ).eval()
  for value in theirs.parameters():
    torch.nn.init.normal_(value.data, 0.0, 0.2)
  expected = {}
  stages = {
    'patch_embed': theirs.stem,
    'block_0': theirs.blocks[0],
    'block_1': theirs.blocks[1],
    'norm': theirs.norm,
    'head': theirs.head,
  }
  for name, module in stages.items():

    def keep(module, inputs, output, *, name=name):
      expected[name] = output.detach().numpy()

    module.register_forward_hook(keep)
  rng = np.random.default_rng(0)
  image = rng.normal(size=(2, 16, 24, 3)).astype(np.float32)
  theirs(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))

  state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
  params = jax.tree.map(jnp.asarray, mixer_params(state, depth=2))
  ours = MlpMixer(8, 32, 2, 16, 128, num_classes=5)
  _, captured = ours.apply(
    {'params': params},
    jnp.asarray(image),
    capture_intermediates=True,
    mutable=['intermediates'],
  )
  for name, target in expected.items():
    value = captured['intermediates'][name]['__call__'][0]
    value = np.asarray(value).reshape(target.shape)
    error = np.abs(value - target).max() / np.abs(target).max()
    assert error <= 1e-4, f'{name}: relative error {error:.1e}'
