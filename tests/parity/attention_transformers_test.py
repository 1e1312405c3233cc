"""What `inspect` shows as attention against transformers, random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.torch_models import arrays, randomise
from tests.tools.untrained import noise, untrained
from vit_jax.pretrained import split, torch_names
from vit_jax.tools.pictures import attention

pytestmark = pytest.mark.parity


def attentions(torch, theirs, image):
  """Theirs, layer by layer, of an image that ours is normalised like."""
  pixels = (image[None].astype(np.float32) / 255 - 0.5) / 0.5
  with torch.no_grad():
    output = theirs(
      torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
      output_attentions=True,
    )
  return [x.numpy() for x in output.attentions]


def with_weights(trained, state, *, num_heads):
  flat = torch_names.to_ours(state, num_heads=num_heads)
  like = jax.tree.map(np.asarray, {'params': trained.params, **trained.state})
  variables = jax.tree.map(jnp.asarray, split(flat, like=like))
  return trained._replace(params=variables['params'])


def compare(found, expected):
  assert len(found) == len(expected)
  for layer, target in zip(found, expected, strict=True):
    assert layer.weights.shape == target.shape, layer.name
    np.testing.assert_allclose(target.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(layer.weights, target, atol=1e-5)
    assert target.max() > 2 / target.shape[-1]  # it is not uniform


def test_attention_of_a_vit_equals_transformers(timm):
  import torch
  import transformers

  theirs = transformers.ViTForImageClassification(
    transformers.ViTConfig(
      image_size=24,
      patch_size=8,
      hidden_size=32,
      num_hidden_layers=2,
      num_attention_heads=4,
      intermediate_size=64,
      num_labels=3,
      layer_norm_eps=1e-6,
      attn_implementation='eager',
    )
  )
  state = arrays(randomise(torch, theirs))
  trained = untrained(
    'vit',
    size=(24, 24),
    **dict(patch_size=8, width=32, depth=2, mlp_dim=64, num_heads=4),
    gelu='erf',
  )
  trained = with_weights(trained, state, num_heads=4)
  image = noise((24, 24))
  found = attention.layers(trained, image)
  compare(found, attentions(torch, theirs, image))


def test_attention_in_windows_of_swin_equals_transformers(timm):
  import torch
  import transformers

  theirs = transformers.SwinForImageClassification(
    transformers.SwinConfig(
      image_size=48,
      patch_size=4,
      embed_dim=16,
      depths=[2, 2],
      num_heads=[2, 4],
      window_size=3,
      num_labels=3,
      attn_implementation='eager',
    )
  )
  state = arrays(randomise(torch, theirs))
  trained = untrained(
    'swin',
    size=(48, 48),
    **dict(width=16, depths=(2, 2), num_heads=(2, 4), window_size=3),
  )
  trained = with_weights(trained, state, num_heads=(2, 4))
  image = noise((48, 48))
  # They tell that of the last block of each stage, whose windows are shifted.
  found = attention.layers(trained, image)[1::2]
  compare(found, attentions(torch, theirs, image))
