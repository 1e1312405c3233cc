"""Tables of models: sizes, costs, published checkpoints."""

import argparse
import dataclasses
import math
import re
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import rich.box
import rich.console
import rich.table

from vit_jax import models
from vit_jax.ops import flops
from vit_jax.pretrained import catalogue

# Classes of JFT-3B, which the models of Scaling ViT were trained on.
JFT_CLASSES = 29_593

# Scaling Vision Transformers, arXiv:2106.04560, table 2, as printed: millions
# of parameters, GFLOPs at 224 and at 384 pixels.
SCALING = {
  's/28': ('5.4', '0.7', '2.0'),
  's/16': ('5.0', '2.2', '7.8'),
  'S/32': ('22', '2.3', '6.9'),
  'Ti/16': ('5.5', '2.5', '9.5'),
  'B/32': ('87', '8.7', '26.0'),
  'S/16': ('22', '9.2', '31.2'),
  'B/28': ('87', '11.3', '30.5'),
  'B/16': ('86', '35.1', '111.3'),
  'L/16': ('303', '122.9', '382.8'),
  'g/14': ('1011', '533.1', '1596.4'),
  'G/14': ('1843', '965.3', '2859.9'),
}


class Row(NamedTuple):
  """A row of the scaling table; parameters and FLOPs as plain numbers.

  Attributes:
    variant: such as 'B/16'.
    params: of the encoder, as the paper counts.
    flops: at 224 and 384 pixels, as the paper counts.
    map_params: of the encoder with its attention pooling, without the head.
    map_flops: twice the multiply-adds of the whole model, pooling and head.
  """

  variant: str
  params: int
  flops: tuple[int, int]
  map_params: int
  map_flops: tuple[int, int]


def cost(model: nn.Module, *, size: int = 224) -> tuple[int, int]:
  """Number of parameters, and FLOPs of one image of size x size pixels."""
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  # What draws the parameters is no product of matrices and counts as nothing.
  operations, (_, variables) = flops.trace(
    model.init_with_output, jax.random.key(0), image
  )
  params = jax.tree.leaves(variables['params'])
  return sum(math.prod(x.shape) for x in params), operations


def paper_flops(variant: str, *, size: int) -> int:
  """FLOPs of one image in the convention of Scaling ViT, table 2.

  The convention is nowhere written down; this one, that of XLA's cost analysis,
  gives all 22 figures to the printed decimal. Besides a multiply-add as 2, it
  counts 1 for each element-wise operation, but nothing for exponentials, roots
  and tanh. There is no class token and no attention pooling, and the head has
  the classes of JFT-3B.
  """
  vit = models.build('vit', variant)
  d, m, h = vit.width, vit.mlp_dim, vit.num_heads
  n = (size // vit.patch_size) ** 2
  patches = n * 3 * vit.patch_size**2 * d
  attention = 4 * n * d**2 + 2 * n**2 * d  # qkv and out; logits and mixing
  mlp = 2 * n * d * m
  multiply_adds = patches + vit.depth * (attention + mlp) + d * JFT_CLASSES
  # 22 = 2 norms of 7, biases of q, k, v, out and fc2, 2 residuals, 1 scaling of
  # the query; 9 = bias of fc1 and 8 of tanh-GELU; 4 = maximum, subtraction, sum
  # and division of the softmax.
  block = 22 * n * d + 9 * n * m + 4 * h * n**2
  # 10 = bias of the patches, positions, the last norm of 7, the average.
  around = 10 * n * d + JFT_CLASSES
  return 2 * multiply_adds + vit.depth * block + around


def scaling_rows() -> list[Row]:
  """The scaling table, computed."""
  rows = []
  for variant in SCALING:
    encoder = models.build('vit', variant, pool='gap', scan=True)
    pooled = encoder.clone(pool='map')
    trained = pooled.clone(num_classes=JFT_CLASSES)
    rows.append(
      Row(
        variant,
        params=cost(encoder)[0],
        flops=(paper_flops(variant, size=224), paper_flops(variant, size=384)),
        map_params=cost(pooled)[0],
        map_flops=(cost(trained)[1], cost(trained, size=384)[1]),
      )
    )
  return rows


def rounded_like(printed: str, value: float) -> str:
  """The value with as many decimals as the printed figure."""
  return f'{value:.{len(printed.partition(".")[2])}f}'


def scaling_table() -> rich.table.Table:
  """Paper and ours side by side, then the model as it is trained."""
  table = rich.table.Table(
    title='Scaling Vision Transformers, table 2: paper | computed',
    box=rich.box.SIMPLE,
    collapse_padding=True,
    pad_edge=False,
    caption='GF: GFLOPs. The last three columns are those of the model that is '
    'trained, with attention pooling (MAP): parameters without the head, twice '
    f'the multiply-adds with a head of {JFT_CLASSES:,} classes.',
  )
  table.add_column('ViT')
  for column in ('params, M', 'GF @224', 'GF @384'):
    table.add_column(column, justify='right')
  for column in ('MAP, M', 'GF @224', 'GF @384'):
    table.add_column(column, justify='right')
  for row in scaling_rows():
    ours = (row.params / 1e6, row.flops[0] / 1e9, row.flops[1] / 1e9)
    pairs = [
      f'{paper} | {rounded_like(paper, value)}'
      for paper, value in zip(SCALING[row.variant], ours, strict=True)
    ]
    real = (
      row.map_params / 1e6,
      row.map_flops[0] / 1e9,
      row.map_flops[1] / 1e9,
    )
    table.add_row(row.variant, *pairs, *(f'{value:.1f}' for value in real))
  return table


def sizes_table(pattern: str) -> rich.table.Table:
  """Every published variant whose 'model variant' the pattern matches.

  Raises:
    ValueError: if nothing matches.
  """
  table = rich.table.Table(
    title='At 224x224 pixels, with 1000 classes',
    box=rich.box.SIMPLE,
    caption='top-1: the best published of ImageNet-1k, in %, @ its pixels; '
    'weights: who publishes them, see --pretrained',
  )
  table.add_column('model')
  table.add_column('variant')
  table.add_column('params, M', justify='right')
  table.add_column('GFLOPs', justify='right')
  table.add_column('top-1', justify='right')
  table.add_column('weights', overflow='fold')
  for name, (module, _, variants) in models.MODELS.items():
    fields = {field.name for field in dataclasses.fields(module)}
    # Scanned, one block is traced instead of all, to the same result.
    options = {'scan': True} if 'scan' in fields else {}
    for variant in variants:
      if not re.search(pattern, f'{name} {variant}'):
        continue
      model = models.build(name, variant, num_classes=1000, **options)
      params, operations = cost(model)
      size = (f'{params / 1e6:.2f}', f'{operations / 1e9:.2f}')
      table.add_row(name, variant, *size, *published(name, variant))
  if not table.rows:
    raise ValueError(
      f"{pattern!r} matches no model: it is searched in 'model variant', such "
      "as 'vit B/16'"
    )
  return table


def published(name: str, variant: str) -> tuple[str, str]:
  """The best top-1 of a variant, as '85.5 @384', and who has its weights."""
  found = [
    entry
    for entry in catalogue.search('*')
    if (entry.model, entry.variant) == (name, variant)
  ]
  judged = [x for x in found if x.accuracy and x.labels == 'imagenet1k']
  best = max(judged, key=lambda entry: entry.accuracy, default=None)
  # gs://bucket, hf://owner, or the host.
  stores = dict.fromkeys(
    '/'.join(x.location.split('/')[:3]).removeprefix('https://') for x in found
  )
  return (
    f'{best.accuracy} @{best.preprocessing.size}' if best else '',
    ', '.join(stores),
  )


def pretrained_table(pattern: str) -> rich.table.Table:
  """Every published checkpoint that the pattern, as of a shell, matches.

  Raises:
    ValueError: if nothing matches.
  """
  found = catalogue.search(pattern)
  if not found:
    raise ValueError(
      f"{pattern!r} matches no published checkpoint: list all with '*'."
    )
  table = rich.table.Table(
    title='For --config.init.params',
    box=None,
    caption='px: side of the image; *: published with a head of zeros; top-1: '
    'as published, on ImageNet-1k, in %',
  )
  table.add_column('name', no_wrap=True)
  table.add_column('variant', no_wrap=True)
  table.add_column('px', justify='right')
  table.add_column('labels', no_wrap=True)
  table.add_column('top-1', justify='right')
  for entry in found:
    table.add_row(
      entry.name,
      entry.variant,
      str(entry.preprocessing.size),
      entry.labels + '*' * entry.zeroed_head,
      f'{entry.accuracy:.2f}' if entry.accuracy is not None else '',
    )
  return table


def run(args: argparse.Namespace) -> int:
  """Prints a table."""
  if args.pretrained is not None:
    table = pretrained_table(args.pretrained)
  elif args.table == 'scaling':
    table = scaling_table()
  else:
    table = sizes_table(args.pattern)
  rich.console.Console().print(table)
  return 0
