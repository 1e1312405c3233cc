"""timm reads the files that we write, and computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models.vit import ViT
from vit_jax.pretrained import flatten, google_npz

pytestmark = pytest.mark.parity

SIZES = dict(width=32, depth=2, mlp_dim=64, num_heads=4)


@pytest.mark.parametrize('pool', ['token', 'gap', 'map'])
def test_timm_loads_our_file_and_gives_the_same_logits(timm, tmp_path, pool):
  import torch

  rng = np.random.default_rng(0)
  image = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
  ours = ViT(patch_size=8, num_classes=5, pool=pool, **SIZES)
  shapes = jax.eval_shape(ours.init, jax.random.key(0), jnp.asarray(image))
  params = jax.tree.map(
    lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes['params']
  )
  np.savez(tmp_path / 'x.npz', **google_npz.from_ours(flatten(params)))
  theirs = timm.models.vision_transformer.VisionTransformer(
    img_size=32,
    patch_size=8,
    embed_dim=32,
    depth=2,
    num_heads=4,
    mlp_ratio=2,
    num_classes=5,
    act_layer='gelu_tanh',
    class_token=pool == 'token',
    global_pool={'gap': 'avg'}.get(pool, pool),
    # With an average it would else norm after pooling.
    fc_norm=False,
  ).eval()
  theirs.load_pretrained(str(tmp_path / 'x.npz'))
  with torch.no_grad():
    expected = theirs(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
  logits = ours.apply({'params': params}, jnp.asarray(image)).logits
  error = np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max()
  assert error < 1e-4, error
