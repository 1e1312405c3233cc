"""A page that names what is in an image.

It shows the most probable classes and, where the model has attention, what it
looks at. The page is served to this machine alone unless --host says otherwise.
Images stay in memory and are not kept. What serves it is an extra:
requirements-demo.txt.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_jax import data
from vit_jax.pretrained.catalogue import words
from vit_jax.tools.pictures import attention, attention_maps, sources
from vit_jax.tools.work.loading import load_model
from vit_jax.tools.work.predict import make_probabilities
from vit_jax.trained import Trained

MAX_PIXELS = 4096 * 4096
# Of the sides: the shorter one is what some transforms scale to a given size.
MAX_ASPECT = 20
PICTURE = 480  # pixels of the longer side of what is shown

Look = Callable[[bytes], dict[str, Any]]


def run(args: argparse.Namespace) -> int:
  """Serves the page until it is interrupted."""
  try:
    from vit_jax.tools.work import demo_server
  except ImportError as error:
    raise ValueError(
      f'{error}. Install it with: pip install -r requirements-demo.txt'
    ) from error
  trained = load_model(args)
  look = make_look(trained, top=args.top)
  demo_server.serve(look, name=trained.name, host=args.host, port=args.port)
  return 0


def make_look(trained: Trained, *, top: int) -> Look:
  """Returns what answers to the bytes of an image file.

  The answer has `classes`, the `top` most probable ones; the pictures `image`,
  as the model sees it, and `attention`, '' if it has none; and `kind`, the word
  for the latter. What is no image, or too large, is a ValueError.
  """
  config, names = trained.run['config'], trained.run['class_names']
  transform = data.build_transforms(config['preprocess'])
  probabilities = make_probabilities(trained)
  see = attention.make_see(config, num_classes=len(names))
  rng = np.random.default_rng(0)  # the preprocessing draws nothing

  def look(content: bytes) -> dict[str, Any]:
    image = data.decode(content, max_pixels=MAX_PIXELS)
    height, width = image.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
      raise ValueError(
        f'The image has {width} x {height} pixels: crop it, so that no side is '
        f'more than {MAX_ASPECT} times as long as the other.'
      )
    image = np.asarray(transform(image, rng))
    probability = probabilities({'image': image[None]})[0]
    answer = {
      'classes': [
        {'class': words(names[k]), 'probability': float(probability[k])}
        for k in np.argsort(-probability, kind='stable')[:top]
      ],
      'image': sources.picture(image, longer=PICTURE),
      'attention': '',
      'kind': '',
    }
    try:
      layers = see(trained.params, trained.state, image)
    except ValueError:  # there is none
      return answer
    values, kind = attention_maps.summary(layers, size=image.shape[:2])
    figure = attention_maps.overlaid(image, values)
    return answer | {'attention': sources.png(figure, dpi=100), 'kind': kind}

  return look
