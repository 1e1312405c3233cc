"""Images in memory: arrays, .npz files, and the digits of scikit-learn."""

import dataclasses
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax import archives
from vit_jax.data import files

NUM_TEST_DIGITS = 360
ARRAYS = ('image', 'label', 'class_names')  # of an .npz file
# So many classes without a name are a label that is damaged.
MAX_UNNAMED = 1_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
  """A source in memory.

  Attributes:
    image: uint8 (n, h, w, c) or (n, h, w).
    labels: int (n,), indices into class_names.
    class_names: (k,).
    title: for warnings.
  """

  image: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  title: str = 'arrays'

  def __post_init__(self):
    if self.image.dtype != np.uint8 or self.image.ndim not in (3, 4):
      raise ValueError(
        f'{self.title}: the images must be uint8 (n, h, w, c) or (n, h, w), '
        f'not {self.image.dtype} {self.image.shape}.'
      )
    if self.labels.shape != self.image.shape[:1]:
      raise ValueError(
        f'{self.title}: {self.image.shape[0]} images need as many labels; '
        f'their shape is {self.labels.shape}.'
      )
    if not np.issubdtype(self.labels.dtype, np.integer):
      raise ValueError(
        f'{self.title}: labels must be integers, not {self.labels.dtype}.'
      )
    bad = (self.labels < 0) | (self.labels >= len(self.class_names))
    if bad.any():
      raise ValueError(
        f'{self.title}: label {self.labels[bad][0]} of example '
        f'{np.flatnonzero(bad)[0]} is not in [0, {len(self.class_names)}), '
        'the range of class_names.'
      )

  def __len__(self) -> int:
    return len(self.image)

  def __getitem__(self, index: int) -> dict[str, Any]:
    image = self.image[index]
    if image.ndim == 2:
      image = image[:, :, None]  # (H, W, 1)
    return {'image': image, 'label': int(self.labels[index])}

  def name(self, index: int) -> str:
    """Identifies an example in a warning."""
    return f'{self.title}[{index}]'


def spread(labels: np.ndarray, seed: int) -> np.ndarray:
  """A fixed random order whose stretches hold the classes in proportion.

  Args:
    labels: int (n,).
    seed: of the order.

  Returns:
    Indices, (n,).
  """
  # The stream of RandomState is frozen, that of numpy's newer generators is
  # not: a test set must not leak into training when numpy is upgraded.
  random = np.random.RandomState(seed)
  shuffled = random.permutation(len(labels))
  by_class = shuffled[np.argsort(labels[shuffled], kind='stable')]
  counts = np.bincount(labels)[labels[by_class]]
  rank = np.arange(len(labels)) - np.searchsorted(
    labels[by_class], labels[by_class]
  )
  # Each class is laid out evenly over [0, 1]; ties are broken by chance.
  place = (rank + 0.5) / counts
  return by_class[np.lexsort((random.random_sample(len(labels)), place))]


def digits(split: str) -> Arrays:
  """Digits as RGB, 0..16 spread to 0..255; 360 of them are the test split."""
  if split not in ('train', 'test'):
    raise ValueError(
      f'digits has no split {split!r}; there are digits:train, digits:test.'
    )
  import sklearn.datasets  # Takes a second, and only the digits need it.

  loaded = sklearn.datasets.load_digits()
  grey = np.round(loaded.images * (255 / 16)).astype(np.uint8)  # (N, H, W)
  image = np.repeat(grey[..., None], 3, axis=-1)  # (N, H, W, 3)
  names = tuple(str(name) for name in loaded.target_names)
  labels = loaded.target.astype(np.int32)
  order = spread(labels, seed=0)
  if split == 'test':
    chosen = np.sort(order[:NUM_TEST_DIGITS])
  else:
    chosen = np.sort(order[NUM_TEST_DIGITS:])
  return Arrays(image[chosen], labels[chosen], names, f'digits:{split}')


def npz(path: str, *, class_names: Sequence[str] | None) -> Arrays:
  """Reads the arrays `image`, `label` and, if there, `class_names`.

  Raises:
    ValueError: if the file is damaged, or holds something else.
  """
  whole = files.existing(path)
  found = archives.read_npz(whole, names=ARRAYS)
  if not {'image', 'label'} <= found.keys():
    with zipfile.ZipFile(whole) as archive:
      there = [name.removesuffix('.npy') for name in archive.namelist()]
    raise ValueError(
      f"{path} needs the arrays 'image' and 'label', but holds {there}."
    )
  image, labels = found['image'], found['label']
  if 'class_names' in found:
    class_names = tuple(
      str(name) for name in np.atleast_1d(found['class_names'])
    )
  if class_names is None:
    largest = int(labels.max()) if labels.size else 0
    if largest >= MAX_UNNAMED:
      raise ValueError(
        f'{path} has a label {largest}, which makes as many classes: if that '
        "is meant, name them in an array 'class_names'."
      )
    class_names = tuple(str(label) for label in range(largest + 1))
  return Arrays(image, labels, tuple(class_names), path)
