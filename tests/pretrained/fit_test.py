import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_jax.models.deit import DeiT
from vit_jax.models.mlp_mixer import MlpMixer
from vit_jax.models.pvt import PVT
from vit_jax.models.swin import Swin
from vit_jax.models.vit import ViT
from vit_jax.pretrained import fit as fitting
from vit_jax.pretrained import flatten, unflatten
from vit_jax.pretrained.fit import fit

D = 16
rng = np.random.default_rng(0)
sides = st.integers(1, 9)

# Of torch.nn.functional.interpolate, 'bicubic' with antialias=True.
DOWN = (2.1230769, 3.8976744, 6.3692308)
UP = (0.7735849, 2.141791, 4.0, 2.8358209, 1.8490566)


def array(*shape):
  return rng.normal(size=shape).astype(np.float32)


def vit(**fields):
  sizes = dict(patch_size=4, width=D, depth=1, mlp_dim=8, num_heads=2)
  return ViT(**(sizes | dict(num_classes=5) | fields))


def random_params(model, size):
  """Parameters by path, none of them zero."""
  image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  return flatten(jax.tree.map(lambda x: array(*x.shape), shapes))


def logits(model, params, image):
  return model.apply({'params': unflatten(params)}, jnp.asarray(image)).logits


@given(h=sides, w=sides, y=sides, x=sides)
def test_bilinear_is_the_zoom_of_scipy(h, w, y, x):
  table = np.random.default_rng(h + w).normal(size=(h, w, 3))
  zoomed = scipy.ndimage.zoom(table, (y / h, x / w, 1), order=1)
  ours = fitting.resample_grid(table, grid=(y, x))
  assert ours.shape == zoomed.shape == (y, x, 3)
  np.testing.assert_allclose(ours, zoomed, atol=1e-12)


@given(h=sides, w=sides, method=st.sampled_from(['bilinear', 'bicubic']))
def test_a_grid_resampled_to_its_own_size_is_unchanged(h, w, method):
  table = np.random.default_rng(h + w).normal(size=(h, w, 3))
  ours = fitting.resample_grid(table, grid=(h, w), method=method)
  np.testing.assert_array_equal(ours, table)


@pytest.mark.parity
@settings(max_examples=50, deadline=None)
# No width of 1: there torch 2.13 repeats the first row in every row.
@given(
  h=sides, w=sides.map(lambda n: n + 1), y=sides, x=sides.map(lambda n: n + 1)
)
def test_bicubic_is_the_antialiased_one_of_torch(h, w, y, x):
  import torch

  table = np.random.default_rng(h + w).normal(size=(h, w, 3))
  theirs = torch.nn.functional.interpolate(
    torch.from_numpy(table.transpose(2, 0, 1)[None]),
    size=(y, x),
    mode='bicubic',
    antialias=True,
    align_corners=False,
  )[0]
  ours = fitting.resample_grid(table, grid=(y, x), method='bicubic')
  np.testing.assert_allclose(ours, theirs.numpy().transpose(1, 2, 0), atol=1e-9)


def test_bicubic_gives_the_recorded_values_of_torch():
  """The same without torch: 5 -> 3 and 3 -> 5 of an antialiased cubic."""
  table = np.array([1.0, 4.0, 2.0, 8.0, 5.0])[:, None, None]
  down = fitting.resample_grid(table, grid=(3, 1), method='bicubic')
  up = fitting.resample_grid(table[:3], grid=(5, 1), method='bicubic')
  np.testing.assert_allclose(down.ravel(), DOWN, atol=1e-6)
  np.testing.assert_allclose(up.ravel(), UP, atol=1e-6)


def test_an_unknown_way_to_resample_is_named():
  with pytest.raises(ValueError, match="'cubic'.*Known: bilinear, bicubic"):
    fitting.resample_grid(array(2, 2, 1), grid=(3, 3), method='cubic')


@pytest.mark.parametrize('size', [(8, 8), (7, 5), (4, 6)])
def test_larger_patches_embed_an_enlarged_image_the_same(size):
  kernel, patch = array(4, 4, 3, D), array(4, 4, 3)
  image = np.einsum(
    'yh,xw,hwc->yxc',
    fitting._bilinear_edges(4, size[0]),
    fitting._bilinear_edges(4, size[1]),
    patch,
  )
  new = fitting.resize_patches(kernel, size=size)
  assert new.shape == (*size, 3, D)
  before = np.einsum('hwc,hwcd->d', patch, kernel)
  after = np.einsum('hwc,hwcd->d', image, new)
  np.testing.assert_allclose(after, before, atol=1e-4)


def test_smaller_patches_come_from_the_best_approximation():
  """Equation 3: nearest in the mean over images of white noise."""
  kernel = array(6, 6, 1, 1)
  new = fitting.resize_patches(kernel, size=(4, 4)).ravel()
  one = fitting._bilinear_edges(6, 4)
  matrix = np.kron(one, one)  # of the resize of an image
  best = np.linalg.lstsq(matrix.T, kernel.ravel(), rcond=None)[0]
  np.testing.assert_allclose(new, best, atol=1e-5)


def test_patches_of_the_same_size_are_unchanged():
  kernel = array(4, 4, 3, 2)
  new = fitting.resize_patches(kernel, size=(4, 4))
  np.testing.assert_allclose(new, kernel, atol=1e-6)


@pytest.mark.parametrize('pool', ['token', 'gap'])
def test_parameters_of_the_same_model_are_unchanged(pool):
  model = vit(pool=pool, representation_size=D)
  loaded, initial = (random_params(model, (8, 12)) for _ in range(2))
  fitted = fit(loaded, initial, grid=(2, 3))
  assert fitted.keys() == loaded.keys()
  for name in loaded:
    np.testing.assert_array_equal(fitted[name], loaded[name])


def test_positions_go_to_a_rectangular_grid_and_the_token_keeps_its_own():
  loaded = random_params(vit(), (8, 8))
  fitted = fit(loaded, random_params(vit(), (12, 16)), grid=(3, 4))
  old, new = loaded['pos_embed'][0], fitted['pos_embed'][0]
  np.testing.assert_array_equal(new[0], old[0])
  zoomed = scipy.ndimage.zoom(old[1:].reshape(2, 2, D), (1.5, 2, 1), order=1)
  np.testing.assert_allclose(new[1:].reshape(3, 4, D), zoomed, atol=1e-6)


def test_positions_come_from_a_rectangular_grid_that_is_given():
  loaded = random_params(vit(), (8, 16))
  initial = random_params(vit(), (8, 8))
  fitted = fit(loaded, initial, grid=(2, 2), loaded_grid=(2, 4))
  old = loaded['pos_embed'][0, 1:].reshape(2, 4, D)
  zoomed = scipy.ndimage.zoom(old, (1, 0.5, 1), order=1)
  new = fitted['pos_embed'][0, 1:].reshape(2, 2, D)
  np.testing.assert_allclose(new, zoomed, atol=1e-6)


@pytest.mark.parametrize(
  ('size', 'grid', 'given'),
  [
    ((8, 12), (2, 2), None),  # 6 positions: neither a square nor the model's
    ((24, 24), (4, 9), None),  # 36 positions: a square or the model's
    ((8, 16), (2, 2), (3, 4)),  # not of 8 positions
  ],
)
def test_a_grid_that_is_not_known_is_asked_for(size, grid, given):
  loaded = random_params(vit(), size)
  initial = random_params(vit(), (4 * grid[0], 4 * grid[1]))
  with pytest.raises(ValueError, match='loaded_grid='):
    fit(loaded, initial, grid=grid, loaded_grid=given)


def test_without_a_class_token_its_position_is_left_out():
  loaded = random_params(vit(), (8, 8))
  fitted = fit(loaded, random_params(vit(pool='gap'), (8, 8)), grid=(2, 2))
  assert 'cls' not in fitted
  expected = loaded['pos_embed'][:, 1:]
  np.testing.assert_array_equal(fitted['pos_embed'], expected)


def test_a_vit_becomes_a_deit_and_the_reverse():
  """Positions of tokens and patches stay with their own."""
  fields = dict(patch_size=4, width=D, depth=1, mlp_dim=8, num_heads=2)
  distilled = random_params(DeiT(**fields, num_classes=5), (8, 8))
  plain = random_params(vit(), (8, 8))
  back = fit(distilled, plain, grid=(2, 2))
  kept = [0, 2, 3, 4, 5]
  positions = distilled['pos_embed']
  np.testing.assert_array_equal(back['pos_embed'], positions[:, kept])
  for name in ('cls', 'head/kernel'):
    np.testing.assert_array_equal(back[name], distilled[name])
  new = fit(plain, distilled, grid=(2, 2), head='new')
  np.testing.assert_array_equal(new['pos_embed'][:, kept], plain['pos_embed'])
  np.testing.assert_array_equal(new['pos_embed'][:, 1], positions[:, 1])
  for name in ('dist', 'head/kernel', 'head_dist/kernel'):
    np.testing.assert_array_equal(new[name], distilled[name])


def test_a_new_class_token_stands_where_it_did():
  loaded = random_params(vit(pool='gap'), (8, 8))
  initial = random_params(vit(), (8, 8))
  fitted = fit(loaded, initial, grid=(2, 2))
  np.testing.assert_array_equal(fitted['cls'], initial['cls'])
  expected = np.concatenate(
    [initial['pos_embed'][:, :1], loaded['pos_embed']], axis=1
  )
  np.testing.assert_array_equal(fitted['pos_embed'], expected)


@pytest.mark.parametrize('grid', [(2, 2), (2, 3), (2, 5)])
@pytest.mark.parametrize('given', [True, False])
def test_a_class_token_without_a_position_is_put_at_zero(grid, given):
  """As in DeiT III."""
  size = (4 * grid[0], 4 * grid[1])
  loaded = random_params(vit(), size)
  expected = loaded['pos_embed'][:, 1:]
  loaded['pos_embed'] = expected
  fitted = fit(
    loaded,
    random_params(vit(), size),
    grid=grid,
    loaded_grid=grid if given else None,
  )
  assert not fitted['pos_embed'][:, 0].any()
  np.testing.assert_array_equal(fitted['pos_embed'][:, 1:], expected)


@pytest.mark.parametrize('grid', [(3, 5), (1, 3)])
def test_a_square_number_of_positions_may_be_a_rectangle_and_a_token(grid):
  """16 or 4 of them, that of the class token included."""
  size = (4 * grid[0], 4 * grid[1])
  loaded = random_params(vit(), size)
  fitted = fit(loaded, random_params(vit(), size), grid=grid)
  np.testing.assert_array_equal(fitted['pos_embed'], loaded['pos_embed'])


def test_positions_of_a_square_without_the_token_are_resampled():
  loaded = random_params(vit(), (16, 16))
  loaded['pos_embed'] = loaded['pos_embed'][:, 1:]
  fitted = fit(loaded, random_params(vit(), (8, 8)), grid=(2, 2))
  old = loaded['pos_embed'][0].reshape(4, 4, D)
  zoomed = scipy.ndimage.zoom(old, (0.5, 0.5, 1), order=1)
  new = fitted['pos_embed'][0]
  assert not new[0].any()
  np.testing.assert_allclose(new[1:].reshape(2, 2, D), zoomed, atol=1e-6)


def test_a_head_of_other_classes_is_new():
  loaded = random_params(vit(num_classes=7), (8, 8))
  initial = random_params(vit(), (8, 8))
  fitted = fit(loaded, initial, grid=(2, 2))
  np.testing.assert_array_equal(fitted['head/kernel'], initial['head/kernel'])
  np.testing.assert_array_equal(fitted['head/bias'], initial['head/bias'])


@pytest.mark.parametrize(
  ('head', 'kept'), [('auto', 1), ('keep', 1), ('new', 0)]
)
def test_a_head_of_the_same_classes_is_kept_unless_a_new_one_is_asked(
  head, kept
):
  both = loaded, initial = [random_params(vit(), (8, 8)) for _ in range(2)]
  fitted = fit(loaded, initial, grid=(2, 2), head=head)
  expected = both[1 - kept]['head/kernel']
  np.testing.assert_array_equal(fitted['head/kernel'], expected)


def test_a_slice_of_the_head_keeps_these_classes_in_this_order():
  loaded = random_params(vit(num_classes=9), (8, 8))
  initial = random_params(vit(num_classes=3), (8, 8))
  options = dict(grid=(2, 2), head='slice', classes=(7, 0, 4))
  fitted = fit(loaded, initial, **options)
  image = array(1, 8, 8, 3)
  every = logits(vit(num_classes=9), loaded, image)
  some = logits(vit(num_classes=3), fitted, image)
  np.testing.assert_allclose(some, every[:, [7, 0, 4]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(head='keep'), r'- head/kernel \(16, 9\)\n\+ head/kernel \(16, 5\)'),
    (dict(head='old'), "Unknown head: 'old'"),
    (dict(head='slice'), "Classes go with head='slice'"),
    (dict(classes=(1,)), "Classes go with head='slice'"),
    (dict(head='slice', classes=(1, 2, 3, 4, 9)), 'from 0 to 8'),
    (dict(resample='cubic'), "Unknown resample: 'cubic'"),
  ],
)
def test_options_that_do_not_fit_are_named(options, message):
  loaded = random_params(vit(num_classes=9), (8, 8))
  with pytest.raises(ValueError, match=message):
    fit(loaded, random_params(vit(), (12, 12)), grid=(3, 3), **options)


def test_a_head_of_zeros_cannot_be_kept():
  loaded = random_params(vit(), (8, 8))
  initial = dict(loaded)
  loaded['head/kernel'] = np.zeros_like(loaded['head/kernel'])
  with pytest.raises(ValueError, match='head of this checkpoint is zeros'):
    fit(loaded, initial, grid=(2, 2), head='keep')


def test_the_layer_before_the_head_is_left_out_together_with_the_head():
  loaded = random_params(vit(representation_size=D), (8, 8))
  initial = random_params(vit(), (8, 8))
  fitted = fit(loaded, initial, grid=(2, 2))
  np.testing.assert_array_equal(fitted['head/kernel'], initial['head/kernel'])
  with pytest.raises(ValueError, match='representation_size=16'):
    fit(loaded, initial, grid=(2, 2), head='keep')


def test_a_model_without_a_head_takes_none():
  loaded = random_params(vit(), (8, 8))
  fitted = fit(
    loaded, random_params(vit(num_classes=None), (8, 8)), grid=(2, 2)
  )
  assert not [name for name in fitted if name.startswith('head')]


def test_smaller_patches_take_a_finer_grid_along():
  loaded = random_params(vit(), (8, 8))
  model = vit(patch_size=2)
  fitted = fit(loaded, random_params(model, (8, 8)), grid=(4, 4))
  assert fitted['patch_embed/proj/kernel'].shape == (2, 2, 3, D)
  assert fitted['pos_embed'].shape == (1, 17, D)


def test_what_does_not_fit_is_one_error_that_reads_like_a_diff():
  loaded = random_params(vit(depth=2, mlp_dim=12), (8, 8))
  initial = random_params(vit(layer_scale=0.1), (8, 8))
  with pytest.raises(ValueError) as caught:
    fit(loaded, initial, grid=(2, 2))
  lines = str(caught.value).splitlines()
  assert '- block_0/mlp/fc1/kernel (16, 12)' in lines
  assert '+ block_0/mlp/fc1/kernel (16, 8)' in lines
  assert '+ block_0/scale1/scale (16,)' in lines
  assert '- block_1/norm1/scale (16,)' in lines
  assert not any('head' in line for line in lines)


def test_a_long_diff_is_cut_short_and_says_so():
  loaded = {f'block_{i}/x': array(1) for i in range(50)}
  with pytest.raises(ValueError, match=r'\.\.\. and 10 lines more'):
    fitting.check_same(loaded, {})


def swin(window_size):
  return Swin(D, (1, 1), (2, 2), window_size, num_classes=5)


def pvt():
  stages = dict(widths=(D, D), depths=(1, 1), num_heads=(2, 2))
  return PVT(**stages, mlp_ratios=(1, 1), reductions=(2, 1), num_classes=5)


@pytest.mark.parametrize('resample', ['bilinear', 'bicubic'])
def test_every_stage_of_a_pvt_has_positions_of_its_own(resample):
  loaded, initial = (
    random_params(pvt(), size) for size in ((16, 16), (28, 44))
  )
  fitted = fit(loaded, initial, grid=(3, 5), resample=resample)
  resized = functools.partial(fitting.resample_grid, method=resample)
  old, new = loaded['stage_0/pos_embed'], fitted['stage_0/pos_embed']
  np.testing.assert_array_equal(new[0], resized(old[0], grid=(7, 11)))
  old, new = loaded['stage_1/pos_embed'][0], fitted['stage_1/pos_embed'][0]
  np.testing.assert_array_equal(new[0], old[0])
  expected = resized(old[1:].reshape(2, 2, D), grid=(3, 5)).reshape(15, D)
  np.testing.assert_array_equal(new[1:], expected)
  name = 'stage_0/patch_embed/proj/kernel'
  np.testing.assert_array_equal(fitted[name], loaded[name])
  assert logits(pvt(), fitted, array(1, 28, 44, 3)).shape == (1, 5)


def test_a_pvt_for_images_of_the_same_size_is_unchanged():
  loaded, initial = (random_params(pvt(), (16, 24)) for _ in range(2))
  fitted = fit(loaded, initial, grid=(2, 3))
  assert fitted.keys() == loaded.keys()
  for name in loaded:
    np.testing.assert_array_equal(fitted[name], loaded[name])


def test_biases_of_other_windows_are_resampled():
  loaded = random_params(swin(2), (16, 16))
  initial = random_params(swin(3), (24, 24))
  fitted = fit(loaded, initial, grid=(3, 3))
  name = 'stage_1/block_0/position_bias/table'
  expected = fitting.resize_bias_table(loaded[name], size=(5, 5))
  np.testing.assert_array_equal(fitted[name], expected)
  assert expected.shape == (5, 5, 2)
  # The middle stays, and what is the same on both sides stays so.
  symmetric = loaded[name] + loaded[name][::-1, ::-1]
  larger = fitting.resize_bias_table(symmetric, size=(5, 5))
  np.testing.assert_allclose(larger, larger[::-1, ::-1], atol=1e-6)
  np.testing.assert_allclose(larger[2, 2], symmetric[1, 1], atol=1e-6)


def test_biases_of_the_same_windows_are_unchanged():
  table = array(5, 5, 2)
  assert fitting.resize_bias_table(table, size=(5, 5)) is table


def test_the_type_is_that_of_the_model():
  loaded = random_params(vit(), (8, 8))
  initial = {k: v.astype(np.float16) for k, v in loaded.items()}
  fitted = fit(loaded, initial, grid=(2, 2))
  assert all(x.dtype == np.float16 for x in fitted.values())


def mixer(token_dim):
  return MlpMixer(4, D, 2, token_dim=token_dim, channel_dim=8, num_classes=5)


def test_a_larger_mixer_sees_each_part_of_the_image_as_the_small_one_did():
  small, large = mixer(6), mixer(24)
  loaded = random_params(small, (12, 8))
  fitted = fit(loaded, random_params(large, (24, 16)), grid=(6, 4))
  image = array(1, 24, 16, 3)
  parts = np.concatenate(
    [image[:, y : y + 12, x : x + 8] for y in (0, 12) for x in (0, 8)]
  )
  whole = large.apply({'params': unflatten(fitted)}, jnp.asarray(image))
  each = small.apply({'params': unflatten(loaded)}, jnp.asarray(parts))
  maps, map_of_parts = whole.pyramid[0], each.pyramid[0]
  np.testing.assert_allclose(maps[0, :3, :2], map_of_parts[0], atol=2e-4)
  np.testing.assert_allclose(maps[0, :3, 2:], map_of_parts[1], atol=2e-4)
  np.testing.assert_allclose(maps[0, 3:, :2], map_of_parts[2], atol=2e-4)


def test_a_larger_mixer_needs_a_wider_token_mixing():
  loaded = random_params(mixer(6), (8, 8))
  with pytest.raises(ValueError, match='token_dim=24, not 6'):
    fit(loaded, random_params(mixer(6), (16, 16)), grid=(4, 4))


def test_a_mixer_at_a_size_that_is_no_multiple_does_not_fit():
  loaded = random_params(mixer(6), (8, 8))
  with pytest.raises(
    ValueError, match=r'- block_0/token_mlp/fc1/kernel \(4, 6'
  ):
    fit(loaded, random_params(mixer(6), (12, 8)), grid=(3, 2))
