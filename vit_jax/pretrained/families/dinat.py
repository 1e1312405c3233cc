"""NAT and DiNAT: names at SHI Labs and Hugging Face; checkpoints of SHI Labs.

Halving ends a stage there; here it begins the next.

Hugging Face keeps the scales of both branches of a block in one array: models
that have them are read from the files of SHI Labs. Those trained on
ImageNet-22k alone are not listed, for the number of their classes is not
published. Accuracies are those of NAT.md and DiNAT.md of the authors.
"""

from collections.abc import Iterator

import numpy as np

from vit_jax.pretrained.entry import IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  CONV,
  DENSE,
  HEADS_OUT,
  KERNEL,
  NORM,
  QKV,
  SCALE,
  Form,
  Row,
  respell,
)

TABLE = Form(
  'table',
  'rpb',
  lambda x, heads: np.moveaxis(x, 0, -1),
  lambda x: np.moveaxis(x, -1, 0),
)

_OURS, _SHI = 'stage_#/block_#', 'levels.#.blocks.#'


def _mergings(form: tuple[Form, ...]) -> Iterator[Row]:
  """A merging reduces in some form, and norms."""
  for i in range(3):
    ours, theirs = f'stage_{i + 1}/merging', f'levels.{i}.downsample'
    yield Row(f'{ours}/reduction', f'{theirs}.reduction', form)
    yield Row(f'{ours}/norm', f'{theirs}.norm', NORM)


_SHARED = (
  Row('patch_norm', 'patch_embed.norm', NORM),
  Row(f'{_OURS}/norm#', f'{_SHI}.norm#', NORM),
  Row(f'{_OURS}/attn/qkv', f'{_SHI}.attn.qkv', QKV),
  Row(f'{_OURS}/attn/position_bias', f'{_SHI}.attn', (TABLE,)),
  Row(f'{_OURS}/attn/out', f'{_SHI}.attn.proj', HEADS_OUT),
  Row(f'{_OURS}/mlp/fc#', f'{_SHI}.mlp.fc#', DENSE),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)
_DINAT = (
  *_SHARED,
  Row('patch_embed/conv1', 'patch_embed.proj.0', CONV),
  Row('patch_embed/conv2', 'patch_embed.proj.1', CONV),
  *_mergings(CONV[:1]),
  *(
    Row(f'{_OURS}/scale{i}', _SHI, (SCALE[0]._replace(theirs=f'gamma{i}'),))
    for i in (1, 2)
  ),
)
_DINAT_S = respell(
  (
    *_SHARED,
    Row('patch_embed/proj', 'patch_embed.proj', CONV),
    *_mergings(KERNEL),
  ),
  {'levels.': 'layers.'},
)

_LAYER = 'dinat.encoder.levels.#.layers.#'
# As files on the hub have them, and transformers in memory.
_HF = (
  Row('patch_norm', 'dinat.embeddings.norm', NORM),
  *(
    Row(
      f'patch_embed/conv{i + 1}',
      f'dinat.embeddings.patch_embeddings.projection.{i}',
      CONV,
    )
    for i in (0, 1)
  ),
  *(
    row._replace(theirs=f'dinat.encoder.{row.theirs}')
    for row in _mergings(CONV[:1])
  ),
  Row(f'{_OURS}/norm1', f'{_LAYER}.layernorm_before', NORM),
  Row(
    f'{_OURS}/attn/qkv',
    (
      f'{_LAYER}.attention.self.query',
      f'{_LAYER}.attention.self.key',
      f'{_LAYER}.attention.self.value',
    ),
    QKV,
  ),
  Row(f'{_OURS}/attn/position_bias', f'{_LAYER}.attention.self', (TABLE,)),
  Row(f'{_OURS}/attn/out', f'{_LAYER}.attention.output.dense', HEADS_OUT),
  Row(f'{_OURS}/norm2', f'{_LAYER}.layernorm_after', NORM),
  Row(f'{_OURS}/mlp/fc1', f'{_LAYER}.intermediate.dense', DENSE),
  Row(f'{_OURS}/mlp/fc2', f'{_LAYER}.output.dense', DENSE),
  Row('norm', 'dinat.layernorm', NORM),
  Row('head', 'classifier', DENSE),
)

NAMES = {
  'shi_dinat': _DINAT,
  'shi_dinat_s': _DINAT_S,
  'hf_dinat': _HF,
}

# Path at shi-labs.com/projects -> variant, accuracy.
_NATS = {
  'nat/checkpoints/CLS/nat_mini': ('nat_M', 81.8),
  'nat/checkpoints/CLS/nat_tiny': ('nat_T', 83.2),
  'nat/checkpoints/CLS/nat_small': ('nat_S', 83.7),
  'nat/checkpoints/CLS/nat_base': ('nat_B', 84.3),
}
_DINATS = {
  'dinat_mini_in1k_224': ('M', 81.8),
  'dinat_tiny_in1k_224': ('T', 82.7),
  'dinat_small_in1k_224': ('S', 83.8),
  'dinat_base_in1k_224': ('B', 84.4),
  'dinat_large_in22k_in1k_224': ('L', 86.6),
  'dinat_large_in22k_in1k_384': ('L_384', 87.4),
  'dinat_large_in22k_in1k_384_11x11': ('L_384_11x11', 87.5),
  'dinat_s_tiny_in1k_224': ('s_T', 81.8),
  'dinat_s_small_in1k_224': ('s_S', 83.5),
  'dinat_s_base_in1k_224': ('s_B', 83.8),
  'dinat_s_large_in1k_224': ('s_L', 86.5),
  'dinat_s_large_in1k_384': ('s_L_384', 87.4),
}


def entries() -> Iterator[Entry]:
  """All of them."""
  directory = 'dinat/checkpoints/imagenet1k'
  paths = {f'{directory}/{file}': facts for file, facts in _DINATS.items()}
  mean, std = IMAGENET
  for path, (variant, accuracy) in (_NATS | paths).items():
    # Images of 384 pixels keep the whole of the shorter side.
    sides = dict(size=384, resize_small=384)
    if '_384' not in path:
      sides = dict(size=224, resize_small=256)
    yield Entry(
      name=f'dinat/{path.rpartition("/")[2]}',
      location=f'https://shi-labs.com/projects/{path}.pth',
      model='dinat',
      variant=variant,
      overrides={},
      preprocessing=Preprocessing(
        **sides, interpolation='bicubic', mean=mean, std=std
      ),
      labels='imagenet1k',
      accuracy=accuracy,
      source='README of SHI-Labs/Neighborhood-Attention-Transformer',
    )
