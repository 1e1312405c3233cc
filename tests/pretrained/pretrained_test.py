import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from vit_jax import pretrained
from vit_jax.models.swin import Swin
from vit_jax.models.swin_v2 import SwinV2
from vit_jax.models.vit import ViT
from vit_jax.pretrained import fetch, google_npz, torch_names

rng = np.random.default_rng(0)


def make(**fields):
  sizes = dict(patch_size=4, width=16, depth=2, mlp_dim=8, num_heads=2)
  return ViT(**(sizes | dict(num_classes=5) | fields))


def random_params(model, size=(8, 8)):
  image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


def same(ours, theirs):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))


def save_npz(path, params):
  foreign = google_npz.from_ours(pretrained.flatten(params))
  np.savez(path, **foreign)
  return str(path)


def initialize(params, **options):
  return pretrained.initialize({'params': params}, **options)['params']


def test_parameters_and_statistics_are_joined_and_split_again():
  variables = {
    'params': {'stem': {'norm': {'scale': np.ones(2), 'bias': np.ones(2)}}},
    'batch_stats': {'stem': {'norm': {'mean': np.zeros(2), 'var': np.ones(2)}}},
  }
  flat = pretrained.join(variables)
  assert set(flat) == {
    f'stem/norm/{k}' for k in ('scale', 'bias', 'mean', 'var')
  }
  same(pretrained.split(flat, like=variables), variables)


def test_flatten_and_unflatten_undo_each_other():
  params = random_params(make())
  flat = pretrained.flatten(params)
  assert 'block_1/attn/qkv/kernel' in flat
  same(pretrained.unflatten(flat), params)


def test_an_npz_file_initialises_the_model(tmp_path):
  params, initial = random_params(make()), random_params(make())
  source = save_npz(tmp_path / 'x.npz', params)
  same(initialize(initial, source=source, grid=(2, 2)), params)


@pytest.mark.parametrize('family', ['timm_vit', 'hf_vit'])
def test_a_safetensors_file_initialises_the_model(tmp_path, family):
  params, initial = random_params(make()), random_params(make())
  source = str(tmp_path / 'x.safetensors')
  flat = pretrained.flatten(params)
  foreign = torch_names.from_ours(flat, family=family)
  safetensors.numpy.save_file(foreign, source)
  same(initialize(initial, source=source, grid=(2, 2)), params)


@pytest.mark.parametrize('module', [Swin, SwinV2])
def test_stages_with_other_numbers_of_heads_are_initialised(tmp_path, module):
  model = module(8, (1, 1, 1), (2, 4, 8), 2, num_classes=5)
  params, initial = (random_params(model, size=(16, 16)) for _ in range(2))
  source = str(tmp_path / 'x.safetensors')
  flat = pretrained.flatten(params)
  family = 'timm_swin' if module is Swin else 'timm_swin_v2'
  foreign = torch_names.from_ours(flat, family=family)
  safetensors.numpy.save_file(foreign, source)
  same(initialize(initial, source=source, grid=(1, 1)), params)


def test_options_reach_the_fit(tmp_path):
  params = random_params(make(), size=(8, 16))
  source = save_npz(tmp_path / 'x.npz', params)
  initial = random_params(make(num_classes=2), size=(16, 8))
  fitted = initialize(
    initial,
    source=source,
    grid=(4, 2),
    loaded_grid=(2, 4),
    resample='bicubic',
    head='slice',
    classes=(3, 1),
  )
  expected = params['head']['kernel'][:, [3, 1]]
  np.testing.assert_array_equal(fitted['head']['kernel'], expected)


def test_what_does_not_fit_names_the_file(tmp_path):
  source = save_npz(tmp_path / 'x.npz', random_params(make(depth=3)))
  with pytest.raises(ValueError, match=r'x\.npz: The checkpoint does not fit'):
    initialize(random_params(make()), source=source, grid=(2, 2))


@pytest.fixture
def fetched(monkeypatch, tmp_path):
  """Takes the place of the network; notes the addresses."""
  path = save_npz(tmp_path / 'x.npz', random_params(make()))
  addresses = []

  def take(address, *, cache_dir=None):
    addresses.append((address, cache_dir))
    return pathlib.Path(path)

  monkeypatch.setattr(fetch, 'fetch', take)
  return addresses


NAME = 'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0'


@pytest.mark.parametrize(
  ('source', 'address'),
  [
    ('augreg/B_16', f'gs://vit_models/augreg/{NAME}.npz'),
    (NAME, f'gs://vit_models/augreg/{NAME}.npz'),
    (f'{NAME}.npz', f'gs://vit_models/augreg/{NAME}.npz'),
    ('gs://bucket/x.npz', 'gs://bucket/x.npz'),
    ('hf://owner/name', 'hf://owner/name'),
    ('https://host/x.npz', 'https://host/x.npz'),
  ],
)
def test_names_and_addresses_are_fetched(fetched, source, address):
  initial = random_params(make())
  initialize(initial, source=source, grid=(2, 2), cache_dir='there')
  assert fetched == [(address, 'there')]


@pytest.mark.parametrize('head', ['keep', 'slice'])
def test_a_head_that_was_zeroed_is_refused_before_anything_is_fetched(
  fetched, head
):
  with pytest.raises(ValueError, match='published with a head of zeros'):
    initialize(
      random_params(make()),
      source='imagenet21k/ViT-B_16',
      grid=(2, 2),
      head=head,
      classes=(1,) * (head == 'slice'),
    )
  assert fetched == []


@pytest.mark.parametrize('source', ['/no/x.npz', 'x.npz', './x', '~/x.pth'])
def test_a_file_that_is_not_there_says_where_files_are(source):
  with pytest.raises(ValueError, match='storage.googleapis.com.*init.params='):
    initialize({}, source=source, grid=(2, 2))


def test_a_name_that_is_not_known_says_the_nearest():
  with pytest.raises(ValueError, match="Did you mean.*'augreg/S_16'"):
    initialize({}, source='augreg/S16', grid=(2, 2))


def test_a_file_of_another_kind_is_named(tmp_path):
  np.savez(tmp_path / 'x.npz', weights=np.ones(3))
  with pytest.raises(ValueError, match=r'x\.npz'):
    initialize(
      random_params(make()), source=str(tmp_path / 'x.npz'), grid=(2, 2)
    )
