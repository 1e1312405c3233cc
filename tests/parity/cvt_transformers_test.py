"""CvT against transformers, with random weights."""

import numpy as np
import pytest

from tests.parity import targets_export_test as export_test
from tests.parity.torch_models import (
  arrays,
  check_names,
  compare,
  compare_training,
  outputs_by_module,
  random_image,
  randomise,
)
from vit_jax import models
from vit_jax.pretrained import torch_names
from vit_jax.tools.work.export import export

pytestmark = pytest.mark.parity

# As few blocks as theirs can have.
WIDTHS, DEPTHS, HEADS = (8, 12, 16), (1, 2, 3), (1, 2, 4)
# Maps of 17 x 23, 9 x 12 and 5 x 6.
SIZE = (67, 93)
OURS = dict(widths=WIDTHS, depths=DEPTHS, num_heads=HEADS, num_classes=5)


def build(torch, *, gelu):
  """Their model, with the GELU that microsoft/CvT has if it is the quick one.

  Their drop path is off: it can drop what came before the block, too.
  """
  import transformers

  theirs = transformers.CvtForImageClassification(
    transformers.CvtConfig(
      embed_dim=WIDTHS,
      depth=DEPTHS,
      num_heads=HEADS,
      drop_path_rate=(0.0, 0.0, 0.0),
      num_labels=5,
    )
  )
  if gelu == 'quick':
    for module in theirs.modules():
      if hasattr(module, 'activation'):
        module.activation = transformers.activations.QuickGELUActivation()
  return randomise(torch, theirs)


@pytest.mark.parametrize('gelu', ['erf', 'quick'])
def test_cvt_equals_transformers(timm, gelu):
  import torch

  theirs = build(torch, gelu=gelu)
  image, stages = random_image(SIZE), 'cvt.encoder.stages'
  compare(
    models.build('cvt', **OURS, gelu=gelu),
    torch_names.to_ours(arrays(theirs), num_heads=HEADS),
    outputs_by_module(torch, theirs, image),
    image=image,
    stages=[
      ('stage_0/block_0/norm1', f'{stages}.0.layers.0.layernorm_before'),
      ('stage_0/block_0', f'{stages}.0.layers.0'),
      ('stage_1/block_1', f'{stages}.1.layers.1'),
      ('stage_2/block_0', f'{stages}.2.layers.0'),
      ('stage_2/block_2', f'{stages}.2.layers.2'),
      ('norm', 'layernorm'),
      ('head', 'classifier'),
    ],
    maps=[f'{stages}.{i}' for i in range(3)],
  )


def test_in_training_cvt_equals_transformers(timm):
  import torch

  compare_training(
    torch,
    models.build('cvt', **OURS),
    build(torch, gelu='quick'),
    image=random_image(SIZE),
    num_heads=HEADS,
  )


def test_the_names_of_cvt_are_those_of_transformers(timm):
  import torch
  import transformers

  with torch.device('meta'):
    theirs = transformers.CvtForImageClassification(
      transformers.CvtConfig(num_labels=1000)
    )
  check_names('cvt', '13', theirs.state_dict(), family='hf_cvt')


def test_an_export_is_computed_by_transformers(timm, tmp_path):
  subject = export_test.make_subject(
    {'name': 'cvt', **OURS, 'gelu': 'erf'}, size=SIZE
  )
  # A variance is not negative.
  subject = subject._replace(
    params={
      path: np.abs(x) if path.endswith('/var') else x
      for path, x in subject.params.items()
    }
  )
  reader, difference = export(
    subject, tmp_path, to='hf', images=export_test.random_images(3, SIZE)
  )
  assert reader.startswith('transformers')
  assert difference <= 1e-4


@pytest.mark.parametrize(
  'fields', [{}, {'gelu': 'erf', 'depths': (1, 1, 3)}], ids=['quick', 'shallow']
)
def test_what_transformers_cannot_compute_is_not_exported(fields, tmp_path):
  subject = export_test.make_subject({'name': 'cvt', **OURS, **fields})
  with pytest.raises(ValueError, match="has gelu='erf' and three stages"):
    export(subject, tmp_path, to='hf', images=export_test.random_images(1))
