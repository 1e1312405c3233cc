"""What is known of a published checkpoint."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

NUM_CLASSES = {
  'cifar10': 10,
  'cifar100': 100,
  'imagenet1k': 1000,
  'imagenet21k': 21843,
  'imagenet22k': 21841,  # as Microsoft counts the same images
  'kitti': 4,
  'oxford_iiit_pet': 37,
  'resisc45': 45,
}


class Preprocessing(NamedTuple):
  """How an image was prepared when the model was judged.

  Attributes:
    size: of the image that enters the model, a side in pixels.
    resize_small: the shorter side before the centre is cut out; None if the
      whole image was resized to a square, whatever its aspect ratio.
    interpolation: of the resizing.
    mean, std: per channel, of values from 0 to 1.
  """

  size: int
  resize_small: int | None = None
  interpolation: str = 'bilinear'
  mean: tuple[float, ...] = HALF[0]
  std: tuple[float, ...] = HALF[1]

  def at(self, size: int) -> 'Preprocessing':
    """The same for another side of the image; as much is cut away."""
    if self.resize_small is None:
      return self._replace(size=size)
    resize_small = round(self.resize_small * size / self.size)
    return self._replace(size=size, resize_small=resize_small)

  def ops(self) -> list[dict[str, Any]]:
    """For `config.preprocess`, see vit_jax/data/transforms.py."""
    method = dict(method=self.interpolation)
    if self.resize_small is None:
      return [dict(name='resize', size=self.size, **method)]
    return [
      dict(name='resize_small', size=self.resize_small, **method),
      dict(name='central_crop', size=self.size),
    ]


class Entry(NamedTuple):
  """A published checkpoint.

  Attributes:
    name: by which it is found here.
    location: address of its file, for `fetch`.
    model, variant: for `models.build`.
    overrides: fields of the model besides.
    preprocessing: of an image.
    labels: a key of NUM_CLASSES.
    accuracy: published, in per cent.
    source: of the accuracy, or who published the file.
    zeroed_head: whether the head was set to zeros before publication.
    loss: what the head was trained with, 'softmax' or 'sigmoid'.
  """

  name: str
  location: str
  model: str
  variant: str
  overrides: Mapping[str, Any]
  preprocessing: Preprocessing
  labels: str
  accuracy: float | None
  source: str
  zeroed_head: bool = False
  loss: str = 'softmax'


def google_entry(
  name: str,
  *,
  bucket: str = 'vit_models',
  file: str | None = None,
  model: str = 'vit',
  variant: str | None = None,
  **facts: Any,
) -> Entry:
  """An entry whose name, unless `file` is given, is its path in the bucket."""
  return Entry(
    name=name,
    location=f'gs://{bucket}/{file or name}.npz',
    model=model,
    variant=variant or _variant(name),
    **facts,
  )


def _variant(file: str) -> str:
  """'R50+ViT-B_16-224' -> 'R50+B/16'."""
  name = file.rsplit('/', 1)[-1].removesuffix('-224')
  return re.sub(r'(ViT|Mixer)-', '', name).replace('_', '/')
