import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.models.mlp_mixer import Block, MlpMixer

# Table 1 of the paper, exactly; at 224 pixels and 1000 classes.
PARAMS = {
  'S/32': 19_104_624,
  'S/16': 18_528_264,
  'S/8': 20_646_504,
  'B/32': 60_293_428,
  'B/16': 59_880_472,
  'L/16': 208_196_168,
}


def count(variant):
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  model = models.build('mlp_mixer', variant, num_classes=1000, scan=True)
  params = jax.eval_shape(model.init, jax.random.key(0), image)
  return sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize('variant', PARAMS)
def test_parameters_are_as_many_as_published(variant):
  assert count(variant) == PARAMS[variant]


@pytest.mark.parametrize(
  ('variant', 'millions'), [('L/32', 206.9), ('H/14', 432.4)]
)
def test_parameters_round_to_the_published_millions(variant, millions):
  assert round(count(variant) / 1e6, 1) == millions


def test_the_parameters_start_as_in_the_reference():
  image = jnp.ones((2, 16, 24, 3))
  model = MlpMixer(4, 32, 1, 16, 64, num_classes=3, head_bias=-2.0)
  params = model.init(jax.random.key(0), image)['params']
  assert not params['head']['kernel'].any()
  np.testing.assert_array_equal(params['head']['bias'], np.full(3, -2.0))
  fc1 = params['block_0']['channel_mlp']['fc1']
  assert not fc1['bias'].any()
  np.testing.assert_allclose(fc1['kernel'].std(), 32**-0.5, rtol=0.1)
  assert params['block_0']['token_mlp']['fc1']['kernel'].shape == (24, 16)


def test_drop_path_drops_both_branches_of_a_block():
  block = Block(token_dim=4, channel_dim=16)
  tokens = jax.random.normal(jax.random.key(2), (4, 3, 8))
  params = jax.jit(block.init)(jax.random.key(0), tokens)
  rngs = {'dropout': jax.random.key(1)}
  rate = 1 - 1e-6
  out = block.apply(params, tokens, drop_path=rate, train=True, rngs=rngs)
  np.testing.assert_array_equal(out, tokens)


def test_tokens_and_channels_are_mixed_by_their_own_mlp():
  image = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
  model = MlpMixer(4, 8, 1, 6, 16)
  params = jax.jit(model.init)(jax.random.key(1), image)
  apply = jax.jit(model.apply)
  block = params['params']['block_0']

  def reach(silent):
    """Which patches see the first one once one of the MLPs is silent."""
    fc2 = jax.tree.map(jnp.zeros_like, block[silent]['fc2'])
    muted = block | {silent: block[silent] | {'fc2': fc2}}
    variables = {'params': params['params'] | {'block_0': muted}}
    changed = image.at[:, :4, :4].add(1.0)
    before, after = (apply(variables, x).pyramid[0] for x in (image, changed))
    return (jnp.abs(after - before).max(-1) > 1e-6).sum()

  assert reach('token_mlp') == 1
  assert reach('channel_mlp') == 4
