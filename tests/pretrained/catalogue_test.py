import functools

import jax
import jax.numpy as jnp
import pytest

from vit_jax import data, models
from vit_jax.pretrained import augreg, catalogue, families
from vit_jax.pretrained.entry import NUM_CLASSES

ENTRIES = families.entries()
BEST = 'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0'
TUNED = f'{BEST}--imagenet2012-steps_20k-lr_0.03-res_384'


@functools.cache
def number_of_classes(name, variant, side, **fields):
  """Of the head; many files are of the same model."""
  model = models.build(name, variant, **fields)
  if hasattr(model, 'scan'):  # it is traced faster
    model = model.clone(scan=True)
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  return shapes['head']['kernel'].shape[1]


@pytest.mark.parametrize('name', ENTRIES)
def test_every_entry_can_be_built_and_prepared(name):
  entry = ENTRIES[name]
  number = number_of_classes(
    entry.model,
    entry.variant,
    entry.preprocessing.size,
    num_classes=NUM_CLASSES[entry.labels],
    **entry.overrides,
  )
  assert number in (1000, 21841, 21843)
  data.build_transforms(entry.preprocessing.ops())
  assert entry.location.startswith(('gs://', 'hf://', 'https://'))
  assert entry.source


def test_no_two_entries_are_the_same_file():
  assert len({entry.location for entry in ENTRIES.values()}) == len(ENTRIES)


def test_the_size_of_a_file_tells_that_the_layer_before_the_head_is_in_it():
  """393.69 MiB, from the listing of the bucket."""
  entry = catalogue.find('imagenet21k/ViT-B_16')
  model = models.build(
    entry.model, entry.variant, num_classes=21843, **entry.overrides
  )
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)
  number = sum(x.size for x in jax.tree.leaves(shapes))
  assert number * 4 / 2**20 == pytest.approx(393.69, rel=2e-4)


def test_the_short_name_is_the_recommended_file():
  entry = catalogue.find('augreg/B_16')
  assert entry.location == f'gs://vit_models/augreg/{BEST}.npz'
  assert (entry.labels, entry.preprocessing.size) == ('imagenet21k', 224)
  tuned = catalogue.find('augreg/B_16-imagenet2012-384')
  assert tuned.location == f'gs://vit_models/augreg/{TUNED}.npz'
  assert (tuned.labels, tuned.preprocessing.size) == ('imagenet1k', 384)
  assert tuned.accuracy == 85.49


@pytest.mark.parametrize('name', [TUNED, f'{TUNED}.npz', f'augreg/{TUNED}.npz'])
def test_a_whole_file_name_is_an_entry(name):
  entry = catalogue.find(name)
  assert entry.location == f'gs://vit_models/augreg/{TUNED}.npz'
  assert entry.variant == 'B/16'


@pytest.mark.parametrize(
  'name',
  [
    BEST,
    TUNED,
    'R_Ti_16-i21k_30-30ep-lr_0.001-aug_light0-wd_0.03-do_0.1-sd_0.1'
    '--oxford_iiit_pet-steps_0k-lr_0.003-res_224',
    'R26_S_32-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1--kitti'
    '-steps_2k-lr_0.001-res_384',
  ],
)
def test_a_file_name_is_built_as_it_was_parsed(name):
  assert str(augreg.Name.parse(name)) == name


def test_the_parts_of_a_file_name_are_found():
  parsed = augreg.Name.parse(TUNED)
  assert parsed == augreg.Name(
    size='B_16',
    dataset='i21k',
    epochs='300',
    lr='0.001',
    aug='medium1',
    wd='0.1',
    do='0.0',
    sd='0.0',
    adapt_dataset='imagenet2012',
    adapt_steps='20',
    adapt_lr='0.03',
    adapt_resolution='384',
  )


@pytest.mark.parametrize(
  'name', ['B_16', BEST + '-x', BEST.replace('B_16', 'B_14'), BEST[:-7]]
)
def test_what_is_no_file_name_is_named(name):
  with pytest.raises(ValueError, match='is not a file name of AugReg'):
    augreg.Name.parse(name)


def test_the_light_augmentation_of_the_paper_is_light0_in_the_files():
  light = BEST.replace('medium1', 'light2')
  with pytest.raises(ValueError, match='not a file name'):
    augreg.Name.parse(light)
  assert augreg.Name.parse(light.replace('light2', 'light0')).aug == 'light0'


def test_an_unknown_name_is_told_the_nearest():
  with pytest.raises(ValueError, match="Did you mean.*'augreg/B_16'"):
    catalogue.find('augreg/B16')


def index(tmp_path, rows):
  path = tmp_path / 'index.csv'
  path.write_text('name,ds,final_val,filename\n' + '\n'.join(rows) + '\n')
  return path


def test_the_best_is_that_of_the_highest_upstream_validation(tmp_path):
  other = BEST.replace('medium1', 'none')
  path = index(
    tmp_path,
    [
      f'B/16,i21k,0.45,{other}',
      f'B/16,i21k,0.48,{BEST}',
      f'B/16,i21k,0.46,{other}',
      f'B/16,i1k,0.79,{other.replace("i21k", "i1k")}',
      f'B/32,i21k,0.99,{BEST.replace("B_16", "B_32")}',
    ],
  )
  rows = augreg.read_index(path)
  assert str(augreg.best(rows, size='B_16')) == BEST
  assert augreg.best(rows, size='B_16', dataset='i1k').dataset == 'i1k'
  with pytest.raises(ValueError, match="no model 'L_16'"):
    augreg.best(rows, size='L_16')


def test_a_file_that_is_not_the_index_is_named(tmp_path):
  path = tmp_path / 'index.csv'
  path.write_text('a,ds\n1,2\n')
  with pytest.raises(ValueError, match='no column filename, final_val'):
    augreg.read_index(path)


@pytest.mark.parametrize(
  ('pattern', 'found', 'not_found'),
  [
    ('B_16*', 'augreg/B_16', 'augreg/B_8'),
    ('B_16', 'sam/ViT-B_16', 'augreg/B_16-imagenet2012-384'),
    ('augreg/*', 'augreg/R_Ti_16', 'sam/ViT-B_16'),
    ('R50+ViT-*', 'imagenet21k/R50+ViT-L_32', 'imagenet21k/ViT-L_32'),
    ('convnext_iso*', 'convnext/convnext_iso_base_1k_224_ema', 'augreg/B_8'),
    ('deit3_*', 'deit/deit3_huge_patch14_224.fb_in1k', 'augreg/B_8'),
  ],
)
def test_entries_are_searched_by_pattern(pattern, found, not_found):
  names = [entry.name for entry in catalogue.search(pattern)]
  assert found in names and not_found not in names


@pytest.mark.parametrize(
  ('labels', 'first', 'last'),
  [
    ('cifar10', 'airplane', 'truck'),
    ('cifar100', 'apple', 'worm'),
    ('imagenet1k', 'n01440764', 'n15075141'),
    ('imagenet21k', 'n00004475', 'n15102894'),
  ],
)
def test_class_names_are_as_many_as_the_classes(labels, first, last):
  names = catalogue.class_names(labels)
  assert len(names) == NUM_CLASSES[labels]
  assert (names[0], names[-1]) == (first, last)


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('n01440764', 'tench, Tinca tinca'),
    ('n00004475', 'organism'),
    ('airplane', 'airplane'),
  ],
)
def test_a_class_is_called_by_words(name, words):
  assert catalogue.words(name) == words


def test_unknown_class_names_are_named():
  with pytest.raises(ValueError, match="'kitti'.*cifar10, cifar100"):
    catalogue.class_names('kitti')
