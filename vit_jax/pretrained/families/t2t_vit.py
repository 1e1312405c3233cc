"""T2T-ViT: the names and the checkpoints of its authors, at YITU.

The two kinds of layers between the splits have different names. Positions are
in the files, but follow from the size of the image: they are not read, and not
written.
"""

from collections.abc import Iterator

import numpy as np

from vit_jax.pretrained.entry import IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  ARRAY,
  DENSE,
  HEADS_OUT,
  KERNEL,
  NORM,
  QKV,
  Form,
  Row,
)


def _swap(x: np.ndarray) -> np.ndarray:
  """Key, query, value -> query, key, value, and back."""
  first, second, value = np.split(x, 3)
  return np.concatenate([second, first, value])


KQV = (
  Form('kernel', 'weight', lambda x, heads: _swap(x).T, lambda x: _swap(x.T)),
  Form('bias', 'bias', lambda x, heads: _swap(x), _swap),
)

_OURS, _THEIRS = 't2t/layer_#', 'tokens_to_token.attention#'
_SHARED = (
  Row('', 'pos_embed', ARRAY),
  Row('cls', 'cls_token', ARRAY),
  Row(f'{_OURS}/norm#', f'{_THEIRS}.norm#', NORM),
  Row('t2t/project', 'tokens_to_token.project', DENSE),
  Row('block_#/norm#', 'blocks.#.norm#', NORM),
  Row('block_#/attn/qkv', 'blocks.#.attn.qkv', QKV[:1]),
  Row('block_#/attn/out', 'blocks.#.attn.proj', HEADS_OUT),
  Row('block_#/mlp/fc#', 'blocks.#.mlp.fc#', DENSE),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)
_PERFORMER = (
  *_SHARED,
  Row(f'{_OURS}/qkv', f'{_THEIRS}.kqv', KQV),
  Row(f'{_OURS}/features', f'{_THEIRS}.w', ARRAY),
  Row(f'{_OURS}/out', f'{_THEIRS}.proj', DENSE),
  Row(f'{_OURS}/mlp/fc1', f'{_THEIRS}.mlp.0', DENSE),
  Row(f'{_OURS}/mlp/fc2', f'{_THEIRS}.mlp.2', DENSE),
)
_TRANSFORMER = (
  *_SHARED,
  Row(f'{_OURS}/qkv', f'{_THEIRS}.attn.qkv', KERNEL),
  Row(f'{_OURS}/out', f'{_THEIRS}.attn.proj', DENSE),
  Row(f'{_OURS}/mlp/fc#', f'{_THEIRS}.mlp.fc#', DENSE),
)

NAMES = {'yitu_t2t_vit': _PERFORMER, 'yitu_t2t_vit_t': _TRANSFORMER}

# File of the release -> variant; its name begins with the accuracy.
_RELEASED = {
  '71.7_T2T_ViT_7': '7',
  '75.2_T2T_ViT_10': '10',
  '76.5_T2T_ViT_12': '12',
  '81.5_T2T_ViT_14': '14',
  '83.3_T2T_ViT_14': '14',
  '81.9_T2T_ViT_19': '19',
  '82.3_T2T_ViT_24': '24',
  '81.7_T2T_ViTt_14': 't_14',
  '82.4_T2T_ViTt_19': 't_19',
  '82.6_T2T_ViTt_24': 't_24',
}
_RELEASE = 'https://github.com/yitu-opensource/T2T-ViT/releases/download/main'


def entries() -> Iterator[Entry]:
  """All of them."""
  mean, std = IMAGENET
  for file, variant in _RELEASED.items():
    size = 384 if file.startswith('83.3') else 224
    yield Entry(
      name=f't2t_vit/{file}',
      location=f'{_RELEASE}/{file}.pth.tar',
      model='t2t_vit',
      variant=variant,
      overrides={},
      preprocessing=Preprocessing(
        size,
        resize_small=int(size / 0.9),
        interpolation='bicubic',
        mean=mean,
        std=std,
      ),
      labels='imagenet1k',
      accuracy=float(file.partition('_')[0]),
      source='README of yitu-opensource/T2T-ViT',
    )
