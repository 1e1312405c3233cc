"""How well AugReg's fine-tuned models do, and how fast: to choose among them.

What the paper prints is here (arXiv:2106.10270, table 3). The index, see
`augreg.read_index`, has every fine-tuning of every model, on five tasks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vit_jax.pretrained import augreg


class Result(NamedTuple):
  """The best fine-tuning of one size after one pre-training.

  Attributes:
    size: such as 'B_16'.
    dataset: of pre-training: 'i1k', 'i21k_30' (epochs) or 'i21k'.
    resolution: of fine-tuning and of inference, side in pixels.
    accuracy: top-1 on the test split of the task, in per cent.
    images_per_second: of inference by timm on one V100, as published.
    upstream: the pre-trained file; None where only the index knows it.
  """

  size: str
  dataset: str
  resolution: int
  accuracy: float
  images_per_second: float
  upstream: augreg.Name | None


# On ImageNet-1k, after pre-training on i1k, i21k_30 and i21k.
_DATASETS = ('i1k', 'i21k_30', 'i21k')
_AT_224 = {
  'L_16': (74.01, 82.05, 83.98),
  'B_16': (78.73, 80.42, 83.96),
  'S_16': (77.51, 76.04, 80.46),
  'R50_L_32': (74.17, 80.26, 82.74),
  'R26_S_32': (78.20, 77.42, 80.81),
  'Ti_16': (69.56, 68.89, 73.75),
  'B_32': (71.38, 72.24, 79.13),
  'S_32': (69.19, 68.49, 73.47),
  'R_Ti_16': (67.30, 65.65, 69.69),
}
_AT_384 = {
  'L_16': (77.21, 84.48, 85.59),
  'B_16': (81.63, 83.46, 85.49),
  'S_16': (80.70, 80.22, 83.73),
  'R50_L_32': (76.71, 83.19, 85.99),
  'R26_S_32': (81.55, 81.11, 83.85),
  'Ti_16': (74.64, 74.20, 78.22),
  'B_32': (76.60, 78.65, 83.59),
  'S_32': (75.65, 75.74, 79.58),
  'R_Ti_16': (73.48, 71.97, 75.40),
}
# Images a second at 224 pixels (table 3) and at 384 (README of
# google-research/vision_transformer).
_SPEED = {
  'L_16': (228, 50),
  'B_16': (659, 138),
  'S_16': (1508, 300),
  'R50_L_32': (1047, 327),
  'R26_S_32': (1814, 560),
  'Ti_16': (3097, 610),
  'B_32': (3597, 955),
  'S_32': (8342, 2154),
  'R_Ti_16': (9371, 2426),
}


def published() -> list[Result]:
  """Table 3 of the paper, on ImageNet-1k; B/8 is not in it."""
  return [
    Result(
      size,
      dataset,
      resolution,
      accuracy,
      _SPEED[size][column],
      augreg.RECOMMENDED[size] if dataset == 'i21k' else None,
    )
    for column, (resolution, table) in enumerate(
      ((224, _AT_224), (384, _AT_384))
    )
    for size, row in table.items()
    for dataset, accuracy in zip(_DATASETS, row, strict=True)
  ]


def from_index(
  rows: Sequence[Mapping[str, str]], *, task: str = 'imagenet2012'
) -> list[Result]:
  """The same of any task, by the paper's way to choose (section 4.5).

  Of each size and pre-training, the file with the best upstream validation
  accuracy; of its fine-tunings at each resolution, that with the best
  validation accuracy on the task.

  Args:
    rows: of `augreg.read_index`.
    task: cifar100, imagenet2012, kitti, oxford_iiit_pet or resisc45.

  Raises:
    ValueError: if the index has no such task.
  """
  found = []
  kept = [row for row in rows if row['adapt_ds'] == task]
  if not kept:
    known = ', '.join(sorted({row['adapt_ds'] for row in rows}))
    raise ValueError(f'The index has no task {task!r}; there are {known}.')
  pairs = {(row['filename'].split('-')[0], row['ds']): None for row in kept}
  for size, dataset in pairs:
    upstream = augreg.best(kept, size=size, dataset=dataset)
    tuned: dict[str, Mapping[str, str]] = {}
    for row in kept:
      if row['filename'].removesuffix('.npz') != str(upstream):
        continue
      side = row['adapt_resolution']
      best = tuned.setdefault(side, row)
      if float(row['adapt_final_val']) > float(best['adapt_final_val']):
        tuned[side] = row
    found += [
      Result(
        size,
        dataset,
        int(side),
        100 * float(row['adapt_final_test']),
        float(row['infer_samples_per_sec']),
        upstream,
      )
      for side, row in tuned.items()
    ]
  return found


def frontier(results: Iterable[Result]) -> list[Result]:
  """Those than which none is both faster and more accurate, fastest first."""
  kept: list[Result] = []
  for result in sorted(
    results, key=lambda x: (x.images_per_second, x.accuracy), reverse=True
  ):
    if not kept or result.accuracy > kept[-1].accuracy:
      kept.append(result)
  return kept


def choose(
  results: Iterable[Result], *, images_per_second: float = 0.0
) -> Result:
  """The most accurate of those that are fast enough.

  Args:
    results: to choose from.
    images_per_second: what is needed, on the scale of the results.

  Raises:
    ValueError: if none is.
  """
  if not (ordered := frontier(results)):
    raise ValueError('There are no results to choose from.')
  fast = [x for x in ordered if x.images_per_second >= images_per_second]
  if not fast:
    raise ValueError(
      f'None makes {images_per_second:g} images a second; the fastest, '
      f'{ordered[0].size} at {ordered[0].resolution} pixels, makes '
      f'{ordered[0].images_per_second:g}.'
    )
  return fast[-1]
