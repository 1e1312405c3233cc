"""Parameters and cost of every published variant."""

import jax
import jax.numpy as jnp
import pytest

from vit_jax import models
from vit_jax.layers import neighborhood
from vit_jax.ops import flops

# Architecture -> variant -> side of the image in pixels; then, with 1000
# classes, parameters and billions of multiply-adds, as the models of timm
# (CoAtNet but for a layer before the head, EfficientNet, MobileViT, PVT v2,
# ResNet, Swin, TNT, Twins), transformers (CvT, PVT) and the authors (ConvNeXt,
# DiNAT, Mobile-Former, T2T-ViT without what is not learned) have them; for
# CPVT, as timm's ViT has them with the generator of its Twins. The papers round
# them. Those of CoAtNet 6 and 7 follow from the dimensions.
PUBLISHED = {
  'coatnet': {
    '0': (224, 24_446_228, 4.1413),
    '1': (224, 41_635_184, 8.2383),
    '2': (224, 73_635_144, 15.5012),
    '3': (224, 164_605_432, 34.3699),
    '4': (224, 273_064_456, 60.2336),
    '5': (224, 682_856_600, 142.1773),
    '6': (224, 1_344_238_688, 259.4777),
    '7': (224, 2_432_532_472, 457.8632),
  },
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
  'cpvt': {
    'Ti/16': (224, 5_681_512, 1.254),
    'S/16': (224, 21_978_856, 4.5996),
    'B/16': (224, 86_424_040, 17.5652),
  },
  'cvt': {
    '13': (224, 19_997_480, 4.5661),
    '21': (224, 31_622_696, 7.178),
    'W24': (384, 277_196_392, 194.2217),
  },
  'deit': {
    'Ti/16': (224, 5_910_800, 1.261),
    'S/16': (224, 22_436_432, 4.6241),
    'B/16': (224, 87_338_192, 17.6568),
  },
  'dinat': {
    'nat_M': (224, 19_984_174, 2.6948),
    'nat_T': (224, 27_901_582, 4.2952),
    'nat_S': (224, 50_743_297, 7.7723),
    'nat_B': (224, 89_769_652, 13.6771),
    'M': (224, 19_984_174, 2.6948),
    'T': (224, 27_901_582, 4.2952),
    'S': (224, 50_719_681, 7.7723),
    'B': (224, 89_769_652, 13.6771),
    'L': (224, 200_943_514, 30.4577),
    'L_384': (384, 200_943_514, 89.5054),
    'L_384_11x11': (384, 201_144_250, 92.0853),
    's_T': (224, 28_288_354, 4.4906),
    's_S': (224, 49_606_258, 8.7409),
    's_B': (224, 87_768_224, 15.4309),
    's_L': (224, 196_532_476, 34.4758),
    's_L_384': (384, 196_532_476, 101.3135),
  },
  'mobile_former': {
    '508M': (224, 13_976_976, 0.4985),
    '294M': (224, 11_422_648, 0.2867),
    '214M': (224, 9_425_920, 0.2084),
    '151M': (224, 7_595_828, 0.1462),
    '96M': (224, 4_585_252, 0.092),
    '52M': (224, 3_469_092, 0.0493),
    '26M': (224, 3_232_788, 0.0236),
  },
  'mobilevit': {
    'XXS': (256, 1_272_024, 0.4074),
    'XS': (256, 2_317_848, 1.0259),
    'S': (256, 5_578_632, 2.0008),
  },
  'mobilevit_v2': {
    '0.5': (256, 1_370_593, 0.4646),
    '0.75': (256, 2_866_009, 1.028),
    '1.0': (256, 4_901_841, 1.8121),
    '1.25': (256, 7_478_089, 2.8169),
    '1.5': (256, 10_594_753, 4.0425),
    '1.75': (256, 14_251_833, 5.4888),
    '2.0': (256, 18_449_329, 7.1558),
  },
  'efficientnet': {
    'B0': (224, 5_288_548, 0.3858),
    'B1': (240, 7_794_184, 0.6868),
    'B2': (260, 9_109_994, 0.9936),
    'B3': (300, 12_233_232, 1.8271),
    'B4': (380, 19_341_616, 4.3938),
    'B5': (456, 30_389_784, 10.2664),
    'B6': (528, 43_040_704, 19.0676),
    'B7': (600, 66_347_960, 37.7459),
    'B8': (672, 87_413_142, 62.5975),
    'L2': (800, 480_309_308, 475.7037),
  },
  'pvt': {
    'T': (224, 13_229_288, 1.9329),
    'S': (224, 24_485_864, 3.8157),
    'M': (224, 44_208_104, 6.6592),
    'L': (224, 61_369_320, 9.8138),
  },
  'pvt_v2': {
    'B0': (224, 3_666_760, 0.5661),
    'B1': (224, 14_009_000, 2.1084),
    'B2': (224, 25_362_856, 4.0267),
    'B2-Li': (224, 22_553_512, 3.8889),
    'B3': (224, 45_238_696, 6.8973),
    'B4': (224, 62_556_072, 10.1011),
    'B5': (224, 81_956_008, 11.7173),
  },
  'resnet': {
    '18': (224, 11_689_512, 1.8141),
    '34': (224, 21_797_672, 3.6638),
    '50': (224, 25_557_032, 4.0892),
    '101': (224, 44_549_160, 7.8014),
    '152': (224, 60_192_808, 11.5136),
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
  't2t_vit': {
    '7': (224, 4_255_694, 1.1469),
    '10': (224, 5_834_702, 1.5163),
    '12': (224, 6_887_374, 1.7626),
    '14': (224, 21_465_806, 4.7835),
    '19': (224, 39_085_070, 8.4797),
    '24': (224, 64_000_974, 13.6619),
    't_14': (224, 21_465_422, 6.0887),
    't_19': (224, 39_084_686, 9.7849),
    't_24': (224, 64_000_590, 14.9671),
  },
  'tnt': {
    'Ti': (224, 6_076_408, 1.4037),
    'S': (224, 23_768_584, 5.2169),
    'B': (224, 65_428_680, 14.0491),
  },
  'twins_pcpvt': {
    'S': (224, 24_106_216, 3.8095),
    'B': (224, 43_828_456, 6.6529),
    'L': (224, 60_989_672, 9.8075),
  },
}


def of_neighbors(query, key, value, *, table, dilation):
  """Costs what it costs by the definition: no key but those that are seen."""
  seen = jnp.zeros((*query.shape, ((len(table) + 1) // 2) ** 2))
  logits = jnp.einsum('byxht,byxhtn->byxhn', query, seen)
  return jnp.einsum('byxhn,byxhtn->byxht', logits, seen)


@pytest.mark.parametrize(
  ('name', 'variant'),
  [(name, variant) for name in PUBLISHED for variant in PUBLISHED[name]],
)
def test_parameters_and_cost_are_as_published(name, variant, monkeypatch):
  monkeypatch.setattr(neighborhood, 'neighborhood_attention', of_neighbors)
  size, parameters, billions = PUBLISHED[name][variant]
  model = models.build(name, variant, num_classes=1000)
  if hasattr(model, 'scan'):  # it is traced faster
    model = model.clone(scan=True)
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  assert count == parameters
  cost = flops.count(model.apply, variables, image)
  assert round(cost / 2e9, 4) == billions


@pytest.mark.parametrize('name', PUBLISHED)
def test_every_variant_is_counted(name):
  assert PUBLISHED[name].keys() == set(models.MODELS[name].variants)
