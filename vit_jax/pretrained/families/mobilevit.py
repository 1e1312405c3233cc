"""MobileViT and MobileViTv2: names elsewhere, the checkpoints of Apple.

Apple's first MobileViT reads images as OpenCV does, blue first, and so does
Hugging Face's, which keeps its arrays; here, as at timm, red is first, and the
first kernel is turned round between the two. All of them, and MobileViTv2, take
images from 0 to 1.

timm holds most of the checkpoints, as safetensors. Accuracies are those of
README-model-zoo.md of apple/ml-cvnets.
"""

from collections.abc import Iterator
from typing import Any

from vit_jax.pretrained.entry import Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  CONV,
  DENSE,
  HEADS_OUT,
  NORM,
  POINTWISE,
  QKV,
  Form,
  Row,
  conv_bn,
)

BLUE_FIRST = Form(
  'kernel',
  'weight',
  lambda x, heads: x[:, ::-1].transpose(2, 3, 1, 0),
  lambda x: x.transpose(3, 2, 0, 1)[:, ::-1],
)
# The published depths; Apple counts the norm after the blocks with them.
DEPTHS = {2: 2, 3: 4, 4: 3}

_RESIDUAL, _MIXER = 'stage_#/residual_#', 'stage_#/mixer'
_BLOCK = f'{_MIXER}/block_#'


def _blue_first(rows: tuple[Row, ...]) -> tuple[Row, ...]:
  """The same table, whose first row is of the first kernel."""
  return (rows[0]._replace(forms=(BLUE_FIRST,)), *rows[1:])


def _timm_conv(ours: str, theirs: str) -> tuple[Row, Row]:
  return conv_bn(ours, conv=f'{theirs}.conv', norm=f'{theirs}.bn')


_TIMM_BLOCK = 'stages.#.1.transformer.#'
_TIMM_SHARED = (
  *_timm_conv('stem', 'stem'),
  *_timm_conv(f'{_RESIDUAL}/expand', 'stages.#.#.conv1_1x1'),
  *_timm_conv(f'{_RESIDUAL}/depthwise', 'stages.#.#.conv2_kxk'),
  *_timm_conv(f'{_RESIDUAL}/reduce', 'stages.#.#.conv3_1x1'),
  *_timm_conv(f'{_MIXER}/local', 'stages.#.1.conv_kxk'),
  Row(f'{_MIXER}/to_tokens', 'stages.#.1.conv_1x1', CONV[:1]),
  Row(f'{_BLOCK}/norm#', f'{_TIMM_BLOCK}.norm#', NORM),
  Row(f'{_MIXER}/norm', 'stages.#.1.norm', NORM),
  *_timm_conv(f'{_MIXER}/from_tokens', 'stages.#.1.conv_proj'),
  Row('head', 'head.fc', DENSE),
)
_TIMM = (
  *_TIMM_SHARED,
  Row(f'{_BLOCK}/attn/qkv', f'{_TIMM_BLOCK}.attn.qkv', QKV),
  Row(f'{_BLOCK}/attn/out', f'{_TIMM_BLOCK}.attn.proj', HEADS_OUT),
  Row(f'{_BLOCK}/mlp/fc#', f'{_TIMM_BLOCK}.mlp.fc#', DENSE),
  *_timm_conv(f'{_MIXER}/fuse', 'stages.#.1.conv_fusion'),
  *_timm_conv('widen', 'final_conv'),
)
_TIMM_V2 = (
  *_TIMM_SHARED,
  Row(f'{_BLOCK}/attn/qkv', f'{_TIMM_BLOCK}.attn.qkv_proj', POINTWISE),
  Row(f'{_BLOCK}/attn/out', f'{_TIMM_BLOCK}.attn.out_proj', POINTWISE),
  Row(f'{_BLOCK}/mlp/fc#', f'{_TIMM_BLOCK}.mlp.fc#', POINTWISE),
)


def _apple_conv(ours: str, theirs: str) -> tuple[Row, Row]:
  block = f'{theirs}.block'
  return conv_bn(ours, conv=f'{block}.conv', norm=f'{block}.norm')


def _apple_residuals(stage: int) -> Iterator[Row]:
  ours, theirs = f'stage_{stage}/residual_#', f'layer_{stage + 1}.#.block'
  yield from _apple_conv(f'{ours}/expand', f'{theirs}.exp_1x1')
  yield from _apple_conv(f'{ours}/depthwise', f'{theirs}.conv_3x3')
  yield from _apple_conv(f'{ours}/reduce', f'{theirs}.red_1x1')


def _apple_mixer(stage: int) -> Iterator[Row]:
  ours, theirs = f'stage_{stage}/mixer', f'layer_{stage + 1}.1'
  block, their_block = f'{ours}/block_#', f'{theirs}.global_rep.#'
  local = f'{theirs}.local_rep'
  yield from _apple_conv(f'{ours}/local', f'{local}.conv_3x3')
  yield Row(f'{ours}/to_tokens', f'{local}.conv_1x1.block.conv', CONV[:1])
  attention = f'{their_block}.pre_norm_mha'
  yield Row(f'{block}/norm1', f'{attention}.0', NORM)
  yield Row(f'{block}/attn/qkv', f'{attention}.1.qkv_proj', QKV)
  yield Row(f'{block}/attn/out', f'{attention}.1.out_proj', HEADS_OUT)
  mlp = f'{their_block}.pre_norm_ffn'
  yield Row(f'{block}/norm2', f'{mlp}.0', NORM)
  yield Row(f'{block}/mlp/fc1', f'{mlp}.1', DENSE)
  yield Row(f'{block}/mlp/fc2', f'{mlp}.4', DENSE)
  yield Row(f'{ours}/norm', f'{theirs}.global_rep.{DEPTHS[stage]}', NORM)
  yield from _apple_conv(f'{ours}/from_tokens', f'{theirs}.conv_proj')
  yield from _apple_conv(f'{ours}/fuse', f'{theirs}.fusion')


def _apple_mixer_v2(stage: int) -> Iterator[Row]:
  ours, theirs = f'stage_{stage}/mixer', f'layer_{stage + 1}.1'
  block, their_block = f'{ours}/block_#', f'{theirs}.global_rep.#'
  local = f'{theirs}.local_rep'
  yield from _apple_conv(f'{ours}/local', f'{local}.0')
  yield Row(f'{ours}/to_tokens', f'{local}.1.block.conv', CONV[:1])
  attention = f'{their_block}.pre_norm_attn'
  yield Row(f'{block}/norm1', f'{attention}.0', NORM)
  qkv, out = (
    f'{attention}.1.{name}_proj.block.conv' for name in ('qkv', 'out')
  )
  yield Row(f'{block}/attn/qkv', qkv, POINTWISE)
  yield Row(f'{block}/attn/out', out, POINTWISE)
  mlp = f'{their_block}.pre_norm_ffn'
  yield Row(f'{block}/norm2', f'{mlp}.0', NORM)
  yield Row(f'{block}/mlp/fc1', f'{mlp}.1.block.conv', POINTWISE)
  yield Row(f'{block}/mlp/fc2', f'{mlp}.3.block.conv', POINTWISE)
  yield Row(f'{ours}/norm', f'{theirs}.global_rep.{DEPTHS[stage]}', NORM)
  yield from _apple_conv(f'{ours}/from_tokens', f'{theirs}.conv_proj')


_APPLE_SHARED = (
  *_apple_conv('stem', 'conv_1'),
  *(row for stage in range(5) for row in _apple_residuals(stage)),
)
_APPLE = (
  *_blue_first(_APPLE_SHARED),
  *(row for stage in DEPTHS for row in _apple_mixer(stage)),
  *_apple_conv('widen', 'conv_1x1_exp'),
  Row('head', 'classifier.fc', DENSE),
)
_APPLE_V2 = (
  *_APPLE_SHARED,
  *(row for stage in DEPTHS for row in _apple_mixer_v2(stage)),
  Row('head', 'classifier.1', DENSE),
)


def _hf_conv(ours: str, theirs: str) -> tuple[Row, Row]:
  return conv_bn(
    ours, conv=f'{theirs}.convolution', norm=f'{theirs}.normalization'
  )


def _hf_residuals(ours: str, theirs: str) -> Iterator[Row]:
  yield from _hf_conv(f'{ours}/expand', f'{theirs}.expand_1x1')
  yield from _hf_conv(f'{ours}/depthwise', f'{theirs}.conv_3x3')
  yield from _hf_conv(f'{ours}/reduce', f'{theirs}.reduce_1x1')


def _hf_shared(name: str) -> Iterator[Row]:
  """The rows that both have; the first two stages hold more residuals."""
  layer = f'{name}.encoder.layer'
  block = f'{layer}.#.transformer.layer.#'
  yield from _hf_conv('stem', f'{name}.conv_stem')
  yield from _hf_residuals('stage_0/residual_#', f'{layer}.0.layer.#')
  yield from _hf_residuals('stage_1/residual_#', f'{layer}.1.layer.#')
  yield from _hf_residuals(
    'stage_#/residual_0', f'{layer}.#.downsampling_layer'
  )
  yield from _hf_conv(f'{_MIXER}/local', f'{layer}.#.conv_kxk')
  yield Row(f'{_MIXER}/to_tokens', f'{layer}.#.conv_1x1.convolution', CONV[:1])
  yield Row(f'{_BLOCK}/norm1', f'{block}.layernorm_before', NORM)
  yield Row(f'{_BLOCK}/norm2', f'{block}.layernorm_after', NORM)
  yield Row(f'{_MIXER}/norm', f'{layer}.#.layernorm', NORM)
  yield from _hf_conv(f'{_MIXER}/from_tokens', f'{layer}.#.conv_projection')
  yield Row('head', 'classifier', DENSE)


_HF_BLOCK = 'mobilevit.encoder.layer.#.transformer.layer.#'
_HF_ATTENTION = f'{_HF_BLOCK}.attention.attention'
_HF_QKV = (
  f'{_HF_ATTENTION}.query',
  f'{_HF_ATTENTION}.key',
  f'{_HF_ATTENTION}.value',
)
_HF = (
  *_blue_first(tuple(_hf_shared('mobilevit'))),
  Row(f'{_BLOCK}/attn/qkv', _HF_QKV, QKV),
  Row(f'{_BLOCK}/attn/out', f'{_HF_BLOCK}.attention.output.dense', HEADS_OUT),
  Row(f'{_BLOCK}/mlp/fc1', f'{_HF_BLOCK}.intermediate.dense', DENSE),
  Row(f'{_BLOCK}/mlp/fc2', f'{_HF_BLOCK}.output.dense', DENSE),
  *_hf_conv(f'{_MIXER}/fuse', 'mobilevit.encoder.layer.#.fusion'),
  *_hf_conv('widen', 'mobilevit.conv_1x1_exp'),
)
_HF_BLOCK_V2 = 'mobilevitv2.encoder.layer.#.transformer.layer.#'
_HF_ATTENTION_V2 = f'{_HF_BLOCK_V2}.attention'
_HF_V2 = (
  *_hf_shared('mobilevitv2'),
  Row(
    f'{_BLOCK}/attn/qkv', f'{_HF_ATTENTION_V2}.qkv_proj.convolution', POINTWISE
  ),
  Row(
    f'{_BLOCK}/attn/out', f'{_HF_ATTENTION_V2}.out_proj.convolution', POINTWISE
  ),
  Row(f'{_BLOCK}/mlp/fc#', f'{_HF_BLOCK_V2}.ffn.conv#.convolution', POINTWISE),
)

NAMES = {
  'timm_mobilevit': _TIMM,
  'timm_mobilevit_v2': _TIMM_V2,
  'apple_mobilevit': _APPLE,
  'apple_mobilevit_v2': _APPLE_V2,
  'hf_mobilevit': _HF,
  'hf_mobilevit_v2': _HF_V2,
}

# Name at huggingface.co/timm -> variant, accuracy.
_MOBILEVITS = {
  'mobilevit_xxs.cvnets_in1k': ('XXS', 69.0),
  'mobilevit_xs.cvnets_in1k': ('XS', 74.7),
  'mobilevit_s.cvnets_in1k': ('S', 78.3),
}
_MOBILEVITS_V2 = {
  'mobilevitv2_050.cvnets_in1k': ('0.5', 70.18),
  'mobilevitv2_075.cvnets_in1k': ('0.75', 75.56),
  'mobilevitv2_100.cvnets_in1k': ('1.0', 78.09),
  'mobilevitv2_125.cvnets_in1k': ('1.25', 79.65),
  'mobilevitv2_150.cvnets_in1k': ('1.5', 80.38),
  'mobilevitv2_175.cvnets_in1k': ('1.75', 80.84),
  'mobilevitv2_200.cvnets_in1k': ('2.0', 81.17),
  'mobilevitv2_150.cvnets_in22k_ft_in1k': ('1.5', 81.46),
  'mobilevitv2_175.cvnets_in22k_ft_in1k': ('1.75', 81.94),
  'mobilevitv2_200.cvnets_in22k_ft_in1k': ('2.0', 82.36),
  'mobilevitv2_150.cvnets_in22k_ft_in1k_384': ('1.5', 82.60),
  'mobilevitv2_175.cvnets_in22k_ft_in1k_384': ('1.75', 82.93),
  'mobilevitv2_200.cvnets_in22k_ft_in1k_384': ('2.0', 83.41),
}
# Of Apple, fine-tuned at 384 pixels: variant -> accuracy.
_FINETUNED = {
  '0.5': 72.14,
  '0.75': 76.98,
  '1.0': 79.68,
  '1.25': 80.94,
  '1.5': 81.50,
  '1.75': 82.04,
  '2.0': 82.17,
}
_AT_APPLE = (
  'https://docs-assets.developer.apple.com/ml-research/models/cvnets-v2/'
  'classification/mobilevitv2/imagenet1k/384x384'
)


def entries() -> Iterator[Entry]:
  """All of them."""
  for name, (variant, accuracy) in _MOBILEVITS.items():
    yield _entry(
      name,
      location=f'hf://timm/{name}',
      model='mobilevit',
      variant=variant,
      # Nine tenths of it are 256 pixels.
      resize_small=284,
      accuracy=accuracy,
    )
  for name, (variant, accuracy) in _MOBILEVITS_V2.items():
    yield _entry(
      name,
      location=f'hf://timm/{name}',
      model='mobilevit_v2',
      variant=variant,
      size=384 if name.endswith('384') else 256,
      resize_small=384 if name.endswith('384') else 288,
      accuracy=accuracy,
    )
  for variant, accuracy in _FINETUNED.items():
    yield _entry(
      f'mobilevitv2-{variant}-384',
      location=f'{_AT_APPLE}/mobilevitv2-{variant}.pt',
      model='mobilevit_v2',
      variant=variant,
      size=384,
      resize_small=384,
      accuracy=accuracy,
    )


def _entry(
  name: str, *, resize_small: int, size: int = 256, **facts: Any
) -> Entry:
  return Entry(
    name=f'mobilevit/{name}',
    overrides={},
    preprocessing=Preprocessing(
      size,
      resize_small=resize_small,
      interpolation='bicubic',
      mean=(0.0, 0.0, 0.0),
      std=(1.0, 1.0, 1.0),
    ),
    labels='imagenet1k',
    source='README-model-zoo.md of apple/ml-cvnets',
    **facts,
  )
