"""Finding a published checkpoint by name, and what its classes are called.

    entry = find('augreg/B_16')
    model = models.build(entry.model, entry.variant, **entry.overrides)

Where a family has a grammar of file names, as AugReg has with its 50,000 files,
any of its names is understood; the tables in `families` hold those that its
authors recommend.
"""

import difflib
import fnmatch
import functools
import pathlib
import re

from vit_jax.pretrained import augreg
from vit_jax.pretrained.entry import Entry
from vit_jax.pretrained.families import entries

PUBLISHED = 'https://storage.googleapis.com/vit_models/'
# Classes whose names are here, in labels/.
NAMED = ('cifar10', 'cifar100', 'imagenet1k', 'imagenet21k')


def look_up(name: str) -> Entry | None:
  """The entry of a name, see `find`; None if there is none."""
  for known, entry in entries().items():
    if f'/{name}'.removesuffix('.npz').endswith(f'/{known}'):
      return entry
  try:
    return augreg.entry(augreg.Name.parse(name))
  except ValueError:
    return None


def find(name: str) -> Entry:
  """The entry of a name, or of a path or address that ends in it.

  Args:
    name: such as 'augreg/B_16' or 'copies/sam/ViT-B_16.npz'; or any file name
      of AugReg.

  Raises:
    ValueError: if there is none; it names the nearest.
  """
  if (entry := look_up(name)) is not None:
    return entry
  near = difflib.get_close_matches(name, entries(), n=3, cutoff=0.4)
  hint = f'Did you mean {" or ".join(map(repr, near))}? ' if near else ''
  raise ValueError(
    f'Unknown checkpoint: {name!r}. {hint}List them with `python -m '
    "vit_jax.tools.zoo --pretrained '*'`; a path or an address is good too."
  )


def search(pattern: str) -> list[Entry]:
  """Entries whose name, from its start or a part of it, is of the pattern.

  Args:
    pattern: as in a shell: 'augreg/*', 'B_16*'.
  """
  return [
    entry
    for name, entry in entries().items()
    if any(
      fnmatch.fnmatchcase(name[start:], pattern)
      for start in (0, *(m.end() for m in re.finditer(r'[/+-]', name)))
    )
  ]


def class_names(labels: str) -> tuple[str, ...]:
  """The classes as data sets name them, in the order of the head.

  Those of ImageNet are the identifiers of WordNet, such as 'n01440764'.

  Args:
    labels: 'cifar10', 'cifar100', 'imagenet1k' or 'imagenet21k'.

  Raises:
    ValueError: if the names of these classes are not here.
  """
  return tuple(_labels(labels))


def words(class_name: str) -> str:
  """What people call a class: 'tench, Tinca tinca' for 'n01440764'.

  Any name that is no identifier of ImageNet is returned as it is. The words are
  the lemmas of WordNet; for classes of ImageNet-21k alone, the first of them.
  """
  for labels in ('imagenet1k', 'imagenet21k'):
    if class_name in _labels(labels):
      return _labels(labels)[class_name]
  return class_name


@functools.cache
def _labels(labels: str) -> dict[str, str]:
  """Words by class name, in the order of the head."""
  if labels not in NAMED:
    raise ValueError(
      f'There are no class names of {labels!r} here; known are '
      f'{", ".join(NAMED)}.'
    )
  path = pathlib.Path(__file__).parent / 'labels' / f'{labels}.txt'
  lines = (line.split('\t') for line in path.read_text().splitlines())
  return {line[0]: line[-1] for line in lines}
