"""The published checkpoints of the models that are here: where, what, how well.

    entry = find('augreg/B_16')
    model = models.build(entry.model, entry.variant, **entry.overrides)

Where a family has a grammar of file names, as AugReg has with its 50,000 files,
any of its names is understood; the table holds those that its authors
recommend. Accuracies are top-1 on the validation set of ImageNet-1k, in per
cent, as `source` states them; None where none was found.
"""

import difflib
import fnmatch
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vit_jax.pretrained import augreg

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


def look_up(name: str) -> Entry | None:
  """The entry of a name, or of a file name of AugReg; None if there is none."""
  if name in entries():
    return entries()[name]
  try:
    return _augreg(augreg.Name.parse(name))
  except ValueError:
    return None


def find(name: str) -> Entry:
  """The entry of a name, or of a file name of AugReg.

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
      f'There are no class names of {labels!r} here; known are '
      f'{", ".join(known)}.'
    )
  lines = path.read_text().splitlines()
  return tuple(line.split('\t')[-1] for line in lines)


def _augreg(
  file: augreg.Name,
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
    variant=augreg.VARIANTS[file.size],
    overrides={},
    preprocessing=Preprocessing(int(file.adapt_resolution or 224)),
    labels='imagenet1k' if labels == 'imagenet2012' else labels,
    accuracy=accuracy,
    source=source,
  )


def _augregs() -> Iterator[Entry]:
  for size, (lr, accuracy) in augreg.FINE_TUNED.items():
    upstream = augreg.RECOMMENDED[size]
    tuned = upstream._replace(
      adapt_dataset='imagenet2012',
      adapt_steps='20',
      adapt_lr=lr,
      adapt_resolution='384',
    )
    yield _augreg(
      tuned,
      name=f'augreg/{size}-imagenet2012-384',
      accuracy=accuracy,
      source='AugReg, arXiv:2106.10270, table 3, i21k300',
    )
  for size, upstream in augreg.RECOMMENDED.items():
    yield _augreg(upstream, name=f'augreg/{size}')


_VIT = 'ViT, arXiv:2010.11929'
_SAM = 'SAM, arXiv:2106.01548'
_GSAM = 'GSAM, arXiv:2203.08065'
_MIXER = 'MLP-Mixer, arXiv:2105.01601'
_README = 'README of google-research/vision_transformer'

# File -> side in pixels, accuracy.
_VIT_21K_1K = {
  'R50+ViT-B_16': (384, None),
  'ViT-B_8': (384, None),
  'ViT-B_16': (384, None),
  'ViT-B_16-224': (224, 81.2),
  'ViT-B_32': (384, None),
  'ViT-L_16': (384, None),
  'ViT-L_16-224': (224, 82.7),
  'ViT-L_32': (384, None),
}
# File -> width of the layer before the head.
_VIT_21K = {
  'R26+ViT-B_32': 768,
  'R50+ViT-B_16': 768,
  'R50+ViT-L_32': 1024,
  'ViT-B_8': 768,
  'ViT-B_16': 768,
  'ViT-B_32': 768,
  'ViT-L_16': 1024,
  'ViT-L_32': 1024,
  'ViT-H_14': 1280,
}
# Directory and file -> pooling, accuracy, paper.
_VIT_1K = {
  'sam/ViT-S_16': ('token', None, _SAM),
  'sam/ViT-B_16': ('token', 79.9, _SAM),
  'sam/ViT-B_32': ('token', None, _SAM),
  'sam/ViT-L_16': ('token', None, _SAM),
  'sam/ViT-L_32': ('token', None, _SAM),
  'gsam/ViT-S_16': ('gap', None, _GSAM),
  'gsam/ViT-S_32': ('gap', None, _GSAM),
  'gsam/ViT-B_16': ('gap', None, _GSAM),
  'gsam/ViT-B_32': ('gap', None, _GSAM),
}
# Directory and file -> accuracy, paper.
_MIXERS = {
  'imagenet1k/Mixer-B_16': (76.44, _MIXER),
  'imagenet1k/Mixer-L_16': (71.76, _MIXER),
  'imagenet21k/Mixer-B_16': (None, _MIXER),
  'imagenet21k/Mixer-L_16': (None, _MIXER),
  'sam/Mixer-B_16': (77.4, _SAM),
  'sam/Mixer-B_32': (None, _SAM),
  'gsam/Mixer-B_16': (None, _GSAM),
  'gsam/Mixer-B_32': (None, _GSAM),
  'gsam/Mixer-S_8': (None, _GSAM),
  'gsam/Mixer-S_16': (None, _GSAM),
  'gsam/Mixer-S_32': (None, _GSAM),
}
# Name at huggingface.co/timm -> variant, accuracy.
_DEITS = {
  'deit_tiny_patch16_224.fb_in1k': ('Ti/16', 72.2),
  'deit_small_patch16_224.fb_in1k': ('S/16', 79.9),
  'deit_base_patch16_224.fb_in1k': ('B/16', 81.8),
  'deit_base_patch16_384.fb_in1k': ('B/16', 82.9),
  'deit3_small_patch16_224.fb_in1k': ('S/16', 81.4),
  'deit3_small_patch16_384.fb_in1k': ('S/16', 83.4),
  'deit3_medium_patch16_224.fb_in1k': ('M/16', 83.0),
  'deit3_base_patch16_224.fb_in1k': ('B/16', 83.8),
  'deit3_base_patch16_384.fb_in1k': ('B/16', 85.0),
  'deit3_large_patch16_224.fb_in1k': ('L/16', 84.9),
  'deit3_large_patch16_384.fb_in1k': ('L/16', 85.8),
  'deit3_huge_patch14_224.fb_in1k': ('H/14', 85.2),
  'deit3_small_patch16_224.fb_in22k_ft_in1k': ('S/16', 83.1),
  'deit3_small_patch16_384.fb_in22k_ft_in1k': ('S/16', 84.8),
  'deit3_medium_patch16_224.fb_in22k_ft_in1k': ('M/16', 84.5),
  'deit3_base_patch16_224.fb_in22k_ft_in1k': ('B/16', 85.7),
  'deit3_base_patch16_384.fb_in22k_ft_in1k': ('B/16', 86.7),
  'deit3_large_patch16_224.fb_in22k_ft_in1k': ('L/16', 87.0),
  'deit3_large_patch16_384.fb_in22k_ft_in1k': ('L/16', 87.7),
  'deit3_huge_patch14_224.fb_in22k_ft_in1k': ('H/14', 87.2),
}


def _variant(file: str) -> str:
  """'R50+ViT-B_16-224' -> 'R50+B/16'."""
  name = file.rsplit('/', 1)[-1].removesuffix('-224')
  return re.sub(r'(ViT|Mixer)-', '', name).replace('_', '/')


def _google(
  name: str, *, bucket: str = 'vit_models', model: str = 'vit', **facts: Any
) -> Entry:
  """An entry whose name is its path in the bucket."""
  return Entry(
    name=name,
    location=f'gs://{bucket}/{name}.npz',
    model=model,
    variant=_variant(name),
    **facts,
  )


def _vits() -> Iterator[Entry]:
  for file, width in _VIT_21K.items():
    yield _google(
      f'imagenet21k/{file}',
      overrides={'representation_size': width},
      preprocessing=Preprocessing(224),
      labels='imagenet21k',
      accuracy=None,
      source=_VIT,
      zeroed_head=True,
    )
  for file, (size, accuracy) in _VIT_21K_1K.items():
    yield _google(
      f'imagenet21k+imagenet2012/{file}',
      overrides={},
      preprocessing=Preprocessing(size),
      labels='imagenet1k',
      accuracy=accuracy,
      source=_README if accuracy else _VIT,
    )
  for name, (pool, accuracy, source) in _VIT_1K.items():
    yield _google(
      name,
      overrides={'pool': pool},
      preprocessing=Preprocessing(224, resize_small=256),
      labels='imagenet1k',
      accuracy=accuracy,
      source=source,
    )


def _mixers() -> Iterator[Entry]:
  for name, (accuracy, source) in _MIXERS.items():
    yield _google(
      name,
      bucket='mixer_models',
      model='mlp_mixer',
      overrides={},
      preprocessing=Preprocessing(224, resize_small=256),
      labels='imagenet21k' if name.startswith('imagenet21k/') else 'imagenet1k',
      accuracy=accuracy,
      source=source,
    )


def _deits() -> Iterator[Entry]:
  for name, (variant, accuracy) in _DEITS.items():
    size = 384 if '_384.' in name else 224
    third = name.startswith('deit3')
    mean, std = IMAGENET
    yield Entry(
      name=f'deit/{name}',
      location=f'hf://timm/{name}',
      model='vit',
      variant=variant,
      overrides={'gelu': 'erf'} | ({'layer_scale': 1e-6} if third else {}),
      # DeiT cuts 224 of 256 pixels out; DeiT III takes the whole shorter side.
      preprocessing=Preprocessing(
        size,
        resize_small=size if third else size * 256 // 224,
        interpolation='bicubic',
        mean=mean,
        std=std,
      ),
      labels='imagenet1k',
      accuracy=accuracy,
      source='DeiT III, arXiv:2204.07118'
      if third
      else 'DeiT, arXiv:2012.12877',
    )
