"""MLP-Mixer: names at timm, checkpoints of Google."""

from collections.abc import Iterator

import flax.linen as nn

from vit_jax.pretrained.counterpart import Size, Timm, ratio
from vit_jax.pretrained.entry import Entry, Preprocessing, google_entry
from vit_jax.pretrained.torch_rows import CONV, DENSE, NORM, Row

_TIMM_MIXER = (
  Row('patch_embed/proj', 'stem.proj', CONV),
  Row('block_#/norm#', 'blocks.#.norm#', NORM),
  Row('block_#/token_mlp/fc#', 'blocks.#.mlp_tokens.fc#', DENSE),
  Row('block_#/channel_mlp/fc#', 'blocks.#.mlp_channels.fc#', DENSE),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)

NAMES = {'timm_mixer': _TIMM_MIXER}

_MIXER = 'MLP-Mixer, arXiv:2105.01601'
_SAM = 'SAM, arXiv:2106.01548'
_GSAM = 'GSAM, arXiv:2203.08065'
# Directory and file -> accuracy, paper.
_MIXERS = {
  'imagenet1k/Mixer-B_16': (76.44, _MIXER),
  'imagenet1k/Mixer-L_16': (71.76, _MIXER),
  'imagenet21k/Mixer-B_16': (None, _MIXER),
  'imagenet21k/Mixer-L_16': (None, _MIXER),
  'sam/Mixer-B_16': (77.4, _SAM),
  'sam/Mixer-B_32': (None, _SAM),
  'gsam/Mixer-B_16': (None, _GSAM),
  'gsam/Mixer-B_32': (None, _GSAM),
  'gsam/Mixer-S_8': (None, _GSAM),
  'gsam/Mixer-S_16': (None, _GSAM),
  'gsam/Mixer-S_32': (None, _GSAM),
}


def entries() -> Iterator[Entry]:
  """All of them."""
  for name, (accuracy, source) in _MIXERS.items():
    yield google_entry(
      name,
      bucket='mixer_models',
      model='mlp_mixer',
      overrides={},
      preprocessing=Preprocessing(224, resize_small=256),
      labels='imagenet21k' if name.startswith('imagenet21k/') else 'imagenet1k',
      accuracy=accuracy,
      source=source,
      loss='sigmoid',
    )


def timm(model: nn.Module, *, size: Size) -> Timm:
  """The same model of timm.

  timm has no entry point for Mixers of any size, nor for their GELU: give the
  arguments to the class MlpMixer, with `act_layer=timm.layers.GELUTanh`.
  """
  hidden = (model.token_dim, model.channel_dim)
  args = {
    'img_size': list(size),
    'patch_size': model.patch_size,
    'embed_dim': model.width,
    'num_blocks': model.depth,
    'mlp_ratio': [ratio(dim, model.width) for dim in hidden],
  }
  return Timm('timm_mixer', 'mlp_mixer', args, model.width, 'stem.proj')
