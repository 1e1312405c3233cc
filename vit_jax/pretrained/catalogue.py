"""The published checkpoints of the models that are here: where, what, how well.

    entry = find('augreg/B_16')
    model = models.build(entry.model, entry.variant, **entry.overrides)

Where a family has a grammar of file names, as AugReg has with its 50,000 files,
any of its names is understood; the table holds those that its authors
recommend. Accuracies are top-1 on the validation set of ImageNet-1k, in per
cent, as `source` states them; None where none was found.
"""

import csv
import difflib
import fnmatch
import functools
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

PUBLISHED = 'https://storage.googleapis.com/vit_models/'

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

NUM_CLASSES = {
  'cifar10': 10,
  'cifar100': 100,
  'imagenet1k': 1000,
  'imagenet21k': 21843,
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


def find(name: str) -> Entry:
  """The entry of a name, or of a file name of AugReg.

  Raises:
    ValueError: if there is none; it names the nearest.
  """
  table = entries()
  if name in table:
    return table[name]
  try:
    return AugReg.parse(name).entry()
  except ValueError as error:
    near = difflib.get_close_matches(name, table, n=3, cutoff=0.4)
    hint = f'did you mean {" or ".join(map(repr, near))}? ' if near else ''
    raise ValueError(
      f'unknown checkpoint {name!r}: {hint}List them with `python -m '
      "vit_jax.tools.zoo --pretrained '*'`; a path or an address is good too."
    ) from error


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


@functools.cache
def entries() -> dict[str, Entry]:
  """All entries by name."""
  listed = (*_vits(), *_augregs(), *_mixers(), *_deits())
  return {entry.name: entry for entry in listed}


@functools.cache
def class_names(labels: str) -> tuple[str, ...]:
  """The names of the classes, in the order of the head.

  Those of ImageNet are the lemmas of WordNet, for 21k the first of each.

  Args:
    labels: 'cifar10', 'cifar100', 'imagenet1k' or 'imagenet21k'.

  Raises:
    ValueError: if the names of these classes are not here.
  """
  path = pathlib.Path(__file__).parent / 'labels' / f'{labels}.txt'
  if not path.is_file():
    known = sorted(path.stem for path in path.parent.glob('*.txt'))
    raise ValueError(
      f'no class names of {labels!r} here: known are {", ".join(known)}'
    )
  lines = path.read_text().splitlines()
  return tuple(line.split('\t')[-1] for line in lines)


class AugReg(NamedTuple):
  """What a file name of 'How to train your ViT?' says (arXiv:2106.10270).

  `B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0`, and for a
  fine-tuned one `--imagenet2012-steps_20k-lr_0.03-res_384` behind it. Numbers
  stay as they are written, so that the name can be built again.

  In the files' names, aug is none, light0, light1, medium1, medium2, strong1 or
  strong2, and the paper's light1 and light2 are the files' light0 and light1.

  Attributes:
    size: such as 'B_16' or 'R26_S_32'.
    dataset: of pre-training: 'i1k', 'i21k' (300 epochs) or 'i21k_30'.
    epochs: of pre-training.
    lr, aug, wd, do, sd: of pre-training: learning rate, augmentation, weight
      decay, dropout, stochastic depth.
    adapt_dataset: of fine-tuning; None if there was none. So the following:
    adapt_steps: 500 steps are written '0k' and 2500 '2k'.
    adapt_lr, adapt_resolution: learning rate and side in pixels.
  """

  size: str
  dataset: str
  epochs: str
  lr: str
  aug: str
  wd: str
  do: str
  sd: str
  adapt_dataset: str | None = None
  adapt_steps: str | None = None
  adapt_lr: str | None = None
  adapt_resolution: str | None = None

  @classmethod
  def parse(cls, name: str) -> 'AugReg':
    """Reads a file name, with or without directories and `.npz`.

    Raises:
      ValueError: if the name is not of the grammar.
    """
    base = name.rsplit('/', 1)[-1].removesuffix('.npz')
    match = _AUGREG.fullmatch(base)
    if match is None or match['size'] not in _AUGREG_VARIANTS:
      raise ValueError(
        f'{base!r} is not a file name of AugReg, such as '
        "'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0' with, if "
        "fine-tuned, '--imagenet2012-steps_20k-lr_0.03-res_384' behind it"
      )
    return cls(**match.groupdict())

  def __str__(self) -> str:
    """The file name without `.npz`; undoes `parse`."""
    name = (
      f'{self.size}-{self.dataset}-{self.epochs}ep-lr_{self.lr}-aug_{self.aug}'
      f'-wd_{self.wd}-do_{self.do}-sd_{self.sd}'
    )
    if self.adapt_dataset is None:
      return name
    return (
      f'{name}--{self.adapt_dataset}-steps_{self.adapt_steps}k'
      f'-lr_{self.adapt_lr}-res_{self.adapt_resolution}'
    )

  def entry(
    self,
    *,
    name: str | None = None,
    accuracy: float | None = None,
    source: str = 'AugReg, arXiv:2106.10270',
  ) -> Entry:
    """The catalogue's entry; its name is the file's, unless one is given."""
    pretrained = 'imagenet1k' if self.dataset == 'i1k' else 'imagenet21k'
    labels = self.adapt_dataset or pretrained
    return Entry(
      name=name or str(self),
      location=f'gs://vit_models/augreg/{self}.npz',
      model='vit',
      variant=_AUGREG_VARIANTS[self.size],
      overrides={},
      preprocessing=Preprocessing(int(self.adapt_resolution or 224)),
      labels='imagenet1k' if labels == 'imagenet2012' else labels,
      accuracy=accuracy,
      source=source,
    )


_AUGREG = re.compile(
  r'(?P<size>\w+?)-(?P<dataset>i1k|i21k|i21k_30)-(?P<epochs>\d+)ep'
  r'-lr_(?P<lr>[\d.]+)-aug_(?P<aug>none|light[01]|medium[12]|strong[12])'
  r'-wd_(?P<wd>[\d.]+)-do_(?P<do>[\d.]+)-sd_(?P<sd>[\d.]+)'
  r'(?:--(?P<adapt_dataset>cifar100|imagenet2012|kitti|oxford_iiit_pet|'
  r'resisc45)-steps_(?P<adapt_steps>\d+)k-lr_(?P<adapt_lr>[\d.]+)'
  r'-res_(?P<adapt_resolution>\d+))?'
)

_AUGREG_VARIANTS = {
  'Ti_16': 'Ti/16',
  'S_32': 'S/32',
  'S_16': 'S/16',
  'B_32': 'B/32',
  'B_16': 'B/16',
  'B_8': 'B/8',
  'L_16': 'L/16',
  'R_Ti_16': 'R+Ti/16',
  'R26_S_32': 'R26+S/32',
  'R50_L_32': 'R50+L/32',
}

# Best of each size by upstream validation accuracy (section 4.5): augmentation,
# weight decay, dropout, stochastic depth; the learning rate of fine-tuning at
# 384 pixels and the accuracy it gave (table 3, i21k300).
_RECOMMENDED = {
  'Ti_16': ('none', '0.03', '0.0', '0.0', '0.03', 78.22),
  'S_32': ('none', '0.1', '0.0', '0.0', '0.01', 79.58),
  'S_16': ('light1', '0.03', '0.0', '0.0', '0.03', 83.73),
  'B_32': ('light1', '0.1', '0.0', '0.0', '0.01', 83.59),
  'B_16': ('medium1', '0.1', '0.0', '0.0', '0.03', 85.49),
  'L_16': ('strong1', '0.1', '0.0', '0.0', '0.01', 85.59),
  'R_Ti_16': ('none', '0.03', '0.0', '0.0', '0.03', 75.40),
  'R26_S_32': ('light1', '0.1', '0.0', '0.0', '0.01', 83.85),
  'R50_L_32': ('medium1', '0.1', '0.1', '0.1', '0.01', 85.99),
}


def read_index(path: str | pathlib.Path) -> list[dict[str, str]]:
  """The rows of AugReg's index.csv, one for each fine-tuned model.

  The file is at gs://vit_models/augreg/index.csv.

  Raises:
    ValueError: if columns that `best` needs are missing.
  """
  with pathlib.Path(path).open(newline='') as file:
    reader = csv.DictReader(file)
    rows = list(reader)
  needed = {'ds', 'filename', 'final_val'}
  if missing := needed - set(reader.fieldnames or ()):
    raise ValueError(
      f'{path} is not the index of AugReg: it has no column '
      f'{", ".join(sorted(missing))}'
    )
  return rows


def best(
  rows: Iterable[Mapping[str, str]], *, size: str, dataset: str = 'i21k'
) -> AugReg:
  """The pre-trained model with the highest upstream validation accuracy.

  That is how section 4.5 chooses without a look at the task. For ImageNet-1k it
  is unfair to other data sets, as ImageNet-21k contains its training images.

  Args:
    rows: of `read_index`.
    size: such as 'B_16'.
    dataset: of pre-training: 'i1k', 'i21k' or 'i21k_30'.

  Raises:
    ValueError: if the index has no such model.
  """
  found = [
    row
    for row in rows
    if row['ds'] == dataset and row['filename'].split('-')[0] == size
  ]
  if not found:
    raise ValueError(
      f'the index has no model {size!r} pre-trained on {dataset!r}: sizes are '
      f'{", ".join(_AUGREG_VARIANTS)}; data sets i1k, i21k and i21k_30'
    )
  chosen = max(found, key=lambda row: float(row['final_val']))
  return AugReg.parse(chosen['filename'])


def _augregs() -> Iterable[Entry]:
  for size, (aug, wd, do, sd, lr, accuracy) in _RECOMMENDED.items():
    up = AugReg(size, 'i21k', '300', '0.001', aug, wd, do, sd)
    yield up.entry(name=f'augreg/{size}')
    tuned = up._replace(
      adapt_dataset='imagenet2012',
      adapt_steps='20',
      adapt_lr=lr,
      adapt_resolution='384',
    )
    yield tuned.entry(
      name=f'augreg/{size}-imagenet2012-384',
      accuracy=accuracy,
      source='AugReg, arXiv:2106.10270, table 3',
    )
  up = AugReg('B_8', 'i21k', '300', '0.001', 'medium2', '0.1', '0.0', '0.0')
  yield up.entry(name='augreg/B_8')


# bucket, file, variant, size in pixels, labels, accuracy, source, zeroed head
_IMAGENET21K = ('R26+ViT-B_32', 'R50+ViT-B_16', 'R50+ViT-L_32', 'ViT-B_8') + (
  'ViT-B_16',
  'ViT-B_32',
  'ViT-L_16',
  'ViT-L_32',
  'ViT-H_14',
)
