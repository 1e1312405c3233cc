"""Names of timm and Hugging Face; the comparisons with them are in parity/."""

import jax
import numpy as np
import pytest

from vit_jax import models
from vit_jax.pretrained import join, torch_names

VIT = dict(
  name='vit',
  patch_size=8,
  width=32,
  depth=2,
  mlp_dim=48,
  num_heads=4,
  num_classes=5,
)
MIXER = dict(
  name='mlp_mixer',
  patch_size=8,
  width=32,
  depth=2,
  token_dim=16,
  channel_dim=48,
  num_classes=5,
)
TNT = dict(
  name='tnt',
  patch_size=16,
  word_width=8,
  word_heads=2,
  width=32,
  num_heads=4,
  depth=2,
  num_classes=5,
)
T2T_VIT = dict(
  name='t2t_vit',
  width=32,
  depth=2,
  mlp_dim=48,
  num_heads=4,
  token_width=8,
  num_classes=5,
)
PVT = dict(
  name='pvt',
  widths=(32, 64, 40, 48),
  depths=(1, 2, 1, 1),
  num_heads=(4, 8, 2, 4),
  mlp_ratios=(2, 1, 1, 2),
  reductions=(4, 2, 1, 1),
  num_classes=5,
)
PVT_V2 = PVT | {'name': 'pvt_v2'}
CVT = dict(
  name='cvt',
  widths=(32, 64, 40),
  depths=(1, 2, 1),
  num_heads=(4, 8, 2),
  num_classes=5,
)
MOBILEVIT_V2 = dict(
  name='mobilevit_v2',
  widths=(32, 8, 16, 24, 32),
  residuals=(1, 3),
  depths=(2, 4, 3),
  num_classes=5,
)
MOBILEVIT = MOBILEVIT_V2 | dict(
  name='mobilevit', token_widths=(8, 12, 16), expansion=2, feature_width=24
)
MOBILE_FORMER = dict(
  name='mobile_former',
  stem_width=8,
  num_tokens=3,
  token_width=8,
  feature_width=12,
  num_classes=5,
)
SWIN = dict(
  name='swin',
  width=32,
  depths=(1, 2, 1, 1),
  num_heads=(4, 8, 2, 4),
  window_size=2,
  num_classes=5,
)
SWIN_V2 = SWIN | {'name': 'swin_v2'}
CONVNEXT = dict(name='convnext', width=32, depths=(2, 1), num_classes=5)
DINAT = dict(
  name='dinat',
  width=32,
  depths=(2, 2, 1, 1),
  num_heads=(4, 8, 2, 4),
  mlp_ratio=2,
  dilations=(2, 1, 1, 1),
  kernel_size=3,
  num_classes=5,
)


def blocks_of(variant):
  """Those of the variant, but narrow."""
  blocks = models.MODELS['mobile_former'].variant(variant)['blocks']
  return tuple((8, 2, stride) for _, _, stride in blocks)


ISOTROPIC = CONVNEXT | dict(depths=(2,), patch_norm=False)
CASES = {
  'timm_vit': VIT | {'representation_size': 32},
  'timm_vit layer scale': VIT | {'layer_scale': 0.1, 'pool': 'gap'},
  'timm_vit map': VIT | {'pool': 'map'},
  'timm_deit': VIT | {'name': 'deit'},
  'hf_deit': VIT | {'name': 'deit'},
  'timm_hybrid': VIT | {'resnet': (1, 1), 'patch_size': 1},
  'timm_stem': VIT | {'resnet': ()},
  'timm_mixer': MIXER,
  'hf_vit': VIT,
  'hf_vit_bare': VIT | {'representation_size': 32},
  'hf_vit_memory': VIT,
  'timm_tnt': TNT,
  'huawei_tnt': TNT,
  'yitu_t2t_vit': T2T_VIT,
  'yitu_t2t_vit_t': T2T_VIT | {'tokens': 'transformer'},
  'timm_convnext': CONVNEXT,
  'meta_convnext': CONVNEXT,
  'meta_convnext_isotropic': ISOTROPIC,
  'meta_convnext_isotropic without scales': ISOTROPIC | {'layer_scale': None},
  'hf_convnext': CONVNEXT,
  'whai362_pvt': PVT,
  'whai362_pvt_v2': PVT_V2,
  'timm_pvt_v2': PVT_V2,
  'timm_pvt_v2 linear': PVT_V2 | {'linear': True},
  'timm_twins_pcpvt': PVT | {'name': 'twins_pcpvt'},
  'hf_pvt': PVT,
  'hf_pvt_v2': PVT_V2,
  'ms_cvt': CVT,
  'hf_cvt': CVT,
  'timm_mobilevit': MOBILEVIT,
  'apple_mobilevit': MOBILEVIT,
  'hf_mobilevit': MOBILEVIT,
  'timm_mobilevit_v2': MOBILEVIT_V2,
  'apple_mobilevit_v2': MOBILEVIT_V2,
  'hf_mobilevit_v2': MOBILEVIT_V2,
  'ms_mobile_former_508m': MOBILE_FORMER | {'blocks': blocks_of('508M')},
  'ms_mobile_former_96m': MOBILE_FORMER | {'blocks': blocks_of('96M')},
  'ms_mobile_former_52m': MOBILE_FORMER
  | {'blocks': blocks_of('26M'), 'groups': 4},
  'shi_dinat': DINAT | {'layer_scale': 1e-5},
  'shi_dinat_s': DINAT | {'overlap': False},
  'hf_dinat': DINAT,
  'timm_swin': SWIN,
  'timm_swin_v2': SWIN_V2,
  'ms_swin': SWIN,
  'ms_swin_v2': SWIN_V2,
  'hf_swin': SWIN,
  'hf_swin_v2': SWIN_V2,
  'hf_swin_memory': SWIN,
}


def random_params(options, *, size=(32, 64)):
  """Our parameters and statistics by path, all different."""
  model = models.build(**options)
  image = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)
  rng = np.random.default_rng(0)
  draw = lambda x: rng.normal(size=x.shape).astype(np.float32)
  return join(jax.tree.map(draw, shapes))


@pytest.mark.parametrize('case', CASES)
def test_what_leaves_comes_back_bit_by_bit(case):
  # The positions of PVT do not tell the sides of their maps there.
  size = (64, 64) if CASES[case]['name'] == 'pvt' else (32, 64)
  ours = random_params(CASES[case], size=size)
  family = case.split()[0]
  theirs = torch_names.from_ours(ours, family=family)
  assert torch_names.detect(theirs) == family
  back = torch_names.to_ours(theirs, num_heads=torch_names.heads_of(ours))
  assert back.keys() == ours.keys()
  for path, value in ours.items():
    np.testing.assert_array_equal(back[path], value, err_msg=path)
  again = torch_names.from_ours(back, family=family)
  assert again.keys() == theirs.keys()
  for name, value in theirs.items():
    np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_hugging_face_files_and_memory_hold_the_same_arrays():
  ours = random_params(VIT)
  file = torch_names.from_ours(ours, family='hf_vit')
  memory = torch_names.from_ours(ours, family='hf_vit_memory')
  name = 'attention.attention.key.weight'
  np.testing.assert_array_equal(
    file[f'vit.encoder.layer.1.{name}'],
    memory['vit.layers.1.attention.k_proj.weight'],
  )
  assert 'vit.layers.0.mlp.fc2.bias' in memory
  assert 'vit.layers.0.attention.o_proj.weight' in memory


def test_halvings_and_patches_are_counted_apart_by_meta():
  ours = random_params(CONVNEXT)
  timm = torch_names.from_ours(ours, family='timm_convnext')
  meta = torch_names.from_ours(ours, family='meta_convnext')
  for name, other in {
    'stem.1.weight': 'downsample_layers.0.1.weight',
    'stages.1.downsample.0.bias': 'downsample_layers.1.0.bias',
    'stages.0.blocks.1.conv_dw.weight': 'stages.0.1.dwconv.weight',
    'stages.1.blocks.0.gamma': 'stages.1.0.gamma',
  }.items():
    np.testing.assert_array_equal(timm[name], meta[other])
  # Position (5, 2) of the filter of channel 3.
  assert (
    meta['stages.0.1.dwconv.weight'][3, 0, 5, 2]
    == ours['stage_0/block_1/depthwise/kernel'][5, 2, 0, 3]
  )


def test_a_fused_projection_has_queries_then_keys_then_values():
  ours = random_params(VIT)
  timm = torch_names.from_ours(ours, family='timm_vit')
  hugging_face = torch_names.from_ours(ours, family='hf_vit')
  split = np.split(timm['blocks.0.attn.qkv.weight'], 3)
  for name, part in zip(('query', 'key', 'value'), split, strict=True):
    np.testing.assert_array_equal(
      hugging_face[f'vit.encoder.layer.0.attention.attention.{name}.weight'],
      part,
    )
  # Row 8 * h + t of the keys is component t of head h.
  np.testing.assert_array_equal(
    split[1][8 * 2 + 3], ours['block_0/attn/qkv/kernel'][:, 1, 2, 3]
  )


@pytest.mark.parametrize('options', [SWIN, SWIN_V2])
def test_merging_ends_a_stage_except_at_timm(options):
  ours = random_params(options)
  name = options['name']
  timm = torch_names.from_ours(ours, family=f'timm_{name}')
  microsoft = torch_names.from_ours(ours, family=f'ms_{name}')
  reduction = 'downsample.reduction.weight'
  for i in range(3):
    np.testing.assert_array_equal(
      timm[f'layers.{i + 1}.{reduction}'], microsoft[f'layers.{i}.{reduction}']
    )
  assert f'layers.0.{reduction}' not in timm
  assert f'layers.3.{reduction}' not in microsoft


def test_the_authors_of_pvt_count_stages_from_one():
  ours = random_params(PVT, size=(64, 64))
  theirs = torch_names.from_ours(ours, family='whai362_pvt')
  hugging_face = torch_names.from_ours(ours, family='hf_pvt')
  other = 'pvt.encoder'
  for name, another in {
    'patch_embed1.proj.weight': f'{other}.patch_embeddings.0.projection.weight',
    'pos_embed2': f'{other}.patch_embeddings.1.position_embeddings',
    'pos_embed4': f'{other}.patch_embeddings.3.position_embeddings',
    'block2.1.attn.q.bias': f'{other}.block.1.1.attention.self.query.bias',
  }.items():
    np.testing.assert_array_equal(theirs[name], hugging_face[another])
  assert theirs['pos_embed2'].shape == (1, 8 * 8, 64)
  # Token 8 * row + column.
  np.testing.assert_array_equal(
    theirs['pos_embed2'][0, 8 * 3 + 5], ours['stage_1/pos_embed'][0, 3, 5]
  )


def test_positions_of_rectangular_maps_are_refused():
  theirs = torch_names.from_ours(random_params(PVT), family='whai362_pvt')
  with pytest.raises(ValueError, match='128 positions .* are not square'):
    torch_names.to_ours(theirs, num_heads=PVT['num_heads'])


def test_apple_counts_stages_from_one_and_norms_with_blocks():
  ours = random_params(MOBILEVIT)
  apple = torch_names.from_ours(ours, family='apple_mobilevit')
  timm = torch_names.from_ours(ours, family='timm_mobilevit')
  block = 'layer_4.1.global_rep'
  for name, another in {
    'layer_2.2.block.red_1x1.block.norm.running_var': (
      'stages.1.2.conv3_1x1.bn.running_var'
    ),
    f'{block}.3.pre_norm_ffn.4.weight': (
      'stages.3.1.transformer.3.mlp.fc2.weight'
    ),
    f'{block}.4.weight': 'stages.3.1.norm.weight',
    'layer_5.1.fusion.block.conv.weight': 'stages.4.1.conv_fusion.conv.weight',
  }.items():
    np.testing.assert_array_equal(apple[name], timm[another])


def test_apple_once_put_blue_first():
  ours, second = random_params(MOBILEVIT), random_params(MOBILEVIT_V2)
  kernel = 'conv_1.block.conv.weight'
  apple = torch_names.from_ours(ours, family='apple_mobilevit')[kernel]
  timm = torch_names.from_ours(ours, family='timm_mobilevit')
  np.testing.assert_array_equal(apple[:, ::-1], timm['stem.conv.weight'])
  apple = torch_names.from_ours(second, family='apple_mobilevit_v2')[kernel]
  timm = torch_names.from_ours(second, family='timm_mobilevit_v2')
  np.testing.assert_array_equal(apple, timm['stem.conv.weight'])


def test_heads_are_those_of_the_stages_with_attention():
  heads = torch_names.heads_of(random_params(MOBILEVIT))
  assert heads == (None, None, 4, 4, 4)
  assert torch_names.heads_of(random_params(CVT)) == (4, 8, 2)


def test_what_follows_from_the_sizes_is_not_read():
  theirs = torch_names.from_ours(random_params(SWIN), family='ms_swin')
  block = 'layers.0.blocks.0'
  kept = {
    f'{block}.attn_mask': np.zeros((4, 4, 4)),
    f'{block}.attn.relative_position_index': np.zeros((4, 4)),
  }
  heads = SWIN['num_heads']
  with_kept = torch_names.to_ours(theirs | kept, num_heads=heads)
  assert with_kept.keys() == random_params(SWIN).keys()


def test_a_table_of_rectangular_windows_is_refused():
  theirs = torch_names.from_ours(random_params(SWIN), family='timm_swin')
  name = 'layers.0.blocks.0.attn.relative_position_bias_table'
  theirs[name] = np.zeros((3 * 5, 4))
  with pytest.raises(ValueError, match='15 position biases.*not square'):
    torch_names.to_ours(theirs, num_heads=SWIN['num_heads'])


def test_unknown_names_are_listed_on_either_side():
  ours = random_params(VIT)
  theirs = torch_names.from_ours(ours, family='timm_vit')
  theirs |= {'reg_token': np.zeros(1), 'fc_norm.bias': np.zeros(5)}
  with pytest.raises(ValueError, match='fc_norm.bias, reg_token'):
    torch_names.to_ours(theirs, num_heads=4)
  scaled = random_params(CASES['timm_vit layer scale'])
  with pytest.raises(ValueError, match='block_1/scale2/scale') as error:
    torch_names.from_ours(scaled, family='hf_vit')
  assert 'block_0/scale1/scale' in str(error.value)


def test_a_lost_part_of_a_fused_array_is_named():
  theirs = torch_names.from_ours(random_params(VIT), family='hf_vit')
  lost = 'vit.encoder.layer.1.attention.attention.value.bias'
  del theirs[lost]
  with pytest.raises(ValueError, match=f'lacks {lost}'):
    torch_names.to_ours(theirs, num_heads=4)


def test_the_heads_of_every_stage_are_needed():
  theirs = torch_names.from_ours(random_params(SWIN), family='timm_swin')
  with pytest.raises(ValueError, match='layers.3.*num_heads=None'):
    torch_names.to_ours(theirs, num_heads=SWIN['num_heads'][:3])


@pytest.mark.parametrize('num_heads', [None, 5])
def test_heads_that_do_not_divide_the_width_are_an_error(num_heads):
  theirs = torch_names.from_ours(random_params(VIT), family='timm_vit')
  with pytest.raises(ValueError, match=f'num_heads={num_heads}'):
    torch_names.to_ours(theirs, num_heads=num_heads)
