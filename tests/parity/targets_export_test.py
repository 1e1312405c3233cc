"""Exports with random weights, computed by the libraries that they are for."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.torch_models import zeros
from vit_jax import models
from vit_jax.ops import augment
from vit_jax.pretrained import join, split, torch_names
from vit_jax.pretrained.targets import Subject
from vit_jax.tools.work.export import export, with_positions

pytestmark = pytest.mark.parity

NORMALIZE = {'mean': [0.4, 0.5, 0.6], 'std': [0.2, 0.3, 0.25]}
SIZE = (16, 24)
VIT = dict(
  name='vit',
  patch_size=8,
  width=32,
  depth=2,
  mlp_dim=56,
  num_heads=4,
  num_classes=5,
)
MIXER = dict(
  name='mlp_mixer',
  patch_size=8,
  width=32,
  depth=2,
  token_dim=12,
  channel_dim=72,
  num_classes=5,
)
TNT = dict(
  name='tnt',
  patch_size=8,
  word_width=8,
  word_heads=2,
  width=32,
  num_heads=4,
  depth=2,
  num_classes=5,
)
PVT_V2 = dict(
  name='pvt_v2',
  widths=(8, 12),
  depths=(2, 1),
  num_heads=(2, 3),
  mlp_ratios=(2, 1),
  reductions=(2, 1),
  num_classes=5,
)
SWIN = dict(
  name='swin',
  width=8,
  depths=(2, 2),
  num_heads=(2, 2),
  window_size=2,
  num_classes=5,
)
CONVNEXT = dict(name='convnext', width=8, depths=(1, 2, 1, 1), num_classes=5)
SWIN_V2 = SWIN | {'name': 'swin_v2', 'pretrained_windows': (3, 4)}


def make_subject(options, *, size=SIZE, preprocess=()):
  model = models.build(**options)
  image = jnp.zeros((1, *size, 3))
  variables = zeros(model, image)
  rng = np.random.default_rng(0)
  params = {
    path: rng.normal(path.endswith(('scale', 'var')), 0.2, x.shape).astype('f')
    for path, x in join(variables).items()
  }

  def output(params, image):
    image = augment.normalize(image, **NORMALIZE)
    return model.apply(split(params, like=variables), image)

  uint8 = jax.ShapeDtypeStruct(image.shape, jnp.uint8)
  grid = jax.eval_shape(output, params, uint8).pyramid[0].shape[1:3]
  return Subject(
    name=options['name'],
    model=model,
    params=with_positions(params, model, grid=grid),
    logits=lambda params, image: output(params, jnp.asarray(image)).logits,
    image_shape=(*size, 3),
    class_names=['ant', 'bee', 'cow', 'dog', 'eel'],
    preprocess=preprocess,
    normalize=NORMALIZE,
  )


def random_images(batch_size, size=SIZE):
  rng = np.random.default_rng(1)
  return rng.integers(0, 256, (batch_size, *size, 3)).astype(np.uint8)


@pytest.mark.parametrize(
  'options',
  [
    VIT,
    VIT | {'pool': 'gap', 'gelu': 'erf', 'layer_scale': 0.1},
    VIT | {'pool': 'map'},
    VIT | {'pool': 'gap', 'pos_embed': 'sincos2d'},
    VIT | {'pos_embed': 'none', 'patch_size': (8, 4)},
    MIXER,
    PVT_V2,
    PVT_V2 | {'linear': True},
    PVT_V2 | {'name': 'twins_pcpvt'},
    TNT,
  ],
  ids=[
    *('token', 'gap', 'map', 'sincos2d', 'none', 'mixer', 'pvt_v2'),
    *('pvt_v2_linear', 'twins_pcpvt', 'tnt'),
  ],
)
def test_timm_computes_the_same(timm, options, tmp_path):
  reader, difference = export(
    make_subject(options), tmp_path, to='timm', images=random_images(3)
  )
  assert reader == f'timm {timm.__version__}'
  assert difference <= 1e-4


@pytest.mark.parametrize('resnet', [(), (2, 2, 2, 2)])
def test_hybrids_of_timm_compute_nearly_the_same(timm, resnet, tmp_path):
  """Nearly: its group norms have another epsilon."""
  subject = make_subject(
    VIT | {'resnet': resnet, 'patch_size': 1}, size=(32, 64)
  )
  reader, difference = export(
    subject, tmp_path, to='timm', images=random_images(3, (32, 64))
  )
  assert reader.startswith('timm')
  assert difference <= 1e-3


@pytest.mark.parametrize(
  ('options', 'size'),
  [(SWIN, (16, 32)), (SWIN_V2, (16, 32)), (SWIN_V2, (8, 32))],
)
def test_swins_of_timm_compute_the_same(timm, options, size, tmp_path):
  reader, difference = export(
    make_subject(options, size=size),
    tmp_path,
    to='timm',
    images=random_images(3, size),
  )
  assert reader.startswith('timm')
  assert difference <= 1e-4


@pytest.mark.parametrize('options', [SWIN, SWIN_V2])
def test_swins_of_transformers_compute_the_same(timm, options, tmp_path):
  size = (24, 44)  # does not fill the windows
  reader, difference = export(
    make_subject(options, size=size),
    tmp_path,
    to='hf',
    images=random_images(3, size),
  )
  assert reader.startswith('transformers')
  assert difference <= 1e-4


@pytest.mark.parametrize('layer_scale', [1.0, None])
@pytest.mark.parametrize('to', ['timm', 'hf'])
def test_convnexts_of_others_compute_the_same(timm, to, layer_scale, tmp_path):
  size = (37, 64)
  reader, difference = export(
    make_subject(CONVNEXT | {'layer_scale': layer_scale}, size=size),
    tmp_path,
    to=to,
    images=random_images(3, size),
  )
  assert reader.startswith({'timm': 'timm', 'hf': 'transformers'}[to])
  assert difference <= 1e-4


@pytest.mark.parametrize('bottleneck', [False, True])
@pytest.mark.parametrize('to', ['timm', 'hf'])
def test_resnets_of_others_compute_the_same(timm, to, bottleneck, tmp_path):
  size, widths = (37, 64), (64, 128, 256, 512)
  options = dict(
    name='resnet',
    widths=tuple(w * (4 if bottleneck else 1) for w in widths),
    depths=(1, 2, 1, 1),
    bottleneck=bottleneck,
    num_classes=5,
  )
  reader, difference = export(
    make_subject(options, size=size),
    tmp_path,
    to=to,
    images=random_images(3, size),
  )
  assert reader.startswith({'timm': 'timm', 'hf': 'transformers'}[to])
  assert difference <= 1e-4


def test_timm_loads_the_arrays_strictly_by_name(timm, tmp_path):
  import safetensors.torch

  preprocess = [
    {'name': 'resize_small', 'size': 20, 'method': 'bicubic'},
    {'name': 'central_crop', 'size': SIZE},
  ]
  subject = make_subject(VIT, preprocess=preprocess)
  export(subject, tmp_path, to='timm', images=random_images(2))
  config = json.loads((tmp_path / 'config.json').read_text())
  model = timm.create_model(config['architecture'], **config['model_args'])
  state = safetensors.torch.load_file(tmp_path / 'model.safetensors')
  model.load_state_dict(state, strict=True)
  model = timm.create_model(f'local-dir:{tmp_path}', pretrained=True)
  settings = timm.data.resolve_model_data_config(model)
  assert settings['input_size'] == (3, *SIZE)
  assert settings['interpolation'] == 'bicubic'
  assert settings['crop_pct'] == 16 / 20
  np.testing.assert_allclose(settings['mean'], NORMALIZE['mean'])
  assert model.pretrained_cfg['label_names'][1] == 'bee'


@pytest.mark.parametrize(
  'options',
  [
    {'gelu': 'tanh', 'pos_embed': 'sincos2d'},
    {'gelu': 'erf', 'pos_embed': 'sincos2d'},
    {'name': 'deit'},
  ],
)
def test_transformers_computes_the_same(timm, options, tmp_path):
  import transformers

  subject = make_subject(VIT | options)
  reader, difference = export(
    subject, tmp_path, to='hf', images=random_images(3)
  )
  assert reader == f'transformers {transformers.__version__}'
  assert difference <= 1e-4
  config = transformers.AutoConfig.from_pretrained(tmp_path)
  assert config.id2label[1] == 'bee'
  assert config.label2id['bee'] == 1


def test_the_names_in_memory_are_those_of_transformers(timm, tmp_path):
  import transformers

  subject = make_subject(VIT)
  export(subject, tmp_path, to='hf', images=random_images(2))
  model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
  state = {k: v.detach().numpy() for k, v in model.state_dict().items()}
  ours = torch_names.to_ours(state, num_heads=4)
  assert ours.keys() == subject.params.keys()
  for path, value in subject.params.items():
    np.testing.assert_array_equal(ours[path], value, err_msg=path)


@pytest.mark.parametrize('crops', [False, True])
def test_the_processor_of_transformers_normalizes_as_we_do(
  timm, crops, tmp_path
):
  import PIL.Image
  import transformers

  preprocess = [
    {'name': 'resize_small', 'size': 16, 'method': 'bilinear'},
    {'name': 'central_crop', 'size': SIZE},
  ]
  subject = make_subject(VIT, preprocess=preprocess if crops else ())
  images = random_images(2)
  export(subject, tmp_path, to='hf', images=images)
  name = 'CLIPImageProcessor' if crops else 'ViTImageProcessor'
  content = json.loads((tmp_path / 'preprocessor_config.json').read_text())
  assert content['image_processor_type'] == name
  # Its torchvision backend does not import beside a torch for CPUs.
  processor = transformers.AutoImageProcessor.from_pretrained(
    tmp_path, backend='pil'
  )
  pixels = processor(
    [PIL.Image.fromarray(image) for image in images], return_tensors='np'
  )['pixel_values']
  expected = np.asarray(augment.normalize(jnp.asarray(images), **NORMALIZE))
  np.testing.assert_allclose(
    pixels, expected.transpose(0, 3, 1, 2), atol=1e-5, rtol=1e-5
  )


@pytest.mark.parametrize(
  'options',
  [VIT, VIT | {'pool': 'gap'}, MIXER, CONVNEXT | {'depths': (1, 1)}],
  ids=['token', 'gap', 'mixer', 'convnext'],
)
def test_onnxruntime_computes_the_same_for_any_batch(options, tmp_path):
  import onnxruntime

  subject = make_subject(options)
  reader, difference = export(
    subject, tmp_path, to='onnx', images=random_images(3)
  )
  assert reader == f'onnxruntime {onnxruntime.__version__}'
  assert difference <= 1e-4
  session = onnxruntime.InferenceSession(tmp_path / 'model.onnx')
  images = random_images(1)
  (logits,) = session.run(None, {'image': images})
  expected = np.asarray(subject.logits(subject.params, images))
  assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
