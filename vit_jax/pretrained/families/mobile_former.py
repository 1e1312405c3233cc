"""Mobile-Former: the names and the checkpoints of its authors, at Microsoft.

There the convolutions of a block are counted, whatever their kind, so that only
the place of a block tells what they are: each of the published arrangements of
blocks is a family.

The checkpoints are on Google Drive, which hands them to browsers only: download
one there, and give the path of your copy, whose name must end in `.pth.tar`.
"""

from collections.abc import Iterator

from vit_jax.pretrained.entry import IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  ARRAY,
  BATCH_NORM,
  DENSE,
  NORM,
  Row,
  conv_bn,
)


def _conv(ours: str, theirs: str) -> tuple[Row, Row]:
  return conv_bn(ours, conv=f'{theirs}.0', norm=f'{theirs}.1')


def _relu(ours: str, theirs: str) -> tuple[Row, Row]:
  return (
    Row(f'{ours}/fc1', f'{theirs}.hyper.0', DENSE),
    Row(f'{ours}/fc2', f'{theirs}.hyper.2', DENSE),
  )


def _to_tokens(ours: str, theirs: str) -> tuple[Row, ...]:
  return (
    Row(f'{ours}/query', f'{theirs}.q', DENSE),
    Row(f'{ours}/gate', f'{theirs}.alpha.0', DENSE),
    Row(f'{ours}/out', f'{theirs}.proj', DENSE),
    Row(f'{ours}/norm', f'{theirs}.layer_norm', NORM),
  )


_FORMER = 'features.#.global_block'
_SHARED = (
  Row('tokens', 'tokens.weight', ARRAY),
  *_conv('stem', 'stem'),
  *_conv('block_0/depthwise', 'features.0.conv'),
  # Between the two stand a ReLU and the place of a shuffle.
  *conv_bn(
    'block_0/project', conv='features.0.conv.4', norm='features.0.conv.5'
  ),
  *_to_tokens('block_#/to_tokens', 'features.#.local_global'),
  Row('block_#/former/query', f'{_FORMER}.q', DENSE),
  Row('block_#/former/out', f'{_FORMER}.channel_mlp', DENSE),
  Row('block_#/former/norm1', f'{_FORMER}.layer_norm', NORM),
  Row('block_#/former/mlp/fc1', f'{_FORMER}.ffn.0', DENSE),
  Row('block_#/former/mlp/fc2', f'{_FORMER}.ffn.2', DENSE),
  Row('block_#/former/norm2', f'{_FORMER}.ffn_norm', NORM),
  Row('block_#/to_map/key', 'features.#.global_local.k', DENSE),
  Row('block_#/to_map/value', 'features.#.global_local.proj', DENSE),
  *_to_tokens('to_tokens', 'local_global'),
  # Behind the place of a shuffle.
  *conv_bn('widen', conv='classifier.conv.1', norm='classifier.conv.2'),
  Row('features', 'classifier.fc.0', DENSE),
  Row('features_norm', 'classifier.fc.1', BATCH_NORM),
  Row('head', 'classifier.classifier.1', DENSE),
)


def _convolutions(i: int, *, halves: bool) -> Iterator[Row]:
  """The rows of what else block i has."""
  ours, theirs = f'block_{i}/mobile', f'features.{i}'
  if halves:
    yield from _conv(f'block_{i}/halve/depthwise', f'{theirs}.conv1')
    yield from _relu(f'block_{i}/halve/relu', f'{theirs}.hyper1')
    yield from _conv(f'block_{i}/halve/project', f'{theirs}.conv2')
    yield from _conv(f'{ours}/depthwise', f'{theirs}.conv3')
    yield from _relu(f'{ours}/relu', f'{theirs}.hyper3')
    yield from _conv(f'{ours}/project', f'{theirs}.conv4')
  else:
    yield from _conv(f'{ours}/expand', f'{theirs}.conv1')
    yield from _relu(f'{ours}/relu1', f'{theirs}.hyper1')
    yield from _conv(f'{ours}/depthwise', f'{theirs}.conv2')
    yield from _relu(f'{ours}/relu2', f'{theirs}.hyper2')
    yield from _conv(f'{ours}/project', f'{theirs}.conv3')


def _names(depth: int, *, halving: tuple[int, ...]) -> tuple[Row, ...]:
  """The table for so many blocks, of which these halve the map."""
  rows = (_convolutions(i, halves=i in halving) for i in range(1, depth))
  return (*_SHARED, *(row for block in rows for row in block))


NAMES = {
  'ms_mobile_former_508m': _names(12, halving=(1, 3, 5, 9)),
  'ms_mobile_former_96m': _names(9, halving=(1, 2, 4, 7)),
  'ms_mobile_former_52m': _names(9, halving=(2, 4, 7)),
}

# Variant -> file at Google Drive, accuracy.
_FILES = {
  '508M': ('1bqLIcpbCaxK-Eb4wcxk0iJpFJ1nXfGuF', 79.3),
  '294M': ('1JBSM7NJ60fN9TgT5sMnbhmbZwrzcBd0r', 77.9),
  '214M': ('13MOjdIMMBJgqyq_ld-grRhBBHOFU5Ggd', 76.7),
  '151M': ('1w4QO-zhJ8QI1zGu7iOZ7lXxYJ5G1VXdF', 75.2),
  '96M': ('1kMbRceswujtliCHKr-nxMFsrkvBrEfrW', 72.8),
  '52M': ('1ekq_FPl57gjIlYX16Ll0nBuEyB0pjgGt', 68.7),
  '26M': ('15uWYzx2VWWUjacZQHB56vOHzKxQDlp5O', 64.0),
}


def entries() -> Iterator[Entry]:
  """All of them."""
  mean, std = IMAGENET
  for variant, (file, accuracy) in _FILES.items():
    yield Entry(
      name=f'mobile_former/mobile-former-{variant.lower()}',
      location=f'https://drive.google.com/file/d/{file}/view',
      model='mobile_former',
      variant=variant,
      overrides={},
      preprocessing=Preprocessing(224, resize_small=256, mean=mean, std=std),
      labels='imagenet1k',
      accuracy=accuracy,
      source='README of AAboys/MobileFormer',
    )
