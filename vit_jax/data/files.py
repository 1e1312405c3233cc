"""Images in files: folders of classes, and CSV lists of paths and labels."""

import collections
import csv
import dataclasses
import difflib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')
SPLITS = {
  'train': 'train',
  'training': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'test': 'test',
}


class AbsentError(ValueError):
  """There are no such data on this machine, though there might be."""


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
  """A source of image files, read when asked for.

  Attributes:
    paths: of the files, (n,).
    labels: indices into class_names, int32 (n,).
    class_names: (k,).
  """

  paths: tuple[str, ...]
  labels: np.ndarray
  class_names: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> dict[str, Any]:
    image = pathlib.Path(self.paths[index]).read_bytes()
    return {'image': image, 'label': int(self.labels[index])}

  def name(self, index: int) -> str:
    """Identifies an example in a warning: its path."""
    return self.paths[index]


def image_folder(
  root: str,
  *,
  split: str | None = None,
  class_names: Sequence[str] | None = None,
) -> Files:
  """Reads the layout root/class/**/image or root/split/class/**/image.

  Args:
    root: the directory.
    split: 'train', 'val' (also spelled 'valid', 'validation') or 'test'. None
      is the training split where there are split folders, else everything.
    class_names: of another source, whose numbering of the classes this one
      must share. By default the sorted names of the class folders, those of
      the training split if there is one.

  Raises:
    ValueError: no such directory or split, no images, a single class, or a
      class that `class_names` lacks.
  """
  directory = existing(root)
  if not directory.is_dir():
    raise ValueError(f'{root} is neither a directory nor a .csv or .npz file.')
  folders = split_folders(directory)
  if split is None and not folders:
    images = _images_by_class(directory)
  else:
    wanted = 'train' if split is None else split
    if wanted not in SPLITS or SPLITS[wanted] not in folders:
      there = ', '.join(f'{root}:{name}' for name in folders) or 'no splits'
      raise ValueError(f'{root} has no split {wanted!r}; there are {there}.')
    images = _images_by_class(folders[SPLITS[wanted]])
    if class_names is None and 'train' in folders:
      class_names = tuple(_images_by_class(folders['train']))
  paths = [path for found in images.values() for path in found]
  texts = [name for name, found in images.items() for _ in found]
  if class_names is None:
    class_names = tuple(images)
  return _files(root, paths, texts, class_names)


def split_folders(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the folders train, val and test that stand above class folders."""
  children = _visible_folders(directory)
  found = {}
  for child in children:
    # A class may be called 'train' too: then it holds images, not folders.
    if child.name.lower() in SPLITS and _visible_folders(child):
      found.setdefault(SPLITS[child.name.lower()], child)
  return found if 'train' in found or len(found) == len(children) else {}


def labels_csv(path: str, *, class_names: Sequence[str] | None = None) -> Files:
  """Reads a CSV file with the columns `path` and `label`; others are ignored.

  Paths are relative to the CSV file. The distinct labels are the classes, in
  alphabetical order, or by value if all are integers.

  Args:
    path: of the CSV file.
    class_names: of another source, whose numbering of the classes this one
      must share.

  Raises:
    ValueError: no such file, column or image, an empty or unknown label, or a
      single class.
  """
  with existing(path).open(newline='', encoding='utf-8-sig') as file:
    reader = csv.DictReader(file)
    try:
      columns = [name.strip() for name in reader.fieldnames or ()]
      reader.fieldnames = columns
      table = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
      raise ValueError(f'{path} is no CSV file in UTF-8: {error}') from error
  if not {'path', 'label'} <= set(columns):
    raise ValueError(
      f"{path} needs the header 'path,label', but begins with {columns}."
    )
  rows = [(row['path'], row['label']) for row in table]
  base = pathlib.Path(path).parent
  paths, texts = [], []
  for number, (name, label) in enumerate(rows, start=1):
    if not (name and name.strip() and label and label.strip()):
      raise ValueError(f'{path}: row {number} lacks a path or a label.')
    paths.append(str(base / name.strip()))
    texts.append(label.strip())
  missing = [name for name in paths if not os.path.isfile(name)]
  if missing:
    raise ValueError(
      f'{path}: {len(missing)} of {len(paths)} rows point to no file, e.g. '
      f'{", ".join(missing[:3])}; paths are relative to {base.absolute()}.'
    )
  if class_names is None:
    class_names = _sorted_names(texts)
  return _files(path, paths, texts, class_names)


def existing(path: str) -> pathlib.Path:
  """Returns the path; AbsentError with the nearest names if there is none."""
  found = pathlib.Path(path).expanduser()
  if found.exists():
    return found
  parent, missing = found.parent, found.name
  while not parent.is_dir() and parent != parent.parent:
    parent, missing = parent.parent, parent.name
  near = difflib.get_close_matches(missing, os.listdir(parent), cutoff=0.5)
  hint = f'; {parent} holds {", ".join(near)}' if near else ''
  raise AbsentError(
    f'{path} does not exist{hint}. (A TFDS data set is written tfds:NAME.)'
  )


def images_below(folder: pathlib.Path) -> list[str]:
  """Lists the images in a folder and in all folders below it, sorted.

  Raises:
    ValueError: if there is none.
  """
  paths = sorted(filter(_is_image, _files_below(folder)))
  if not paths:
    raise ValueError(f'{folder} holds no {", ".join(SUFFIXES)} files.')
  return paths


def _files(
  title: str, paths: list[str], texts: list[str], class_names: Sequence[str]
) -> Files:
  """Numbers the classes, after checking them."""
  if len(class_names) < 2:
    raise ValueError(
      f'{title} has the single class {class_names[0]!r}; put the images of '
      'each class into a folder (or under a label) of its own.'
      if class_names
      else f'{title} holds no images.'
    )
  unknown = sorted(set(texts) - set(class_names))
  if unknown:
    raise ValueError(
      f'{title} has classes that the training data lacks: '
      f'{", ".join(unknown[:5])} ({len(unknown)} in all).'
    )
  numbers = {name: number for number, name in enumerate(class_names)}
  labels = np.array([numbers[text] for text in texts], np.int32)  # (N,)
  return Files(tuple(paths), labels, tuple(class_names))


def _sorted_names(texts: Iterable[str]) -> tuple[str, ...]:
  distinct = set(texts)
  if all(text.isdecimal() for text in distinct):
    return tuple(sorted(distinct, key=int))
  return tuple(sorted(distinct))


def _visible_folders(directory: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    child
    for child in directory.iterdir()
    if child.is_dir() and not child.name.startswith('.')
  )


def _images_by_class(directory: pathlib.Path) -> dict[str, list[str]]:
  """Sorted paths of the images below each class folder that has any."""
  found = {}
  suffixes = collections.Counter()
  for folder in _visible_folders(directory):
    names = list(_files_below(folder))
    suffixes.update(os.path.splitext(name)[1].lower() for name in names)
    if paths := sorted(filter(_is_image, names)):
      found[folder.name] = paths
  if not found:
    loose = sum(
      child.suffix.lower() in SUFFIXES for child in directory.iterdir()
    )
    seen = ', '.join(f'{n} {suffix}' for suffix, n in suffixes.most_common(5))
    raise ValueError(
      f'{directory} has no class folders with {", ".join(SUFFIXES)} files; '
      f'found in folders: {seen or "nothing"}; loose images: {loose}. Put the '
      'images of each class into a folder named after it.'
    )
  return found


def _is_image(path: str) -> bool:
  return path.lower().endswith(SUFFIXES)


def _files_below(folder: pathlib.Path) -> Iterator[str]:
  """Yields the paths of all files that are not hidden."""
  # Subsets of large data sets are often folders of links. A link may lead back
  # to where it stands, so a folder counts once.
  seen = set()
  for parent, folders, names in os.walk(folder, followlinks=True):
    real = os.path.realpath(parent)
    folders[:] = sorted(x for x in folders if not x.startswith('.'))
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    for name in names:
      if not name.startswith('.'):
        yield os.path.join(parent, name)
