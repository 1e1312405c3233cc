"""ResNet: names at torchvision, timm and Hugging Face; checkpoints at timm.

Accuracies are those of results/results-imagenet.csv of
huggingface/pytorch-image-models, for images of 224 pixels.
"""

from collections.abc import Iterator

import flax.linen as nn

from vit_jax.pretrained.counterpart import HuggingFace, Size, Timm
from vit_jax.pretrained.entry import IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import DENSE, Row, conv_bn

_OURS, _HF = 'stage_#/block_#', 'resnet.encoder.stages.#.layers.#'

# timm keeps the names of torchvision, which counts stages from 1.
_TIMM = (
  *conv_bn('stem', conv='conv1', norm='bn1'),
  *(
    row
    for i in range(4)
    for ours, theirs in [(f'stage_{i}/block_#', f'layer{i + 1}.#')]
    for row in (
      *conv_bn(f'{ours}/conv#', conv=f'{theirs}.conv#', norm=f'{theirs}.bn#'),
      *conv_bn(
        f'{ours}/shortcut',
        conv=f'{theirs}.downsample.0',
        norm=f'{theirs}.downsample.1',
      ),
    )
  ),
  Row('head', 'fc', DENSE),
)


def _hf(ours: str, theirs: str) -> tuple[Row, Row]:
  return conv_bn(
    ours, conv=f'{theirs}.convolution', norm=f'{theirs}.normalization'
  )


_HUGGING_FACE = (
  *_hf('stem', 'resnet.embedder.embedder'),
  *_hf(f'{_OURS}/conv1', f'{_HF}.layer.0'),
  *_hf(f'{_OURS}/conv2', f'{_HF}.layer.1'),
  *_hf(f'{_OURS}/conv3', f'{_HF}.layer.2'),
  *_hf(f'{_OURS}/shortcut', f'{_HF}.shortcut'),
  Row('head', 'classifier.1', DENSE),
)

NAMES = {'timm_resnet': _TIMM, 'hf_resnet': _HUGGING_FACE}

# How it was trained -> depth -> accuracy: the procedures of arXiv:2110.00476,
# and torchvision's first and second weights.
_CHECKPOINTS = {
  'a1': {18: 71.504, 34: 76.420, 50: 80.382, 101: 81.494, 152: 81.998},
  'a2': {18: 70.634, 34: 75.520, 50: 79.828, 101: 81.344, 152: 81.764},
  'a3': {18: 68.250, 34: 72.996, 50: 78.052, 101: 79.836, 152: 80.548},
  'tv': {18: 69.752, 34: 73.298, 50: 76.156, 101: 77.404, 152: 78.330},
  'tv2': {50: 80.846, 101: 81.906, 152: 82.294},
}
# Shorter side of the image, of which 224 pixels are cut out, and how it is
# resized.
_RESIZING = {
  'a1': (235, 'bicubic'),
  'a2': (235, 'bicubic'),
  'a3': (235, 'bicubic'),
  'tv': (256, 'bilinear'),
  'tv2': (232, 'bilinear'),
}


def entries() -> Iterator[Entry]:
  """All of them."""
  mean, std = IMAGENET
  for recipe, accuracies in _CHECKPOINTS.items():
    resize_small, interpolation = _RESIZING[recipe]
    for depth, accuracy in accuracies.items():
      name = f'resnet{depth}.{recipe}_in1k'
      yield Entry(
        name=f'resnet/{name}',
        location=f'hf://timm/{name}',
        model='resnet',
        variant=str(depth),
        overrides={},
        preprocessing=Preprocessing(
          224,
          resize_small=resize_small,
          interpolation=interpolation,
          mean=mean,
          std=std,
        ),
        labels='imagenet1k',
        accuracy=accuracy,
        source='results of huggingface/pytorch-image-models',
      )


def timm(model: nn.Module, *, size: Size) -> Timm:
  """The same model of timm, for images of any size.

  Raises:
    ValueError: if timm has none.
  """
  del size
  _check(model, who='timm')
  return Timm(
    'timm_resnet',
    'resnet50' if model.bottleneck else 'resnet18',
    {'layers': list(model.depths)},
    model.widths[-1],
    'conv1',
    'fc',
  )


def hugging_face(model: nn.Module, *, size: Size) -> HuggingFace:
  """The same model of transformers, for images of any size.

  Raises:
    ValueError: if transformers has none.
  """
  del size
  _check(model, who='Hugging Face')
  config = {
    'architectures': ['ResNetForImageClassification'],
    'model_type': 'resnet',
    'embedding_size': model.stem_width,
    'hidden_sizes': list(model.widths),
    'depths': list(model.depths),
    'layer_type': 'bottleneck' if model.bottleneck else 'basic',
  }
  return HuggingFace('hf_resnet', config)


def _check(model: nn.Module, *, who: str) -> None:
  widths = (256, 512, 1024, 2048) if model.bottleneck else (64, 128, 256, 512)
  if (model.stem_width, *model.widths) != (64, *widths):
    raise ValueError(
      f'{who} has such ResNets with stem_width=64 and widths={widths} alone, '
      f'not with {model.stem_width} and {model.widths}: export to onnx or '
      'stablehlo.'
    )
