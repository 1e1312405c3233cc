"""ViT and its hybrids: names at timm and Hugging Face, checkpoints of Google.

Those of AugReg are in `augreg`, those of DeiT in `deit`.
"""

from collections.abc import Iterator

import flax.linen as nn

from vit_jax.pretrained.counterpart import HuggingFace, Size, Timm, ratio
from vit_jax.pretrained.entry import Entry, Preprocessing, google_entry
from vit_jax.pretrained.torch_rows import (
  ARRAY,
  CONV,
  DENSE,
  HEADS_OUT,
  KV,
  NORM,
  QKV,
  SCALE,
  Q,
  Row,
  respell,
)

# ViT and DeiT; `pre_logits` is of timm before 0.6.
TIMM_VIT = (
  Row('cls', 'cls_token', ARRAY),
  Row('pos_embed', 'pos_embed', ARRAY),
  Row('patch_embed/proj', 'patch_embed.proj', CONV),
  Row('block_#/norm1', 'blocks.#.norm1', NORM),
  Row('block_#/attn/qkv', 'blocks.#.attn.qkv', QKV),
  Row('block_#/attn/out', 'blocks.#.attn.proj', HEADS_OUT),
  Row('block_#/scale1', 'blocks.#.ls1', SCALE),
  Row('block_#/norm2', 'blocks.#.norm2', NORM),
  Row('block_#/mlp/fc#', 'blocks.#.mlp.fc#', DENSE),
  Row('block_#/scale2', 'blocks.#.ls2', SCALE),
  Row('norm', 'norm', NORM),
  Row('pool/probe', 'attn_pool.latent', ARRAY),
  Row('pool/attn/q', 'attn_pool.q', Q),
  Row('pool/attn/kv', 'attn_pool.kv', KV),
  Row('pool/attn/out', 'attn_pool.proj', HEADS_OUT),
  Row('pool/norm', 'attn_pool.norm', NORM),
  Row('pool/mlp/fc#', 'attn_pool.mlp.fc#', DENSE),
  Row('pre_logits', 'pre_logits.fc', DENSE),
  Row('head', 'head', DENSE),
)

_UNIT, _TIMM_UNIT = (
  'resnet/stage#_unit#',
  'patch_embed.backbone.stages.#.blocks',
)
_TIMM_HYBRID = (
  *TIMM_VIT,
  Row('resnet/conv_root', 'patch_embed.backbone.stem.conv', CONV),
  Row('resnet/gn_root', 'patch_embed.backbone.stem.norm', NORM),
  Row(f'{_UNIT}/conv#', f'{_TIMM_UNIT}.#.conv#', CONV),
  Row(f'{_UNIT}/gn#', f'{_TIMM_UNIT}.#.norm#', NORM),
  Row(f'{_UNIT}/conv_proj', f'{_TIMM_UNIT}.#.downsample.conv', CONV),
  Row(f'{_UNIT}/gn_proj', f'{_TIMM_UNIT}.#.downsample.norm', NORM),
)

# R+Ti/16, whose ResNet is but a stem.
_TIMM_STEM = (
  *TIMM_VIT,
  Row('resnet/conv_root', 'patch_embed.backbone.conv', CONV),
  Row('resnet/gn_root', 'patch_embed.backbone.norm', NORM),
)

# As files on the hub have them. The pooler of the models trained on
# ImageNet-21k is what the paper calls the pre-logits.
_LAYER = 'vit.encoder.layer.#'
HF_VIT = (
  Row('cls', 'vit.embeddings.cls_token', ARRAY),
  Row('pos_embed', 'vit.embeddings.position_embeddings', ARRAY),
  Row('patch_embed/proj', 'vit.embeddings.patch_embeddings.projection', CONV),
  Row('block_#/norm1', f'{_LAYER}.layernorm_before', NORM),
  Row(
    'block_#/attn/qkv',
    (
      f'{_LAYER}.attention.attention.query',
      f'{_LAYER}.attention.attention.key',
      f'{_LAYER}.attention.attention.value',
    ),
    QKV,
  ),
  Row('block_#/attn/out', f'{_LAYER}.attention.output.dense', HEADS_OUT),
  Row('block_#/norm2', f'{_LAYER}.layernorm_after', NORM),
  Row('block_#/mlp/fc1', f'{_LAYER}.intermediate.dense', DENSE),
  Row('block_#/mlp/fc2', f'{_LAYER}.output.dense', DENSE),
  Row('norm', 'vit.layernorm', NORM),
  Row('pre_logits', 'vit.pooler.dense', DENSE),
  Row('head', 'classifier', DENSE),
)

NAMES = {
  'timm_vit': TIMM_VIT,
  'timm_hybrid': _TIMM_HYBRID,
  'timm_stem': _TIMM_STEM,
  'hf_vit': HF_VIT,
  # A file without a classifier.
  'hf_vit_bare': respell(HF_VIT, {'vit.': ''}),
  # As transformers 5 calls them in memory.
  'hf_vit_memory': respell(
    HF_VIT,
    {
      'encoder.layer.': 'layers.',
      'attention.attention.query': 'attention.q_proj',
      'attention.attention.key': 'attention.k_proj',
      'attention.attention.value': 'attention.v_proj',
      'attention.output.dense': 'attention.o_proj',
      'intermediate.dense': 'mlp.fc1',
      'output.dense': 'mlp.fc2',
    },
  ),
}

_VIT = 'ViT, arXiv:2010.11929'
_SAM = 'SAM, arXiv:2106.01548'
_GSAM = 'GSAM, arXiv:2203.08065'
_README = 'README of google-research/vision_transformer'

# File -> side in pixels, accuracy.
_VIT_21K_1K = {
  'R50+ViT-B_16': (384, None),
  'ViT-B_8': (384, None),
  'ViT-B_16': (384, None),
  'ViT-B_16-224': (224, 81.2),
  'ViT-B_32': (384, None),
  'ViT-L_16': (384, None),
  'ViT-L_16-224': (224, 82.7),
  'ViT-L_32': (384, None),
}
# File -> width of the layer before the head.
_VIT_21K = {
  'R26+ViT-B_32': 768,
  'R50+ViT-B_16': 768,
  'R50+ViT-L_32': 1024,
  'ViT-B_8': 768,
  'ViT-B_16': 768,
  'ViT-B_32': 768,
  'ViT-L_16': 1024,
  'ViT-L_32': 1024,
  'ViT-H_14': 1280,
}
# Directory and file -> pooling, accuracy, paper.
_VIT_1K = {
  'sam/ViT-S_16': ('token', None, _SAM),
  'sam/ViT-B_16': ('token', 79.9, _SAM),
  'sam/ViT-B_32': ('token', None, _SAM),
  'sam/ViT-L_16': ('token', None, _SAM),
  'sam/ViT-L_32': ('token', None, _SAM),
  'gsam/ViT-S_16': ('gap', None, _GSAM),
  'gsam/ViT-S_32': ('gap', None, _GSAM),
  'gsam/ViT-B_16': ('gap', None, _GSAM),
  'gsam/ViT-B_32': ('gap', None, _GSAM),
}

# Epochs -> accuracy.
_S16 = {'90ep': 76.5, '150ep': None, '300ep': 80.0}


def entries() -> Iterator[Entry]:
  """Those of the first paper, of SAM and GSAM, and of big_vision."""
  for file, width in _VIT_21K.items():
    yield google_entry(
      f'imagenet21k/{file}',
      overrides={'representation_size': width},
      preprocessing=Preprocessing(224),
      labels='imagenet21k',
      accuracy=None,
      source=_VIT,
      zeroed_head=True,
      loss='sigmoid',
    )
  for file, (size, accuracy) in _VIT_21K_1K.items():
    yield google_entry(
      f'imagenet21k+imagenet2012/{file}',
      overrides={},
      preprocessing=Preprocessing(size),
      labels='imagenet1k',
      accuracy=accuracy,
      source=_README if accuracy else _VIT,
    )
  for name, (pool, accuracy, source) in _VIT_1K.items():
    yield google_entry(
      name,
      overrides={'pool': pool},
      preprocessing=Preprocessing(224, resize_small=256),
      labels='imagenet1k',
      accuracy=accuracy,
      source=source,
      loss='sigmoid',
    )
  for file, accuracy in _S16.items():
    yield google_entry(
      f'big_vision/vit_s16_i1k_{file}',
      file=f'vit_s16_i1k_{file}',
      bucket='big_vision',
      variant='S/16',
      overrides={
        'pool': 'gap',
        'pos_embed': 'sincos2d',
        'representation_size': 384,
      },
      preprocessing=Preprocessing(224, resize_small=256),
      labels='imagenet1k',
      accuracy=accuracy,
      source='Better plain ViT baselines, arXiv:2205.01580',
    )


_GELUS = {
  'timm': {'tanh': 'gelu_tanh', 'erf': 'gelu'},
  'hf': {'tanh': 'gelu_pytorch_tanh', 'erf': 'gelu'},
}
_POOLS = {'token': 'token', 'gap': 'avg', 'map': 'map'}  # ours -> timm
# timm's hybrids by the units of their ResNets, which are no arguments. Any of
# its plain ViTs will do: all their sizes are.
_HYBRIDS = {
  (): 'vit_tiny_r_s16_p8_224',
  (2, 2, 2, 2): 'vit_small_r26_s32_224',
  (3, 4, 9): 'vit_base_r50_s16_224',
  (3, 4, 6, 3): 'vit_large_r50_s32_224',
}


def timm(model: nn.Module, *, size: Size) -> Timm:
  """The same model of timm.

  Raises:
    ValueError: if timm has none.
  """
  if model.representation_size is not None:
    raise ValueError(
      'timm has no layer before the head: train with '
      '`config.model.representation_size = None`, or export to npz or onnx.'
    )
  family, architecture = 'timm_vit', 'vit_base_patch16_224'
  first_conv = 'patch_embed.proj'
  if model.resnet is not None:
    units = tuple(model.resnet)
    if units not in _HYBRIDS:
      raise ValueError(
        f'timm has no hybrid with resnet={units}, only {list(_HYBRIDS)}: '
        'export to npz or onnx.'
      )
    architecture = _HYBRIDS[units]
    family = 'timm_hybrid' if units else 'timm_stem'
    stem = 'stem.conv' if units else 'conv'
    first_conv = f'patch_embed.backbone.{stem}'
  args = {
    'img_size': list(size),
    'patch_size': model.patch_size,
    'embed_dim': model.width,
    'depth': model.depth,
    'num_heads': model.num_heads,
    'mlp_ratio': ratio(model.mlp_dim, model.width),
    'class_token': model.pool == 'token',
    'global_pool': _POOLS[model.pool],
    'fc_norm': False,
    'init_values': model.layer_scale,
    'act_layer': _GELUS['timm'][model.gelu],
  }
  return Timm(family, architecture, args, model.width, first_conv)


def hugging_face(model: nn.Module, *, size: Size) -> HuggingFace:
  """The same model of transformers, for images of any size.

  Raises:
    ValueError: if transformers has none.
  """
  del size
  unable = []
  if model.pool != 'token':
    unable.append(f'pool={model.pool!r} (only a class token)')
  if model.layer_scale is not None:
    unable.append('layer_scale')
  if model.resnet is not None:
    unable.append('a ResNet before the patches')
  if model.representation_size is not None:
    unable.append('representation_size')
  if unable:
    raise ValueError(
      f"Hugging Face's models for image classification cannot express "
      f'{", ".join(unable)}: export to timm, npz, onnx or stablehlo.'
    )
  config = {
    'architectures': ['ViTForImageClassification'],
    'model_type': 'vit',
    'patch_size': model.patch_size,
    'hidden_size': model.width,
    'num_hidden_layers': model.depth,
    'num_attention_heads': model.num_heads,
    'intermediate_size': model.mlp_dim,
    'hidden_act': _GELUS['hf'][model.gelu],
    'qkv_bias': True,
    'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0,
  }
  return HuggingFace('hf_vit', config)
