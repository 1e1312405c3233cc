"""Every experiment: its text, its model, its durations, and one step of it."""

import functools
import operator
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import (
  augreg,
  augreg_pretrain,
  backbones,
  baseline,
  cifar10,
  coatnet,
  common,
  convnext,
  cpvt,
  cvt,
  deit,
  deit3,
  dinat,
  distill,
  efficientnet,
  finetune,
  from_scratch,
  lion,
  mixer,
  mobile_former,
  mobilevit,
  mobilevit_v2,
  pvt,
  quickstart,
  resnet,
  sam,
  scaling,
  scaling_laws,
  swin,
  t2t_vit,
  tnt,
  twins,
  vit,
)
from vit_jax import durations, models, optim, train
from vit_jax.experiment import build, dummy_batch
from vit_jax.ops import augment
from vit_jax.optim import masks
from vit_jax.step import make_init, make_step

CONFIGS = pathlib.Path(quickstart.__file__).parent
GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'configs'
FILES = {
  'augreg': augreg,
  'augreg_pretrain': augreg_pretrain,
  'backbones': backbones,
  'baseline': baseline,
  'cifar10': cifar10,
  'coatnet': coatnet,
  'convnext': convnext,
  'cpvt': cpvt,
  'cvt': cvt,
  'deit': deit,
  'deit3': deit3,
  'dinat': dinat,
  'distill': distill,
  'efficientnet': efficientnet,
  'finetune': finetune,
  'from_scratch': from_scratch,
  'lion': lion,
  'mixer': mixer,
  'mobile_former': mobile_former,
  'mobilevit': mobilevit,
  'mobilevit_v2': mobilevit_v2,
  'pvt': pvt,
  'quickstart': quickstart,
  'resnet': resnet,
  'sam': sam,
  'scaling': scaling,
  'scaling_laws': scaling_laws,
  'swin': swin,
  't2t_vit': t2t_vit,
  'tnt': tnt,
  'twins': twins,
  'vit': vit,
}
# FILE or FILE:ARG -> parameters of its model for images of 224 pixels (16 for
# digits) and 1,000 classes (10 for digits). As google-research/
# vision_transformer asserts them, with layer scale those of timm and one more
# position; the others follow from the dimensions.
EXPERIMENTS = {
  'quickstart': 204_874,
  'augreg:B_16': 86_567_656,
  'augreg:R26_S_32': 36_431_912,
  'augreg:B_16,cifar10': 86_567_656,
  'augreg:B_16,cifar100,size=224,lr=0.003,steps=2500': 86_567_656,
  'augreg_pretrain:B_16,aug=strong2,wd=0.03,reg=on': 87_158_248,
  'augreg_pretrain:R50_L_32,data=i21k': 328_994_856,
  'cifar10:plain': 327_592,
  'cifar10:strong,scale=full,seed=1': 8_180_712,
  'cifar10:augment,optimizer=lamb': 327_592,
  'cifar10:augment,optimizer=muon': 327_592,
  'cifar10:augment,optimizer=schedule_free': 327_592,
  'backbones:mobilevit': 331_080,
  'backbones:swin,data=cifar10,seed=1': 200_734,
  'baseline': 22_122_472,
  'coatnet:0': 24_446_228,
  'convnext:T': 28_589_128,
  'convnext:iso_S': 22_308_712,
  'convnext:XL,22k': 350_196_968,
  'convnext:B,finetune_384,init=b.npz': 88_591_464,
  'convnext:XL,22k_finetune_384': 350_196_968,
  'cpvt:S_16': 21_978_856,
  'cpvt:Ti_16,pool=gap,num_pegs=5': 5_689_000,
  'cvt:21': 31_622_696,
  'deit:Ti_16': 5_717_416,
  'deit:S_16,distill': 22_436_432,
  'deit3:S_16': 22_059_880,
  'deit3:B_16,finetune,init=b.npz': 86_586_088,
  'deit3:H_14,21k': 632_127_720,
  'deit3:L_16,21k_finetune,init=l.npz': 304_375_784,
  'dinat:nat_S': 50_743_297,
  'dinat:s_T': 28_288_354,
  'distill:50': 25_557_032,
  'efficientnet:B0': 5_288_548,
  'vit:b16,cifar10': 86_567_656,
  'vit:r50_b16,imagenet2012': 98_659_112,
  'finetune:sam/ViT-B_16,size=384': 86_567_656,
  'finetune:deit/deit3_small_patch16_224.fb_in1k': 22_059_880,
  'mixer:B_16': 59_880_472,
  'mixer:B_16,cifar10': 59_880_472,
  'mobile_former:294M': 11_422_648,
  'mobile_former:26M': 3_232_788,
  'mobilevit:XXS': 1_272_024,
  'mobilevit_v2:0.5': 1_370_593,
  'pvt:S': 24_485_864,
  'pvt:B2_Li': 22_553_512,
  'resnet:50': 25_557_032,
  'resnet:18,A3': 11_689_512,
  'sam:B_16': 86_567_656,
  'sam:Mixer_B_16': 59_880_472,
  'sam:B_32,gsam': 88_222_696,
  'lion:B_16': 86_567_656,
  'scaling:G_14': 1_882_797_416,
  'scaling:s_28': 6_404_328,
  'scaling_laws:digits,32x2,part=30,steps=100': 27_882,
  'scaling_laws:paper,S_16,part=10,steps=20000': 23_823_976,
  'swin:T_7': 28_288_354,
  'swin:B_16': 87_918_816,
  't2t_vit:14': 21_465_806,
  't2t_vit:t_24,size=384': 64_000_590,
  'tnt:S': 23_768_584,
  'twins:S,drop_path=0.2': 24_106_216,
  'from_scratch:S_16': 22_122_472,
  'from_scratch:Ti_4,size=32': 5_578_216,
}
# One of each kind takes its step by default, all the others in `slow`.
QUICK = {
  'quickstart',
  'augreg:R26_S_32',
  'cifar10:augment,optimizer=schedule_free',
  'deit:S_16,distill',
  'efficientnet:B0',
  'sam:B_32,gsam',
  'scaling:G_14',
  'swin:B_16',
}
DIGITS = ('quickstart', 'scaling_laws:digits')
# FILE:ARG of a sweep -> how many runs it has.
SWEEPS = {
  'augreg:B_16': 12,
  'augreg:B_16,cifar100': 12,
  'augreg:Ti_16,imagenet2012': 4,
  'augreg_pretrain:B_16': 28,
  'augreg_pretrain:R26_S_32,data=i21k': 28,
  'backbones:cifar10': 22,
  'backbones:digits': 22,
  'cifar10:full': 12,
  'scaling_laws:digits': 24,
  'scaling_laws:paper': 352,
}
every_experiment = pytest.mark.parametrize('name', EXPERIMENTS)


def get_config(name):
  file, _, arg = name.partition(':')
  return FILES[file].get_config(*([arg] if arg else []))


def golden_name(name):
  return name.replace(':', '_').replace('/', '_')


def text(config):
  """`key: value` of every leaf, sorted."""
  lines = []

  def add(value, path):
    if isinstance(value, dict) and value:
      for key, child in value.items():
        add(child, [*path, key])
    else:
      lines.append(f'{".".join(path)}: {value!r}\n')

  add(config.to_dict(), [])
  return ''.join(sorted(lines))


def small_model(model):
  """The fields of a model, spelt out and shrunk; what is special stays."""
  fields = model.to_dict()
  name = fields.pop('name')
  if 'variant' in fields:
    fields = models.MODELS[name].variant(fields.pop('variant')) | fields
  small = {'width': 16, 'depth': 1, 'num_heads': 2, 'mlp_dim': 16}
  small |= {'token_dim': 8, 'channel_dim': 16, 'num_pegs': 1}
  if 'depths' in fields:
    small |= {'depths': (1,), 'num_heads': (2,), 'dilations': (1,)}
    small |= {'widths': (16,), 'mlp_ratios': (2,), 'reductions': (1,)}
    small |= {'layout': 'C', 'strides': (2,)}
  if 'residuals' in fields:
    small |= {'residuals': (), 'token_widths': (16,), 'feature_width': 16}
  if 'blocks' in fields:
    small |= {'blocks': ((16, 2, 2), (16, 2, 1)), 'feature_width': 16}
  fields |= {key: value for key, value in small.items() if key in fields}
  if fields.get('resnet'):
    fields['resnet'] = (1,)
  return {'name': name, **fields}


def shrink(config, images):
  """The same experiment with one step, a small model and 16 images."""
  config.duration = '1 steps'
  config.batch_size = config.eval_batch_size = 8
  config.model = small_model(config.model)
  config.init.params = ''
  if 'teacher' in config.objective:
    teacher = small_model(config.objective.teacher)
    config.objective.teacher = teacher
    config.init.teacher = 'random'
  for key in {'warmup', 'cooldown'} & set(config.optim.schedule):
    config.optim.schedule[key] = '0 steps'
  if 'sam' in config.optim:
    config.optim.sam.group_size = 4
  if 'learning_rate_mults' in config.optim:
    del config.optim.learning_rate_mults  # names blocks that are not there
  config.loader.num_threads = 0
  # They take long; a test of their own traces them all.
  config.augment = [op for op in config.augment if op['name'] == 'flip']
  if config.data.train.startswith('digits'):
    return
  config.data.train = images
  config.data.held_out = 0.25
  for evaluation in config.evals.values():
    evaluation.data = evaluation.data and images
  for key in ('transforms', 'preprocess'):
    config[key] = [dict(op, size=32) for op in config[key]]


@pytest.fixture(scope='module', autouse=True)
def compile_fast():
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  path = tmp_path_factory.mktemp('images') / 'random.npz'
  rng = np.random.default_rng(0)
  np.savez(
    path,
    image=rng.integers(256, size=(16, 40, 40, 3), dtype=np.uint8),
    label=np.arange(16) % 3,
    class_names=['cat', 'cow', 'dog'],
  )
  return str(path)


def test_every_file_is_tested():
  files = {path.stem for path in CONFIGS.glob('*.py')} - {'common', '__init__'}
  assert files == FILES.keys()
  assert files == {name.partition(':')[0] for name in EXPERIMENTS}


def test_no_golden_text_is_left_over():
  names = {path.stem for path in GOLDEN.glob('*')}
  assert names == {golden_name(name) for name in EXPERIMENTS}


@every_experiment
def test_the_experiment_is_what_it_was(name):
  golden = GOLDEN / f'{golden_name(name)}.txt'
  config = get_config(name)
  if os.environ.get('UPDATE_GOLDEN') == '1':
    golden.write_text(text(config))
  assert text(config) == golden.read_text()


@every_experiment
def test_the_model_is_that_of_the_paper(name):
  classes, size = (10, 16) if name.startswith(DIGITS) else (1000, 224)
  fields = {'num_classes': classes, **get_config(name).model.to_dict()}
  model = models.build(**fields)
  image = jnp.zeros((1, size, size, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  assert count == EXPERIMENTS[name]


@every_experiment
def test_durations_become_steps(name):
  config = get_config(name)
  units = {'batch_size': config.batch_size, 'num_examples': 1_281_167}
  total = durations.steps(config.duration, **units)
  resolved = durations.resolve(config.to_dict(), total_steps=total, **units)
  assert resolved['duration'] == total > 0
  assert 0 <= resolved['optim']['schedule']['warmup'] < total
  for every in (
    resolved['eval_every'],
    resolved['log_every'],
    resolved['checkpoint']['every'],
  ):
    assert 0 < every <= total


def test_every_augmentation_can_be_applied():
  configs = [get_config(name).to_dict() for name in EXPERIMENTS]
  for config in {str(config['augment']): config for config in configs}.values():
    apply = augment.pipeline(config['augment'], **config['normalize'])
    image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
    out = jax.eval_shape(apply, jax.random.key(0), image)
    assert out.shape == image.shape and out.dtype == jnp.float32


@every_experiment
def test_a_step_can_be_traced(name, images):
  config = get_config(name)
  shrink(config, images)
  experiment = build(config.to_dict())
  ts = jax.eval_shape(make_init(experiment))
  batch = {
    key: jax.ShapeDtypeStruct((config.batch_size, *x.shape[1:]), x.dtype)
    for key, x in dummy_batch(experiment.image_shape).items()
  }
  after, scalars = jax.eval_shape(make_step(experiment), ts, batch)
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, ts)
  assert scalars['loss'].shape == ()


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in EXPERIMENTS
  ],
)
def test_one_step_is_taken_and_judged(name, images, tmp_path, monkeypatch):
  # Slow from eight devices, and the same for all.
  monkeypatch.setattr(train, 'save', lambda *_: None)
  config = get_config(name)
  sets = set(config.evals)
  shrink(config, images)
  results = train.train(config, tmp_path)
  assert np.isfinite(results['train/loss'])
  assert {key.split('/')[0] for key in results if '/' in key} == (
    sets | {'train'}
  )
  # The best checkpoint is chosen by a number that exists.
  assert not config.checkpoint.best or config.checkpoint.best in results


@pytest.mark.parametrize('name', SWEEPS)
def test_a_sweep_is_of_different_experiments(name):
  file, _, arg = name.partition(':')
  runs = FILES[file].sweep(arg)
  assert len({text(FILES[file].get_config(run)) for run in runs}) == len(runs)
  assert len(runs) == SWEEPS[name]


def test_a_decay_of_0_1_at_a_rate_of_1e_3_is_what_big_vision_calls_1e_4():
  options = get_config('augreg_pretrain:B_16,wd=0.1').optim.to_dict()
  options['schedule'] = {'name': 'constant'}
  rng = np.random.default_rng(0)
  params = {'kernel': rng.normal(size=(3, 4)), 'bias': rng.normal(size=4)}
  params = {'fc': {k: x.astype(np.float32) for k, x in params.items()}}
  grads = jax.tree.map(lambda x: np.float32(0.1) * np.sign(x), params)
  tx = optim.build(params, total_steps=10, **options).tx
  updates, _ = tx.update(grads, tx.init(params), params)
  # The first step of Adam is the sign of the gradient.
  for name, decay in {'kernel': 1e-4, 'bias': 0.0}.items():
    param = params['fc'][name]
    expected = -(1e-3 * np.sign(param) + decay * param)
    np.testing.assert_allclose(updates['fc'][name], expected, rtol=1e-5)


def test_three_blocks_of_convnext_are_a_layer():
  config = get_config('convnext:S,22k_finetune')
  model = models.build(**config.model.to_dict(), num_classes=1000)
  image = jnp.zeros((1, 64, 64, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  table = config.optim.learning_rate_mults
  mults = masks.match(params, table=table, what='learning_rate_mults')
  # Layers 0 to 13, as in the authors' program.
  for path, layer in {
    'patch_norm/scale': 0,
    'stage_0/block_2/scale/scale': 1,
    'stage_1/norm/bias': 2,
    'stage_2/downsample/kernel': 3,
    'stage_2/block_2/depthwise/kernel': 3,
    'stage_2/block_3/norm/scale': 4,
    'stage_2/block_26/mlp/fc1/bias': 11,
    'stage_3/downsample/bias': 12,
    'stage_3/block_1/depthwise/bias': 12,
    'norm/scale': 13,
    'head/kernel': 13,
  }.items():
    mult = functools.reduce(operator.getitem, path.split('/'), mults)
    assert mult == pytest.approx(0.8 ** (13 - layer)), path


@pytest.mark.parametrize(
  ('steps', 'cooldown'), [(20_000, 10_000), (60_000, 10_000), (120_000, 50_000)]
)
def test_long_runs_of_scaling_cool_down_for_longer(steps, cooldown):
  schedule = get_config(f'scaling:B_16,steps={steps}').optim.schedule
  assert schedule.cooldown == f'{cooldown}_'.replace('000_', '_000 steps')


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('augreg:B_16,steps=700', 'duration of AugReg: 700.*Known: 500, 2500'),
    ('augreg_pretrain:B_16,aug=light0', "aug: 'light0'.*'light1'"),
    ('augreg_pretrain:B_16,data=jft', "data of AugReg: 'jft'.*i1k, i21k"),
    ('augreg_pretrain:B_16,reg=yes', "reg: 'yes'.*off, on"),
    ('augreg_pretrain:H_14', "model of AugReg: 'H_14'"),
    ('augreg_pretrain:R50_L_32', 'Nobody recommends .*give aug=none|light1'),
    ('deit:S_16,distil', "kind of DeiT: 'distil'. Did you mean 'distill'"),
    ('distill:51', "model of ResNet: '51'"),
    ('distill:50,teacher=me', "No run lies in 'me', and the catalogue"),
    ('backbones:vitt', "backbone: 'vitt'. Did you mean 'vit'"),
    ('backbones:vit,data=mnist', "data: 'mnist'.*digits, cifar10"),
    ('coatnet:4', "model of CoAtNet: '4'.*Known: 0, 1, 2, 3"),
    ('convnext:iso_T', "model of ConvNeXt in .*'iso_T'.*'iso_S'"),
    ('convnext:T,finetune_384', "stage 'finetune_384': 'T'.*Known: B, L"),
    ('convnext:T,21k', "stage of ConvNeXt: '21k'. Did you mean '22k'"),
    ('cpvt:L_16', "model of CPVT: 'L_16'.*Ti_16, S_16, B_16"),
    ('cvt:W24', "model of CvT: 'W24'.*Known: 13, 21"),
    ('deit:L_16', "model of DeiT: 'L_16'.*Ti_16, S_16, B_16"),
    ('dinat:L', "model of DiNAT: 'L'.*Known: nat_M"),
    ('efficientnet:B9', "model of EfficientNet: 'B9'. Did you mean"),
    ('deit3:S_16,finetune', "stage 'finetune': 'S_16'.*B_16, L_16, H_14"),
    ('deit3:B_16,finetune', 'starts from a checkpoint: add init=CHECKPOINT'),
    ('deit3:B_16,22k', "stage of DeiT III: '22k'. Did you mean '21k'"),
    ('resnet:51', "model of ResNet: '51'. Did you mean"),
    ('resnet:50,A1', "recipe of ResNet: 'A1'.*A2"),
    ('scaling_laws:jft,S_16', "setting: 'jft'.*digits, paper"),
    ('scaling_laws:digits,S_16', "size: 'S_16'"),
    ('augreg:C_16', "no model 'C_16'; there are .*'B_16'"),
    ('augreg:B_16,cifar', "data set 'cifar'; there are .*'cifar10'"),
    ('vit:b61,cifar10', "model 'b61'; there are .*'b16'"),
    ('vit', "'model' is missing: write --config=FILE.py:model"),
    ('finetune:augreg/B16', "Did you mean.*'augreg/B_16'"),
    ('mobile_former:300M', "model of Mobile-Former: '300M'. Did you mean"),
    ('mobilevit:M', "model of MobileViT: 'M'.*XXS, XS, S"),
    ('mobilevit_v2:1', "model of MobileViTv2: '1'. Did you mean '1.5'"),
    ('mixer:S_16,cifar10', r"checkpoint of 'S_16'; there are .*'B_16'"),
    ('from_scratch:S_16,zise=32', "Unknown 'zise' .*; there are .*'size'"),
    ('from_scratch:S_16,size=big', "size='big' is no int, such as 224"),
    ('from_scratch:S_16,64,cifar10', 'more values than'),
    ('t2t_vit:t_7', "model of T2T-ViT: 't_7'.*Known: 7, 10"),
    ('pvt:B6', "model of PVT: 'B6'. Did you mean 'B5'"),
    ('tnt:L', "model of TNT: 'L'.*Ti, S, B"),
    ('twins:T', "model of Twins-PCPVT: 'T'.*S, B, L"),
    ('swin:T_9', "model of Swin: 'T_9'. Did you mean.*'T_7'"),
    ('sam:C_16', "No experiment C_16,sam; there are .*'B_16'"),
    ('sam:B_16,asam', "there are .*'gsam'"),
    ('scaling', "'model' is missing"),
  ],
)
def test_a_bad_argument_is_answered_by_the_known(name, message):
  with pytest.raises(ValueError, match=message):
    get_config(name)


def test_arguments_go_by_place_or_by_name():
  expected = {'model': 'B_16', 'data': 'cifar10', 'size': 224}
  for arg in ('B_16,cifar10,224', 'B_16,size=224,data=cifar10'):
    assert common.parse(arg, 'model', data='', size=384) == expected


@pytest.mark.parametrize(
  ('name', 'spelt'),
  [
    ('B_16', 'B/16'),
    ('R26_S_32', 'R26+S/32'),
    ('R_Ti_16', 'R+Ti/16'),
    ('R50+B/16', 'R50+B/16'),
  ],
)
def test_variants_are_spelt_as_in_papers(name, spelt):
  assert common.variant(name) == spelt
