"""CvT: names at Microsoft and Hugging Face; the checkpoints of Microsoft.

Hugging Face holds the checkpoints, and computes them with the exact GELU, not
with the quick one that they were trained with. Accuracies are those of the
README of microsoft/CvT.
"""

from collections.abc import Iterator

import flax.linen as nn

from vit_jax.pretrained.counterpart import HuggingFace, Size
from vit_jax.pretrained.entry import IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import (
  ARRAY,
  CONV,
  DENSE,
  HEADS_OUT,
  NORM,
  Q,
  Row,
  conv_bn,
)

_OURS, _MS = 'stage_#/block_#', 'stage#.blocks.#'


def _projection(ours: str, *, conv: str, norm: str, dense: str) -> list[Row]:
  """The rows of query, key or value."""
  rows = conv_bn(f'{_OURS}/attn/{ours}_conv', conv=conv, norm=norm)
  return [*rows, Row(f'{_OURS}/attn/{ours}', dense, Q)]


def _ms_projection(ours: str) -> list[Row]:
  conv = f'{_MS}.attn.conv_proj_{ours}'
  return _projection(
    ours,
    conv=f'{conv}.conv',
    norm=f'{conv}.bn',
    dense=f'{_MS}.attn.proj_{ours}',
  )


_MICROSOFT = (
  Row('stage_#/patch_embed', 'stage#.patch_embed.proj', CONV),
  Row('stage_#/patch_norm', 'stage#.patch_embed.norm', NORM),
  Row('stage_#/cls', 'stage#.cls_token', ARRAY),
  Row(f'{_OURS}/norm#', f'{_MS}.norm#', NORM),
  *_ms_projection('q'),
  *_ms_projection('k'),
  *_ms_projection('v'),
  Row(f'{_OURS}/attn/out', f'{_MS}.attn.proj', HEADS_OUT),
  Row(f'{_OURS}/mlp/fc#', f'{_MS}.mlp.fc#', DENSE),
  Row('norm', 'norm', NORM),
  Row('head', 'head', DENSE),
)

_HF_STAGE = 'cvt.encoder.stages.#'
_HF_EMBED = f'{_HF_STAGE}.embedding.convolution_embeddings'
_HF = f'{_HF_STAGE}.layers.#'


def _hf_projection(ours: str, name: str) -> list[Row]:
  attention = f'{_HF}.attention.attention'
  conv = f'{attention}.convolution_projection_{name}.convolution_projection'
  return _projection(
    ours,
    conv=f'{conv}.convolution',
    norm=f'{conv}.normalization',
    dense=f'{attention}.projection_{name}',
  )


_HUGGING_FACE = (
  Row('stage_#/patch_embed', f'{_HF_EMBED}.projection', CONV),
  Row('stage_#/patch_norm', f'{_HF_EMBED}.normalization', NORM),
  Row('stage_#/cls', f'{_HF_STAGE}.cls_token', ARRAY),
  Row(f'{_OURS}/norm1', f'{_HF}.layernorm_before', NORM),
  *_hf_projection('q', 'query'),
  *_hf_projection('k', 'key'),
  *_hf_projection('v', 'value'),
  Row(f'{_OURS}/attn/out', f'{_HF}.attention.output.dense', HEADS_OUT),
  Row(f'{_OURS}/norm2', f'{_HF}.layernorm_after', NORM),
  Row(f'{_OURS}/mlp/fc1', f'{_HF}.intermediate.dense', DENSE),
  Row(f'{_OURS}/mlp/fc2', f'{_HF}.output.dense', DENSE),
  Row('norm', 'layernorm', NORM),
  Row('head', 'classifier', DENSE),
)

NAMES = {'ms_cvt': _MICROSOFT, 'hf_cvt': _HUGGING_FACE}

# Name at huggingface.co/microsoft -> variant, side of the image, accuracy.
_CVTS = {
  'cvt-13': ('13', 224, 81.6),
  'cvt-21': ('21', 224, 82.5),
  'cvt-13-384': ('13', 384, 83.0),
  'cvt-21-384': ('21', 384, 83.3),
  'cvt-13-384-22k': ('13', 384, 83.3),
  'cvt-21-384-22k': ('21', 384, 84.9),
  'cvt-w24-384-22k': ('W24', 384, 87.6),
}


def entries() -> Iterator[Entry]:
  """All of them; those of 22k were pre-trained on it, then fine-tuned."""
  mean, std = IMAGENET
  for name, (variant, size, accuracy) in _CVTS.items():
    # Only the first is there as safetensors, too.
    file = 'model.safetensors' if name == 'cvt-13' else 'pytorch_model.bin'
    yield Entry(
      name=f'cvt/{name}',
      location=f'hf://microsoft/{name}/{file}',
      model='cvt',
      variant=variant,
      overrides={},
      # Images of 384 pixels are not cropped, but squashed.
      preprocessing=Preprocessing(
        size,
        resize_small=256 if size == 224 else None,
        interpolation='bicubic',
        mean=mean,
        std=std,
      ),
      labels='imagenet1k',
      accuracy=accuracy,
      source='README of microsoft/CvT',
    )


def hugging_face(model: nn.Module, *, size: Size) -> HuggingFace:
  """The same model of transformers, for images of any size.

  Raises:
    ValueError: if transformers has none.
  """
  del size
  # There, the second stage cannot be built of one block, the third not of two.
  deep = all(depth > i for i, depth in enumerate(model.depths))
  if model.gelu != 'erf' or len(model.depths) != 3 or not deep:
    raise ValueError(
      "Hugging Face's CvT has gelu='erf' and three stages of at least 1, 2 and "
      f'3 blocks, not gelu={model.gelu!r} and depths={model.depths}: export to '
      'onnx or stablehlo.'
    )
  config = {
    'architectures': ['CvtForImageClassification'],
    'model_type': 'cvt',
    'embed_dim': list(model.widths),
    'depth': list(model.depths),
    'num_heads': list(model.num_heads),
    # It would drop a block with all that came before.
    'drop_path_rate': [0.0, 0.0, 0.0],
  }
  return HuggingFace('hf_cvt', config)
