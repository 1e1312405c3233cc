"""AugReg's grammar of file names, its index, and its choice of the best.

How to train your ViT? Data, Augmentation, and Regularization in Vision
Transformers, arXiv:2106.10270: more than 50,000 files, told apart by names.
"""

import csv
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from vit_jax.pretrained.entry import Entry, Preprocessing


class Name(NamedTuple):
  """What a file name says.

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
  def parse(cls, name: str) -> 'Name':
    """Reads a file name, with or without directories and `.npz`.

    Raises:
      ValueError: if the name is not of the grammar.
    """
    base = name.rsplit('/', 1)[-1].removesuffix('.npz')
    match = _GRAMMAR.fullmatch(base)
    if match is None or match['size'] not in VARIANTS:
      raise ValueError(
        f'{base!r} is not a file name of AugReg, such as '
        "'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0' with, if "
        "fine-tuned, '--imagenet2012-steps_20k-lr_0.03-res_384' behind it."
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


_GRAMMAR = re.compile(
  r'(?P<size>\w+?)-(?P<dataset>i1k|i21k|i21k_30)-(?P<epochs>\d+)ep'
  r'-lr_(?P<lr>[\d.]+)-aug_(?P<aug>none|light[01]|medium[12]|strong[12])'
  r'-wd_(?P<wd>[\d.]+)-do_(?P<do>[\d.]+)-sd_(?P<sd>[\d.]+)'
  r'(?:--(?P<adapt_dataset>cifar100|imagenet2012|kitti|oxford_iiit_pet|'
  r'resisc45)-steps_(?P<adapt_steps>\d+)k-lr_(?P<adapt_lr>[\d.]+)'
  r'-res_(?P<adapt_resolution>\d+))?'
)

VARIANTS = {
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


def _recommended(size: str, aug: str, wd: str, do_and_sd: str = '0.0') -> Name:
  return Name(size, 'i21k', '300', '0.001', aug, wd, do_and_sd, do_and_sd)


# The best of each size by upstream validation accuracy (section 4.5).
RECOMMENDED = {
  'Ti_16': _recommended('Ti_16', 'none', '0.03'),
  'S_32': _recommended('S_32', 'none', '0.1'),
  'S_16': _recommended('S_16', 'light1', '0.03'),
  'B_32': _recommended('B_32', 'light1', '0.1'),
  'B_16': _recommended('B_16', 'medium1', '0.1'),
  'B_8': _recommended('B_8', 'medium2', '0.1'),
  'L_16': _recommended('L_16', 'strong1', '0.1'),
  'R_Ti_16': _recommended('R_Ti_16', 'none', '0.03'),
  'R26_S_32': _recommended('R26_S_32', 'light1', '0.1'),
  'R50_L_32': _recommended('R50_L_32', 'medium1', '0.1', '0.1'),
}

# Fine-tuned at 384 pixels on ImageNet-1k: learning rate; accuracy (table 3).
FINE_TUNED = {
  'Ti_16': ('0.03', 78.22),
  'S_32': ('0.01', 79.58),
  'S_16': ('0.03', 83.73),
  'B_32': ('0.01', 83.59),
  'B_16': ('0.03', 85.49),
  'L_16': ('0.01', 85.59),
  'R_Ti_16': ('0.03', 75.40),
  'R26_S_32': ('0.01', 83.85),
  'R50_L_32': ('0.01', 85.99),
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
      f'{", ".join(sorted(missing))}.'
    )
  return rows


def best(
  rows: Iterable[Mapping[str, str]], *, size: str, dataset: str = 'i21k'
) -> Name:
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
      f'The index has no model {size!r} pre-trained on {dataset!r}: sizes are '
      f'{", ".join(VARIANTS)}; data sets i1k, i21k and i21k_30.'
    )
  chosen = max(found, key=lambda row: float(row['final_val']))
  return Name.parse(chosen['filename'])


def entry(
  file: Name,
  *,
  name: str | None = None,
  accuracy: float | None = None,
  source: str = 'AugReg, arXiv:2106.10270',
) -> Entry:
  """The entry of a file; it bears the file's name unless another is given."""
  upstream = 'imagenet1k' if file.dataset == 'i1k' else 'imagenet21k'
  labels = file.adapt_dataset or upstream
  return Entry(
    name=name or str(file),
    location=f'gs://vit_models/augreg/{file}.npz',
    model='vit',
    variant=VARIANTS[file.size],
    overrides={},
    preprocessing=Preprocessing(int(file.adapt_resolution or 224)),
    labels='imagenet1k' if labels == 'imagenet2012' else labels,
    accuracy=accuracy,
    source=source,
    loss='softmax' if file.adapt_dataset else 'sigmoid',
  )


def entries() -> Iterator[Entry]:
  """The recommended files, fine-tuned and not."""
  for size, (lr, accuracy) in FINE_TUNED.items():
    upstream = RECOMMENDED[size]
    tuned = upstream._replace(
      adapt_dataset='imagenet2012',
      adapt_steps='20',
      adapt_lr=lr,
      adapt_resolution='384',
    )
    yield entry(
      tuned,
      name=f'augreg/{size}-imagenet2012-384',
      accuracy=accuracy,
      source='AugReg, arXiv:2106.10270, table 3, i21k300',
    )
  for size, upstream in RECOMMENDED.items():
    yield entry(upstream, name=f'augreg/{size}')
