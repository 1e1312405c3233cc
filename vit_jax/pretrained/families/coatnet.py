"""CoAtNet: names at timm.

Its authors published no checkpoints. Those of timm are of other networks: the
convolutions have other widths, activations and strides. So are its models
without checkpoints, coatnet_0_224 and so on, unless they are told to have the
paper's strides and pooling, and no layer before the head; or ours to have
theirs. What remains are its epsilons, its GELU and the zeros around maps.
"""

import numpy as np

from vit_jax.pretrained.families.swin import TABLE
from vit_jax.pretrained.torch_rows import (
  BATCH_NORM,
  CONV,
  DENSE,
  HEADS_OUT,
  NORM,
  POINTWISE,
  Form,
  Row,
  conv_bn,
)

# A convolution of 1 x 1, whose heads come first: (h * f * t, d, 1, 1).
_QKV = (
  Form(
    'kernel',
    'weight',
    lambda x, heads: x.reshape(heads, 3, -1, x.shape[1]).transpose(3, 1, 0, 2),
    lambda x: x.transpose(2, 1, 3, 0).reshape(-1, len(x), 1, 1),
    by_heads=True,
  ),
  Form(
    'bias',
    'bias',
    lambda x, heads: x.reshape(heads, 3, -1).swapaxes(0, 1),
    lambda x: np.ravel(x.swapaxes(0, 1)),
    by_heads=True,
  ),
)
_OUT = (
  HEADS_OUT[0]._replace(
    to_ours=lambda x, heads: HEADS_OUT[0].to_ours(x[:, :, 0, 0], heads),
    from_ours=lambda x: HEADS_OUT[0].from_ours(x)[:, :, None, None],
  ),
  HEADS_OUT[1],
)


def _convolutions(stage: int) -> tuple[Row, ...]:
  """The rows of a stage of convolutions."""
  ours, timm = f'stage_{stage}/block_#', f'stages.{stage}.blocks.#'
  return (
    Row(f'{ours}/norm', f'{timm}.pre_norm', BATCH_NORM),
    *conv_bn(
      f'stage_{stage}/block_0/downsample',
      conv=f'stages.{stage}.blocks.0.conv1_1x1',
      norm=f'stages.{stage}.blocks.0.norm1',
    ),
    *conv_bn(f'{ours}/expand', conv=f'{timm}.conv1_1x1', norm=f'{timm}.norm1'),
    *conv_bn(
      f'{ours}/depthwise', conv=f'{timm}.conv2_kxk', norm=f'{timm}.norm2'
    ),
    Row(f'{ours}/squeeze_excite/reduce', f'{timm}.se.fc1', POINTWISE),
    Row(f'{ours}/squeeze_excite/expand', f'{timm}.se.fc2', POINTWISE),
    Row(f'{ours}/project', f'{timm}.conv3_1x1', POINTWISE),
    Row(f'{ours}/shortcut', f'{timm}.shortcut.expand', POINTWISE),
  )


def _attention(stage: int) -> tuple[Row, ...]:
  """The rows of a stage of attention."""
  ours, timm = f'stage_{stage}/block_#', f'stages.{stage}.blocks.#'
  return (
    Row(
      f'stage_{stage}/block_0/norm1',
      f'stages.{stage}.blocks.0.norm1.norm',
      NORM,
    ),
    Row(f'{ours}/norm1', f'{timm}.norm1', NORM),
    Row(f'{ours}/position_bias', f'{timm}.attn.rel_pos', (TABLE,)),
    Row(f'{ours}/attn/qkv', f'{timm}.attn.qkv', _QKV),
    Row(f'{ours}/attn/out', f'{timm}.attn.proj', _OUT),
    Row(f'{ours}/shortcut', f'{timm}.shortcut.expand', POINTWISE),
    Row(f'{ours}/norm2', f'{timm}.norm2', NORM),
    Row(f'{ours}/mlp/fc#', f'{timm}.mlp.fc#', POINTWISE),
  )


NAMES = {
  'timm_coatnet': (
    *conv_bn('stem1', conv='stem.conv1', norm='stem.norm1'),
    Row('stem2', 'stem.conv2', CONV[:1]),
    *_convolutions(0),
    *_convolutions(1),
    *_attention(2),
    *_attention(3),
    Row('norm', 'head.norm', NORM),
    Row('pre_logits', 'head.pre_logits.fc', DENSE),
    Row('head', 'head.fc', DENSE),
  )
}
