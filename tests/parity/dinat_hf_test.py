"""Names of DiNAT in transformers, whose attention cannot run.

It swaps axes before it calls NATTEN, and needs a NATTEN of before 0.20.
"""

import pytest

from tests.parity.torch_models import check_names

pytestmark = pytest.mark.parity


def test_the_names_are_those_of_transformers(timm, monkeypatch):
  import torch
  import transformers
  from transformers.models.dinat import modeling_dinat

  monkeypatch.setattr(modeling_dinat, 'requires_backends', lambda *_: None)
  config = transformers.DinatConfig(num_labels=1000, layer_scale_init_value=0.0)
  with torch.device('meta'):
    theirs = transformers.DinatForImageClassification(config)
  check_names('dinat', 'M', theirs.state_dict(), family='hf_dinat')
