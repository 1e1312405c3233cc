"""Where examples come from: `open(address)` gives a `Source`.

The grammar of an address is LOCATION[:SPLIT][SLICE].

LOCATION:
  digits            scikit-learn's 1,797 handwritten digits, 8x8: no download
  tfds:cifar10      a data set of TFDS, prepared as ArrayRecord; with a config:
                    tfds:imagenet2012_subset/1pct
  /my/images        a folder: class/image.jpg, or train/class/image.jpg beside
                    val/class/image.jpg, or test/class/image.jpg
  /my/packed        what tools/prepare made of one of these
  /my/labels.csv    with the header path,label; paths relative to the file
  /my/data.npz      arrays `image` uint8 (n, h, w[, c]) and `label` (n,), and
                    `class_names` (k,) if you like
SPLIT: train (the default), val or test, for digits and for folders; for TFDS
  those of the data set. CSV and .npz files have none.
SLICE: [:90%], [10%:], [25%:50%], [:500]. TFDS slices its own order. All others
  are first put into a fixed order in which each stretch holds the classes in
  proportion, so that no slice is short of a class; [:90%] and [90%:] are
  disjoint and complete.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from vit_jax.data import arrays, files, packed, prepared
from vit_jax.data.arrays import spread

ADDRESS = r'(.+?)(?::(\w+))?(\[[^\[\]]*\])?'
# The name may end with a version (mnist:3.0.1); a split, with slices as TFDS
# likes them, begins with a letter.
TFDS_ADDRESS = r'tfds:([^:\[\]]+(?::\d[\d.]*)?)(?::([a-zA-Z].*))?'


@runtime_checkable
class Source(Protocol):
  """Examples that can be read at random, from many threads and processes."""

  @property
  def class_names(self) -> tuple[str, ...]:
    """(k,); a label is an index into them."""
    ...

  @property
  def labels(self) -> np.ndarray | None:
    """Integers (n,), where they are known without reading the images."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The `image`, encoded bytes or uint8 (h, w, c), and the `label`.

    That is an int, or multi-hot float32 (k,) if an image may have several.
    """
    ...

  def name(self, index: int) -> str:
    """Identifies an example in a warning."""
    ...


class Pair(NamedTuple):
  """Two sources with the same classes and no example in common."""

  train: Source
  validation: Source


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
  """Some examples of another source.

  Attributes:
    source: the whole.
    indices: of the chosen examples, int (n,).
  """

  source: Source
  indices: np.ndarray

  @property
  def class_names(self) -> tuple[str, ...]:
    """Those of the whole, even if the part lacks a class."""
    return self.source.class_names

  @property
  def labels(self) -> np.ndarray | None:
    """Of the chosen examples, (n,)."""
    labels = self.source.labels
    return None if labels is None else labels[self.indices]

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.source[int(self.indices[index])]

  def name(self, index: int) -> str:
    """The example's name in the whole."""
    return self.source.name(int(self.indices[index]))


def open(
  address: str,
  *,
  class_names: Sequence[str] | None = None,
  data_dir: str | None = None,
) -> Source:
  """Opens a source of labelled images.

  Args:
    address: see the module for its grammar.
    class_names: of another source, whose numbering of the classes this one
      must share (a validation CSV that lacks a class would number them anew).
    data_dir: where TFDS data sets are; None is TFDS's default.

  Raises:
    AbsentError: if there are no such data here.
    ValueError: what is wrong with the address or with the data.
  """
  if address.startswith('tfds:'):
    name, split = _match(TFDS_ADDRESS, address)
    return prepared.open_tfds(
      name, split=split, data_dir=data_dir, class_names=class_names
    )
  location, split, part = _match(ADDRESS, address)
  if location == 'digits':
    source = arrays.digits(split or 'train')
  elif location.endswith(('.csv', '.npz')):
    if split is not None:
      raise ValueError(
        f'{location} has no splits; name another file, or slice: [:90%].'
      )
    read = files.labels_csv if location.endswith('.csv') else arrays.npz
    source = read(location, class_names=class_names)
  elif packed.split_folders(location):
    source = packed.Packed(packed.split_folder(location, split))
  else:
    source = files.image_folder(location, split=split, class_names=class_names)
  if class_names is not None and source.class_names != tuple(class_names):
    raise ValueError(
      f'{address} has the classes {source.class_names}, the training data '
      f'{tuple(class_names)}.'
    )
  return source if part is None else _slice(source, part, address)


def open_pair(
  train: str,
  validation: str | None = None,
  *,
  held_out: float = 0.1,
  seed: int = 0,
  data_dir: str | None = None,
) -> Pair:
  """Opens what to train on and what to judge by.

  Args:
    train: address of the training data. Without a split it stands for all of
      its splits: what is not said in `validation` is taken from its validation
      split, else its test split, if there is one. With a split (or a slice),
      or where there is a single one, a part is held out of the training data.
    validation: address of the validation data.
    held_out: the part of the examples to keep away from training, where there
      are no other data to judge by; each class gives in proportion.
    seed: of the choice of that part.
    data_dir: where TFDS data sets are.

  Raises:
    ValueError: what is wrong with the addresses or with the data.
  """
  source = open(train, data_dir=data_dir)
  if validation is None:
    names = splits(train, data_dir=data_dir)
    usual = [x for x in ('validation', 'val', 'test') if x in names]
    validation = f'{train}:{usual[0]}' if usual else None
  if validation is not None:
    other = open(validation, class_names=source.class_names, data_dir=data_dir)
    return Pair(source, other)
  count = round(held_out * len(source))
  if not 0 < count < len(source):
    raise ValueError(
      f'{held_out=} of {len(source)} examples keeps {count} for validation; '
      'both parts need at least one.'
    )
  order = _spread(source, seed)
  return Pair(
    Subset(source, np.sort(order[count:])),
    Subset(source, np.sort(order[:count])),
  )


def unlabelled(
  inputs: Sequence[str], *, class_names: Sequence[str]
) -> list[Source]:
  """Opens images that are to be classified; their labels mean nothing.

  Args:
    inputs: image files, folders with images anywhere below them, or addresses
      as in `open`.
    class_names: of the model.

  Raises:
    ValueError: if there is no such file, or no image in a folder.
  """
  sources = []
  for name in inputs:
    path = pathlib.Path(name).expanduser()
    if path.is_dir():
      paths = files.images_below(path)
    elif path.is_file() and path.suffix not in ('.csv', '.npz'):
      paths = [name]
    else:
      sources.append(open(name, class_names=class_names))
      continue
    labels = np.zeros(len(paths), np.int32)
    sources.append(files.Files(tuple(paths), labels, tuple(class_names)))
  return sources


def _match(pattern: str, address: str) -> tuple[Any, ...]:
  match = re.fullmatch(pattern, address)
  if match is None:
    raise ValueError(
      f'Malformed address {address!r}; write LOCATION[:SPLIT][SLICE], e.g. '
      '/my/images:train[:90%], digits:test, tfds:cifar10:train[:98%].'
    )
  return match.groups()


def splits(address: str, *, data_dir: str | None = None) -> tuple[str, ...]:
  """Names the splits that an address stands for; none if it is a single one.

  Args:
    address: as in `open`.
    data_dir: where TFDS data sets are.
  """
  if address.startswith('tfds:'):
    location, split = _match(TFDS_ADDRESS, address)
    return () if split else prepared.tfds_splits(location, data_dir)
  location, split, part = _match(ADDRESS, address)
  if split or part or location.endswith(('.csv', '.npz')):
    return ()
  if location == 'digits':
    return ('train', 'test')
  folders = packed.split_folders(location)
  return tuple(folders or files.split_folders(files.existing(location)))


def _slice(source: Source, part: str, address: str) -> Subset:
  match = re.fullmatch(r'\[(\d+%?)?:(\d+%?)?\]', part)
  if match is None:
    raise ValueError(
      f'Malformed slice {part!r} in {address!r}; write [:90%], [10%:] or '
      '[:500].'
    )
  first, last = match.groups()
  first = _bound(first or '0', len(source), address)
  last = _bound(last or '100%', len(source), address)
  if first >= last:
    raise ValueError(f'{address!r} selects none of {len(source)} images.')
  return Subset(source, np.sort(_spread(source, seed=0)[first:last]))


def _bound(text: str, length: int, address: str) -> int:
  """'10%' or '500' in examples."""
  if text.endswith('%'):
    bound = round(int(text[:-1]) / 100 * length)
  else:
    bound = int(text)
  if bound > length:
    raise ValueError(f'{address!r}: {text} is more than all {length} images.')
  return bound


def _spread(source: Source, seed: int) -> np.ndarray:
  labels = source.labels
  if labels is None:
    labels = np.zeros(len(source), np.int32)
  return spread(labels, seed)
