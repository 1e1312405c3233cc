"""What the comparisons with torch share; torch is imported only when used."""

import importlib.metadata

import jax
import pytest


@pytest.fixture(scope='session')
def timm():
  """The package timm."""
  import torch

  # PyPI's torchvision is built for CUDA. Beside a torch for CPUs it does not
  # load its operators, and then fails to find these two.
  built_for_cpu = '+cpu' in importlib.metadata.version('torchvision')
  if torch.version.cuda is None and not built_for_cpu:
    library = torch.library.Library('torchvision', 'DEF')
    for name in ('nms', 'qnms'):
      library.define(
        f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
      )
    # The operators vanish with the library.
    torch._shim_of_tests = library
  import timm

  return timm


@pytest.fixture(autouse=True)
def _full_precision():
  with jax.default_matmul_precision('highest'):
    yield
