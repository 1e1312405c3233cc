"""Small models with random weights, for what looks into models."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import experiment
from vit_jax.trained import Trained

CLASSES = ('cat', 'cow', 'dog')
VIT = {'patch_size': 8, 'width': 16, 'depth': 2, 'mlp_dim': 16, 'num_heads': 2}
SWIN = {'width': 8, 'depths': (2,), 'num_heads': (2,), 'window_size': 3}
MIXER = {
  'patch_size': 8,
  'width': 8,
  'depth': 1,
  'token_dim': 8,
  'channel_dim': 8,
}


def untrained(name, *, size=(16, 16), **fields) -> Trained:
  """A model whose weights are large enough for attention to be uneven."""
  config = {
    'model': {'name': name, **fields},
    'objective': {'name': 'classification'},
    'dtype': 'float32',
    'normalize': {'mean': 0.5, 'std': 0.5},
    'preprocess': ({'name': 'resize', 'size': size[0]},),
    'data': {'data_dir': None},
  }
  objective = experiment.build_objective(config, num_classes=len(CLASSES))
  batch = experiment.dummy_batch((*size, 3), 'float32')
  params, state = jax.eval_shape(objective.init, jax.random.key(0), batch)
  rng = np.random.default_rng(0)
  return Trained(
    name=f'untrained {name}',
    run={
      'config': config,
      'class_names': CLASSES,
      'image_shape': (*size, 3),
    },
    objective=objective,
    predict=experiment.make_predict(config, objective),
    params=jax.tree.map(
      lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), params
    ),
    state=jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), state),
  )


def noise(size=(16, 16)):
  """An image."""
  rng = np.random.default_rng(1)
  return rng.integers(256, size=(*size, 3), dtype=np.uint8)
