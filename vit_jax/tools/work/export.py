"""Writes a model for other libraries, and reads it again."""

import argparse
import math
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vit_jax import data, experiment, models, pretrained
from vit_jax.layers.pos_embed import sincos_2d
from vit_jax.models import vit
from vit_jax.pretrained.targets import TARGETS, Subject, write_json
from vit_jax.tools.work.loading import load_model
from vit_jax.trained import Trained

NUM_IMAGES = 64
# Of the logits, relative to the largest. The hybrids of timm are the farthest
# away: the epsilon of their group norms is 1e-5 instead of 1e-6.
TOLERANCE = 1e-3


def run(args: argparse.Namespace) -> int:
  """Exports, and says who read it."""
  trained = load_model(args)
  directory = args.output or (
    pathlib.Path(args.workdir, 'export', args.to)
    if args.workdir
    else pathlib.Path('export', trained.name, args.to)
  )
  # A GPU would round the factors of products otherwise.
  with jax.default_matmul_precision('highest'):
    images = real_images(trained.run, args.data)
    reader, difference = export(
      subject(trained), directory, to=args.to, images=images
    )
  print(
    f'{directory}: {trained.name} as {args.to}. Read by {reader}, which '
    f'computes the same logits for {len(images)} images, up to '
    f'{difference:.1e} of the largest.'
  )
  return 0


def subject(trained: Trained) -> Subject:
  """Collects what the targets need of a trained model."""
  run = trained.run
  options = {'num_classes': len(run['class_names']), **run['config']['model']}
  config = {**run['config'], 'dtype': 'float32'}
  predict = experiment.make_predict(config, trained.objective)

  variables = {'params': trained.params, **trained.state}

  def output(params, image):
    state = pretrained.split(params, like=variables)
    return predict(state.pop('params'), state, {'image': image})

  params = pretrained.join(variables)
  image = jax.ShapeDtypeStruct((1, *run['image_shape']), np.uint8)
  grid = jax.eval_shape(output, params, image).pyramid[0].shape[1:3]
  model = models.build(**options)
  return Subject(
    name=options['name'],
    model=model,
    params=with_positions(params, model, grid=grid),
    logits=jax.jit(lambda params, image: output(params, image).logits),
    image_shape=run['image_shape'],
    class_names=run['class_names'],
    preprocess=run['config']['preprocess'],
    normalize=run['config']['normalize'],
  )


def with_positions(
  params: dict[str, np.ndarray], model: nn.Module, *, grid: tuple[int, int]
) -> dict[str, np.ndarray]:
  """Adds a ViT's fixed positions, which are parameters elsewhere."""
  if not isinstance(model, vit.ViT) or model.pos_embed == 'learned':
    return params
  if model.pos_embed == 'sincos2d':
    table = np.asarray(sincos_2d(grid, width=model.width))
  else:
    table = np.zeros((math.prod(grid), model.width), np.float32)
  before = int(model.pool == 'token')
  table = np.pad(table, ((before, 0), (0, 0)))[None]  # (1, N, D)
  return {**params, 'pos_embed': table}


def real_images(run: Mapping[str, Any], address: str) -> np.ndarray:
  """The first images of a data set, preprocessed: uint8 (b, h, w, c)."""
  config = run['config']
  names = run['class_names']
  held_out = None
  if not address and config['evals']:
    address = next(iter(config['evals'].values()))['data']
    if not address:
      _, held_out = experiment.open_data(config)
  if address or held_out:
    source = experiment.open_eval(
      config, address, class_names=names, held_out=held_out
    )
  else:
    import sklearn.datasets  # Takes a second, and few need it.

    photographs = str(pathlib.Path(sklearn.datasets.__file__).parent / 'images')
    (source,) = data.unlabelled([photographs], class_names=names)
  batches = data.one_pass(
    source,
    data.build_transforms(config['preprocess']),
    batch_size=min(NUM_IMAGES, len(source)),
    num_threads=config['loader']['num_threads'],
  )
  return next(iter(batches))['image']


def export(
  subject: Subject, directory: pathlib.Path, *, to: str, images: np.ndarray
) -> tuple[str, float]:
  """Writes a model, reads it again and compares.

  Args:
    subject: the model.
    directory: is made if it is not there; files in it are replaced.
    to: a key of TARGETS.
    images: uint8 (b, h, w, c).

  Returns:
    Who read it, and the largest difference of the logits, relative to the
    largest logit.

  Raises:
    ValueError: if the target cannot express the model, or the logits differ.
  """
  target = TARGETS[to]
  directory.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    prefix='.export-', dir=directory.parent
  ) as scratch:
    path = pathlib.Path(scratch)
    target.write(subject, path)
    write_facts(subject, path, usage=target.usage)
    expected = np.asarray(subject.logits(subject.params, images))
    reader, logits = target.read(subject, path, images)
    largest = max(np.abs(expected).max(), 1e-6)  # an untrained head gives 0
    difference = np.abs(logits - expected).max() / largest
    if not difference <= TOLERANCE:
      raise ValueError(
        f'What {reader} reads computes something else: the logits differ by '
        f'{difference:.1e} of the largest. Nothing was kept.'
      )
    directory.mkdir(exist_ok=True)
    for file in path.iterdir():
      file.replace(directory / file.name)
  return reader, float(difference)


def write_facts(
  subject: Subject, directory: pathlib.Path, *, usage: str
) -> None:
  """What a user of any target needs to know."""
  labels = '\n'.join(subject.class_names) + '\n'
  (directory / 'labels.txt').write_text(labels)
  write_json(
    directory / 'preprocessing.json',
    {
      'image_shape': subject.image_shape,
      'preprocess': subject.preprocess,
      'normalize': subject.normalize,
    },
  )
  (directory / 'README.md').write_text(usage + README)


# Ends every README.md.
README = """
`labels.txt` names the classes, one on each line. `preprocessing.json` says how
an image is resized, and the mean and deviation of its normalization after a
division by 255.
"""
