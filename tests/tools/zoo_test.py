import functools

import pytest

from vit_jax import models
from vit_jax.tools.work import zoo
from vit_jax.tools.zoo import main as zoo_main

# Scaling ViT, table 2, in multiply-adds alone: the table's convention without
# its element-wise part and its head, at 224 and 384 pixels.
MULTIPLY_ADDS = {
  's/28': (0.706, 1.974),
  'B/16': (34.942, 110.755),
  'G/14': (963.647, 2854.301),
}


@functools.cache
def rows():
  return {row.variant: row for row in zoo.scaling_rows()}


@pytest.mark.parametrize('variant', zoo.SCALING)
def test_the_scaling_table_is_reproduced_to_the_printed_decimal(variant):
  row = rows()[variant]
  ours = (row.params / 1e6, row.flops[0] / 1e9, row.flops[1] / 1e9)
  printed = zoo.SCALING[variant]
  assert tuple(map(zoo.rounded_like, printed, ours)) == printed


def test_the_scaling_table_has_eleven_rows():
  assert len(zoo.SCALING) == 11


@pytest.mark.parametrize('variant', MULTIPLY_ADDS)
@pytest.mark.parametrize('index', [0, 1])
def test_the_formula_without_head_and_elementwise_part_is_the_counted_model(
  variant, index
):
  model = models.build('vit', variant, pool='gap', scan=True)
  _, counted = zoo.cost(model, size=(224, 384)[index])
  assert round(counted / 1e9, 3) == MULTIPLY_ADDS[variant][index]
  # The rest is between 0.1 and 4 per cent.
  assert 1.001 < rows()[variant].flops[index] / counted < 1.04


def test_attention_pooling_costs_two_more_projections_of_all_tokens():
  row = rows()['G/14']
  n, d, m = 256, 1664, 8192
  pooling = 2 * (2 * n * d**2 + 2 * d**2 + 2 * n * d + 2 * d * m)
  head = 2 * d * zoo.JFT_CLASSES
  assert row.map_flops[0] == pytest.approx(963.647e9 + pooling + head, rel=1e-6)
  assert round(row.map_params / 1e6) == 1881


def test_the_table_of_sizes_lists_what_the_pattern_finds(capsys):
  zoo_main([r'vit (Ti|S)/16'])
  out = capsys.readouterr().out
  assert 'Ti/16' in out and '5.72' in out and '2.51' in out
  assert 'S/16' in out and '22.05' in out and '9.20' in out
  assert 'mixer' not in out and 'B/16' not in out


def test_the_best_published_accuracy_and_the_weights_are_named():
  # README of facebookresearch/ConvNeXt; ImageNet-22k, then 384 pixels.
  assert zoo.published('convnext', 'B') == (
    '86.8 @384',
    'hf://timm, dl.fbaipublicfiles.com',
  )
  assert zoo.published('vit', 'B/28') == ('', '')


def test_a_pattern_that_finds_nothing_is_named():
  with pytest.raises(ValueError, match="'resnext' matches no model"):
    zoo_main(['resnext'])


def test_the_scaling_table_prints_paper_and_ours(capsys):
  zoo_main(['--table=scaling'])
  out = capsys.readouterr().out
  assert '965.3 | 965.3' in out and '2859.9 | 2859.9' in out


def test_the_scaling_table_takes_no_pattern():
  with pytest.raises(SystemExit):
    zoo_main(['vit', '--table=scaling'])


def test_published_checkpoints_are_listed_by_a_pattern(capsys):
  zoo_main(['--pretrained', 'B_16*'])
  out = capsys.readouterr().out
  assert 'augreg/B_16-imagenet2012-384' in out and '85.49' in out
  assert 'imagenet21k*' in out  # of zeroed heads
  assert 'B_32' not in out


def test_a_pattern_without_published_checkpoints_is_named():
  with pytest.raises(ValueError, match="'X_1' matches no published"):
    zoo_main(['--pretrained', 'X_1'])


def test_published_checkpoints_are_a_table_of_their_own():
  with pytest.raises(SystemExit):
    zoo_main(['--pretrained', '*', '--table=scaling'])
