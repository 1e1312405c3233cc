"""What the pictures share: the images that they show, and how they look."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.axes
import matplotlib.cm
import matplotlib.figure
import numpy as np
from jaxtyping import UInt8

from vit_jax import data
from vit_jax.trained import Trained

# Of what has a zero and a largest value, and of what has a sign; both can be
# read by the colour-blind and in print.
SEQUENTIAL, DIVERGING = 'viridis', 'RdBu_r'
# Of text, in points.
TITLE, LABEL = 10, 8


class Example(NamedTuple):
  """An image as it enters a model, before it is normalised.

  Attributes:
    name: of the file.
    image: uint8 (h, w, c).
  """

  name: str
  image: UInt8[np.ndarray, 'h w c']


def examples(
  trained: Trained, inputs: Sequence[str], *, most: int
) -> list[Example]:
  """Reads images and prepares them as the model wants them.

  Args:
    trained: whose preprocessing it is.
    inputs: files, folders or addresses of data; without any, two photographs
      that come with scikit-learn.
    most: so many at most.

  Raises:
    ValueError: if there is no such file, or one is no image.
  """
  config = trained.run['config']
  transform = data.build_transforms(config['preprocess'])
  rng = np.random.default_rng(0)  # the preprocessing draws nothing
  if not inputs:
    import sklearn.datasets  # Takes a second, and few need it.

    found = sklearn.datasets.load_sample_images()
    names = [str(name).rpartition('/')[2] for name in found.filenames]
    pairs = list(zip(names, found.images, strict=True))[:most]
    return [Example(name, transform(image, rng)) for name, image in pairs]
  sources = data.unlabelled(inputs, class_names=trained.run['class_names'])
  pairs = [(x, i) for x in sources for i in range(len(x))]
  return [
    Example(x.name(i).rpartition('/')[2], transform(pixels(x[i]['image']), rng))
    for x, i in pairs[:most]
  ]


def pixels(image: bytes | np.ndarray) -> UInt8[np.ndarray, 'h w c']:
  """The image of an example of a source, which may be encoded."""
  return data.decode(image) if isinstance(image, bytes) else image


def bare(axis: matplotlib.axes.Axes) -> None:
  """Leaves an axis without ticks and frame."""
  axis.set(xticks=[], yticks=[])
  axis.set_frame_on(False)


def color_bar(
  scale: matplotlib.cm.ScalarMappable, axes: Any, *, label: str, **options: Any
) -> None:
  """Adds the one scale of all axes, with its unit."""
  axes = np.ravel(axes)
  bar = axes[0].figure.colorbar(
    scale, ax=axes, fraction=0.04, pad=0.02, aspect=50, **options
  )
  bar.minorticks_off()
  bar.set_label(label, fontsize=LABEL)
  bar.ax.tick_params(labelsize=LABEL)


def new_figure(
  width: float, height: float, *, title: str
) -> matplotlib.figure.Figure:
  """A figure of this size in inches, whose parts make room for each other."""
  figure = matplotlib.figure.Figure(
    figsize=(width, height), layout='constrained'
  )
  figure.get_layout_engine().set(
    w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01
  )
  figure.suptitle(title, fontsize=TITLE)
  return figure
