"""The divergence of distillation against torch."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.ops import losses

pytestmark = pytest.mark.parity


@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_the_mean_divergence_is_batchmean_and_not_the_mean(temperature):
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  logits, target = rng.normal(scale=3, size=(2, 6, 11)).astype(np.float32)
  log_q, log_p = (
    torch.log_softmax(torch.tensor(x) / temperature, dim=1)
    for x in (logits, target)
  )
  theirs = temperature**2 * torch.nn.functional.kl_div(
    log_q, log_p, reduction='batchmean', log_target=True
  )
  ours = losses.kl_divergence(
    jnp.asarray(logits), jnp.asarray(target), temperature=temperature
  )
  np.testing.assert_allclose(ours.mean(), theirs.numpy(), rtol=1e-5)
