"""A contact sheet of what augmentation does to images."""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from jaxtyping import UInt8

from vit_jax import data
from vit_jax.ops import augment, erasing
from vit_jax.ops.distort import distort

# Of an image in pixels, of a tile in inches.
SIZE, TILE = 224, 1.4
COLUMNS = 8
# What each operation is drawn with, and how that is written.
ARGUMENTS = {
  'rotate': (20.0, '20°'),
  'shear_x': (0.3, '0.3'),
  'shear_y': (0.3, '0.3'),
  'shear_x_tf': (0.3, '0.3'),
  'shear_y_tf': (0.3, '0.3'),
  'translate_x': (50.0, '50 px'),
  'translate_y': (50.0, '50 px'),
  'autocontrast': (0.0, ''),
  'equalize': (0.0, ''),
  'invert': (0.0, ''),
  'posterize': (2.0, '2 bits'),
  'solarize': (128.0, '128'),
  'solarize_add': (80.0, '80'),
  'brightness': (1.6, '1.6'),
  'color': (0.2, '0.2'),
  'color_tf': (0.2, '0.2'),
  'contrast': (0.4, '0.4'),
  'contrast_tf': (0.4, '0.4'),
  'sharpness': (5.0, '5'),
  'sharpness_tf': (5.0, '5'),
  'gaussian_blur': (2.0, '2 px'),
  'hue': (0.3, '0.3'),
}
Images = UInt8[np.ndarray, 'b h w 3']


def contact_sheet(images: Images, *, seed: int = 0) -> matplotlib.figure.Figure:
  """Every operation, then every augmentation as it comes out at random.

  Args:
    images: the first shows the operations, all in turn the augmentations.
    seed: of the augmentations.
  """
  names = [*augment.AUGMENTS, *augment.NORMALIZED]
  tiles = [('original', images[0]), *_operations(images[0])]
  rows = -(-len(tiles) // COLUMNS)
  heights = [rows * (TILE + 0.3) + 0.3, len(names) * (TILE + 0.05) + 0.3]
  figure = matplotlib.figure.Figure(
    figsize=(COLUMNS * TILE + 1.2, sum(heights)), layout='constrained'
  )
  figure.get_layout_engine().set(w_pad=0.03, h_pad=0.05, wspace=0, hspace=0)
  top, bottom = figure.subfigures(2, height_ratios=heights)
  top.suptitle('Operations, each at one magnitude')
  axes = top.subplots(rows, COLUMNS).ravel()
  for axis, (title, tile) in zip(axes, tiles, strict=False):
    axis.imshow(tile)
    axis.set_title(title, fontsize=9)
  bottom.suptitle('Augmentations with their defaults, at random')
  grid = bottom.subplots(len(names), COLUMNS)
  batch = images[np.arange(COLUMNS) % len(images)]
  for name, line in zip(names, grid, strict=True):
    line[0].set_ylabel(name, rotation=0, ha='right', va='center', fontsize=9)
    for axis, tile in zip(line, _examples(name, batch, seed), strict=True):
      axis.imshow(tile)
  for axis in (*axes, *grid.ravel()):
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
  return figure


def _operations(
  image: UInt8[np.ndarray, 'h w 3'],
) -> list[tuple[str, UInt8[np.ndarray, 'h w 3']]]:
  """What each operation makes of an image, with a title."""
  values = [value for value, _ in ARGUMENTS.values()]
  tiles = jax.jit(distort, static_argnames='ops')(
    np.stack([image] * len(values)),
    jnp.arange(len(values)),
    jnp.asarray(values),
    ops=tuple(ARGUMENTS),
  )
  titles = [f'{op} {word}'.strip() for op, (_, word) in ARGUMENTS.items()]
  centre, half = jnp.full((1, 2), 0.4), jnp.full(1, 40.0)
  hole = erasing.cutout(jnp.asarray(image)[None], centre, half)[0]
  return [
    *zip(titles, np.asarray(tiles), strict=True),
    ('cutout 40 px', np.asarray(hole)),
  ]


def _examples(name: str, images: Images, seed: int) -> Images:
  """What an augmentation makes of images, as it enters the model."""
  apply = jax.jit(augment.pipeline([{'name': name}], mean=0.5, std=0.5))
  tiles = np.asarray(apply(jax.random.key(seed), jnp.asarray(images)))
  return np.round((tiles.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def photographs(paths: Sequence[str]) -> Images:
  """Reads images, or takes two that come with scikit-learn, as squares.

  Raises:
    ValueError: if a file is no image.
    OSError: if it cannot be read.
  """
  found = [data.decode(pathlib.Path(path).read_bytes()) for path in paths]
  square = data.build_transforms(
    [
      {'name': 'resize_small', 'size': SIZE, 'method': 'area'},
      {'name': 'central_crop', 'size': SIZE},
    ]
  )
  rng = np.random.default_rng(0)  # the crop draws nothing
  if not found:
    import sklearn.datasets  # Takes a second, and few need it.

    found = sklearn.datasets.load_sample_images().images
  return np.stack([square(image, rng) for image in found])
