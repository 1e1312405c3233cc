"""EfficientNet: names at timm, and the checkpoints there.

Those whose names begin with 'tf_' were trained by Google and carried over.
Accuracies are those of results/results-imagenet.csv of
huggingface/pytorch-image-models.
"""

from collections.abc import Iterator

from vit_jax.pretrained.entry import HALF, IMAGENET, Entry, Preprocessing
from vit_jax.pretrained.torch_rows import DENSE, POINTWISE, Row, conv_bn


def _block(ours: str, theirs: str, names: dict[str, str]) -> tuple[Row, ...]:
  """The rows of a block, in which the norms have numbers in their order."""
  return tuple(
    row
    for i, (name, conv) in enumerate(names.items())
    for row in conv_bn(
      f'{ours}/{name}', conv=f'{theirs}.{conv}', norm=f'{theirs}.bn{i + 1}'
    )
  )


_OURS, _THEIRS = 'stage_#/block_#', 'blocks.#.#'
_SE = 'squeeze_excite'
_TIMM = (
  *conv_bn('stem', conv='conv_stem', norm='bn1'),
  # The blocks of the first stage are not widened.
  *_block(
    'stage_0/block_#',
    'blocks.0.#',
    {'depthwise': 'conv_dw', 'project': 'conv_pw'},
  ),
  *_block(
    _OURS,
    _THEIRS,
    {'expand': 'conv_pw', 'depthwise': 'conv_dw', 'project': 'conv_pwl'},
  ),
  Row(f'{_OURS}/{_SE}/reduce', f'{_THEIRS}.se.conv_reduce', POINTWISE),
  Row(f'{_OURS}/{_SE}/expand', f'{_THEIRS}.se.conv_expand', POINTWISE),
  *conv_bn('widen', conv='conv_head', norm='bn2'),
  Row('head', 'classifier', DENSE),
)

NAMES = {'timm_efficientnet': _TIMM}

# Of the images, in pixels.
_SIZES = {
  'b0': 224,
  'b1': 240,
  'b2': 260,
  'b3': 300,
  'b4': 380,
  'b5': 456,
  'b6': 528,
  'b7': 600,
  'b8': 672,
  'l2': 800,
}
# How it was trained -> variant -> accuracy: with plain augmentation (Inception
# crops), AutoAugment, RandAugment, AdvProp, and as a Noisy Student, which saw
# JFT-300M without its labels.
_CHECKPOINTS = {
  'in1k': {
    **{'b0': 76.542, 'b1': 78.546, 'b2': 79.612},
    **{'b3': 80.878, 'b4': 82.598, 'b5': 83.170},
  },
  'aa_in1k': {
    **{'b0': 76.882, 'b1': 78.840, 'b2': 80.074, 'b3': 81.648},
    **{'b4': 83.040, 'b5': 83.696, 'b6': 84.124, 'b7': 84.424},
  },
  'ra_in1k': {'b5': 83.834, 'b7': 84.926, 'b8': 85.344},
  'ap_in1k': {
    **{'b0': 77.100, 'b1': 79.288, 'b2': 80.300, 'b3': 81.842, 'b4': 83.246},
    **{'b5': 84.258, 'b6': 84.794, 'b7': 85.132, 'b8': 85.358},
  },
  'ns_jft_in1k': {
    **{'b0': 78.680, 'b1': 81.388, 'b2': 82.412, 'b3': 84.054, 'b4': 85.156},
    **{'b5': 86.096, 'b6': 86.476, 'b7': 86.850, 'l2': 88.360},
  },
  'ns_jft_in1k_475': {'l2': 88.246},
}


def entries() -> Iterator[Entry]:
  """Those of Google, and B0 as timm trained it."""
  for recipe, accuracies in _CHECKPOINTS.items():
    mean, std = HALF if recipe == 'ap_in1k' else IMAGENET
    for size, accuracy in accuracies.items():
      side = 475 if recipe.endswith('475') else _SIZES[size]
      yield _entry(
        f'tf_efficientnet_{size}.{recipe}',
        variant=size.upper(),
        # As in the makers' program: 32 pixels are cut away.
        preprocessing=Preprocessing(
          side,
          resize_small=side + 32,
          interpolation='bicubic',
          mean=mean,
          std=std,
        ),
        accuracy=accuracy,
      )
  mean, std = IMAGENET
  yield _entry(
    'efficientnet_b0.ra_in1k',
    variant='B0',
    preprocessing=Preprocessing(
      224, resize_small=256, interpolation='bicubic', mean=mean, std=std
    ),
    accuracy=77.698,
    same_padding=False,
    epsilon=1e-5,
  )


def _entry(
  name: str,
  *,
  variant: str,
  preprocessing: Preprocessing,
  accuracy: float,
  **overrides: bool | float,
) -> Entry:
  return Entry(
    name=f'efficientnet/{name}',
    location=f'hf://timm/{name}',
    model='efficientnet',
    variant=variant,
    overrides=overrides,
    preprocessing=preprocessing,
    labels='imagenet1k',
    accuracy=accuracy,
    source='results of huggingface/pytorch-image-models',
  )
