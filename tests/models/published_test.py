"""Parameters and cost of every published variant."""

import jax
import jax.numpy as jnp
import pytest

from vit_jax import models
from vit_jax.ops import flops

# Architecture -> variant -> side of the image in pixels; then, with 1000
# classes, parameters and billions of multiply-adds, as the models of timm
# (Swin) and of the authors (ConvNeXt) have them; the papers round them.
PUBLISHED = {
  'convnext': {
    'T': (224, 28_589_128, 4.4555),
    'S': (224, 50_223_688, 8.6837),
    'B': (224, 88_591_464, 15.3547),
    'L': (224, 197_767_336, 34.3614),
    'XL': (224, 350_196_968, 60.921),
    'iso_S': (224, 22_308_712, 4.2864),
    'iso_B': (224, 87_083_752, 16.8963),
    'iso_L': (224, 305_942_504, 59.6992),
  },
  'swin': {
    'T/7': (224, 28_288_354, 4.4906),
    'S/7': (224, 49_606_258, 8.7409),
    'B/7': (224, 87_768_224, 15.4309),
    'B/12': (384, 87_903_584, 47.0831),
    'L/7': (224, 196_532_476, 34.4758),
    'L/12': (384, 196_735_516, 103.9191),
  },
  'swin_v2': {
    'T/8': (256, 28_347_154, 5.9397),
    'T/16': (256, 28_347_154, 6.6606),
    'S/8': (256, 49_728_418, 11.5459),
    'S/16': (256, 49_728_418, 12.7831),
    'B/8': (256, 87_918_816, 20.3251),
    'B/16': (256, 87_918_816, 21.9692),
    'B/12': (192, 87_918_816, 11.8563),
    'B/12to16': (256, 87_918_816, 21.9692),
    'B/12to24': (384, 87_918_816, 55.1483),
    'L/12': (192, 196_739_932, 26.1019),
    'L/12to16': (256, 196_739_932, 47.7403),
    'L/12to24': (384, 196_739_932, 115.9914),
  },
}


@pytest.mark.parametrize(
  ('name', 'variant'),
  [(name, variant) for name in PUBLISHED for variant in PUBLISHED[name]],
)
def test_parameters_and_cost_are_as_published(name, variant):
  size, parameters, billions = PUBLISHED[name][variant]
  model = models.build(name, variant, num_classes=1000, scan=True)
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), image)
  assert sum(x.size for x in jax.tree.leaves(params)) == parameters
  cost = flops.count(model.apply, params, image)
  assert round(cost / 2e9, 4) == billions


@pytest.mark.parametrize('name', PUBLISHED)
def test_every_variant_is_counted(name):
  assert PUBLISHED[name].keys() == set(models.MODELS[name].variants)
