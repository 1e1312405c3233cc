"""Files in the published naming, and an independent forward pass in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models.mlp_mixer import MlpMixer
from vit_jax.models.vit import ViT
from vit_jax.pretrained import flatten, google_npz, unflatten

D, HEADS, MLP, DEPTH, P, SIDE, CLASSES = 16, 2, 24, 2, 4, 8, 5
TOKENS = (SIDE // P) ** 2
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _full_precision():
  with jax.default_matmul_precision('highest'):
    yield


def array(*shape):
  return rng.normal(0, 0.5, shape).astype(np.float32)


def dense(name, n, m):
  return {f'{name}/kernel': array(n, m), f'{name}/bias': array(m)}


def norm(name, n=D):
  return {f'{name}/scale': 1 + array(n), f'{name}/bias': array(n)}


def attention(name):
  heads = (HEADS, D // HEADS)
  file = {}
  for part in ('query', 'key', 'value'):
    file |= {f'{name}/{part}/kernel': array(D, *heads)}
    file |= {f'{name}/{part}/bias': array(*heads)}
  return file | {
    f'{name}/out/kernel': array(*heads, D),
    f'{name}/out/bias': array(D),
  }


def patches(name, c=3, p=P):
  return {f'{name}/kernel': array(p, p, c, D), f'{name}/bias': array(D)}


def published_vit(*, token=True, positions=TOKENS):
  """A file as those of gs://vit_models: numbered before Linen."""
  file = patches('embedding')
  if token:
    file['cls'] = array(1, 1, D)
  rows = positions + int(token)
  file['Transformer/posembed_input/pos_embedding'] = array(1, rows, D)
  for i in range(DEPTH):
    block = f'Transformer/encoderblock_{i}'
    file |= norm(f'{block}/LayerNorm_0') | norm(f'{block}/LayerNorm_2')
    file |= attention(f'{block}/MultiHeadDotProductAttention_1')
    file |= dense(f'{block}/MlpBlock_3/Dense_0', D, MLP)
    file |= dense(f'{block}/MlpBlock_3/Dense_1', MLP, D)
  return file | norm('Transformer/encoder_norm') | dense('head', D, CLASSES)


def published_mixer(hidden=6):
  file = patches('stem')
  for i in range(DEPTH):
    block = f'MixerBlock_{i}'
    file |= norm(f'{block}/LayerNorm_0') | norm(f'{block}/LayerNorm_1')
    file |= dense(f'{block}/token_mixing/Dense_0', TOKENS, hidden)
    file |= dense(f'{block}/token_mixing/Dense_1', hidden, TOKENS)
    file |= dense(f'{block}/channel_mixing/Dense_0', D, MLP)
    file |= dense(f'{block}/channel_mixing/Dense_1', MLP, D)
  return file | norm('pre_head_layer_norm') | dense('head', D, CLASSES)


def replaced(file, *pairs):
  for old, new in pairs:
    file = {name.replace(old, new): x for name, x in file.items()}
  return file


def linen(file):
  return replaced(
    file,
    ('LayerNorm_2', 'LayerNorm_1'),
    ('MultiHeadDotProductAttention_1', 'MultiHeadDotProductAttention_0'),
    ('MlpBlock_3', 'MlpBlock_0'),
  )


def big_vision(file):
  """Without a row for the class token, which is added to that token."""
  file = dict(linen(file))
  table = file.pop('Transformer/posembed_input/pos_embedding')
  if 'cls' in file:
    file['cls'] = file['cls'] + table[:, :1]
    table = table[:, 1:]
  file['pos_embedding'] = table
  return {f'params/{name}': x for name, x in file.items()}


def scanned(file):
  result = {k: v for k, v in big_vision(file).items() if 'block_' not in k}
  first = 'params/Transformer/encoderblock_0/'
  for name in big_vision(file):
    if name.startswith(first):
      blocks = [
        big_vision(file)[name.replace('block_0', f'block_{i}', 1)]
        for i in range(DEPTH)
      ]
      result[name.replace('block_0', 'block', 1)] = np.stack(blocks)
  return result


def with_optimizer(file):
  target = {f'opt/target/{name}': x for name, x in file.items()}
  return target | {'opt/state/step': np.int32(3)}


def two_towers(file):
  tower = {
    name.replace('params/', 'params/img/', 1): x
    for name, x in big_vision(file).items()
  }
  return tower | {'params/t': array(1), 'params/txt/head/kernel': array(2, 2)}


LAYOUTS = {
  'before linen': lambda file: file,
  'linen': linen,
  'big_vision': big_vision,
  'big_vision scanned': scanned,
  'with optimizer': with_optimizer,
  'two towers': two_towers,
}


# The forward pass, by the names of the published files.


def layer_norm(x, file, name):
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  return x * file[f'{name}/scale'] + file[f'{name}/bias']


def gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def linear(x, file, name):
  return x @ file[f'{name}/kernel'] + file[f'{name}/bias']


def mlp(x, file, name):
  hidden = gelu(linear(x, file, f'{name}/Dense_0'))
  return linear(hidden, file, f'{name}/Dense_1')


def embed(image, file, name):
  kernel, bias = file[f'{name}/kernel'], file[f'{name}/bias']
  p, n = kernel.shape[0], image.shape[1] // kernel.shape[0]
  rows = []
  for y in range(n):
    for x in range(n):
      patch = image[:, y * p : (y + 1) * p, x * p : (x + 1) * p]
      rows.append(np.einsum('bijc,ijcd->bd', patch, kernel) + bias)
  return np.stack(rows, axis=1)


def attend(x, file, name):
  q, k, v = (
    np.einsum('bnd,dht->bhnt', x, file[f'{name}/{part}/kernel'])
    + file[f'{name}/{part}/bias'][None, :, None]
    for part in ('query', 'key', 'value')
  )
  scores = np.einsum('bhqt,bhnt->bhqn', q, k) / np.sqrt(q.shape[-1])
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  mixed = np.einsum('bhqn,bhnt->bqht', weights, v)
  out = np.einsum('bqht,htd->bqd', mixed, file[f'{name}/out/kernel'])
  return out + file[f'{name}/out/bias']


def vit_forward(image, file):
  x = embed(image, file, 'embedding')
  if 'cls' in file:
    cls = np.broadcast_to(file['cls'], (len(x), 1, D))
    x = np.concatenate([cls, x], axis=1)
  x = x + file['Transformer/posembed_input/pos_embedding']
  for i in range(DEPTH):
    block = f'Transformer/encoderblock_{i}'
    y = layer_norm(x, file, f'{block}/LayerNorm_0')
    x = x + attend(y, file, f'{block}/MultiHeadDotProductAttention_1')
    y = layer_norm(x, file, f'{block}/LayerNorm_2')
    x = x + mlp(y, file, f'{block}/MlpBlock_3')
  x = layer_norm(x, file, 'Transformer/encoder_norm')
  x = x[:, 0] if 'cls' in file else x.mean(1)
  if 'pre_logits/kernel' in file:
    x = np.tanh(linear(x, file, 'pre_logits'))
  return linear(x, file, 'head')


def mixer_forward(image, file):
  x = embed(image, file, 'stem')
  for i in range(DEPTH):
    block = f'MixerBlock_{i}'
    y = layer_norm(x, file, f'{block}/LayerNorm_0').swapaxes(1, 2)
    x = x + mlp(y, file, f'{block}/token_mixing').swapaxes(1, 2)
    y = layer_norm(x, file, f'{block}/LayerNorm_1')
    x = x + mlp(y, file, f'{block}/channel_mixing')
  x = layer_norm(x, file, 'pre_head_layer_norm').mean(1)
  return linear(x, file, 'head')


def vit(**fields):
  sizes = dict(patch_size=P, width=D, depth=DEPTH, mlp_dim=MLP)
  fields = dict(num_heads=HEADS, num_classes=CLASSES) | fields
  return ViT(**(sizes | fields))


def mixer():
  return MlpMixer(P, D, DEPTH, token_dim=6, channel_dim=MLP, num_classes=5)


def logits(model, ours, image):
  return model.apply({'params': unflatten(ours)}, jnp.asarray(image)).logits


def initial_params(model):
  return model.init(jax.random.key(0), jnp.asarray(image))['params']


def close(ours, theirs):
  error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
  assert error < 1e-5, error


image = array(2, SIDE, SIDE, 3)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('token', [True, False])
def test_every_layout_computes_what_the_published_names_say(layout, token):
  file = published_vit(token=token)
  ours = google_npz.to_ours(LAYOUTS[layout](file))
  model = vit(pool='token' if token else 'gap')
  close(logits(model, ours, image), vit_forward(image, file))


def test_every_layout_gives_the_same_arrays():
  file = published_vit(token=False)
  first = google_npz.to_ours(file)
  for layout in LAYOUTS.values():
    other = google_npz.to_ours(layout(file))
    assert first.keys() == other.keys()
    assert all((first[k] == other[k]).all() for k in first)


def test_our_names_are_those_of_the_model():
  initial = initial_params(vit(representation_size=D))
  file = published_vit() | dense('pre_logits', D, D)
  ours = google_npz.to_ours(file)
  assert {k: v.shape for k, v in ours.items()} == {
    k: v.shape for k, v in flatten(initial).items()
  }
  model = vit(representation_size=D)
  close(logits(model, ours, image), vit_forward(image, file))


@pytest.mark.parametrize(
  'file',
  [
    published_vit(),
    published_vit(token=False) | dense('pre_logits', D, D),
    published_mixer(),
  ],
  ids=['vit', 'gap', 'mixer'],
)
def test_a_file_comes_back_bit_by_bit(file):
  back = google_npz.from_ours(google_npz.to_ours(file))
  assert back.keys() == file.keys()
  for name in file:
    assert back[name].dtype == file[name].dtype
    np.testing.assert_array_equal(back[name], file[name])


def test_attention_pooling_is_read_in_both_forms_and_written_in_the_new_one():
  file = big_vision(published_vit(token=False))
  attn = attention('params/MAPHead_0/MultiHeadDotProductAttention_0')
  file |= attn | norm('params/MAPHead_0/LayerNorm_0')
  file |= {'params/MAPHead_0/probe': array(1, 1, D)}
  file |= dense('params/MAPHead_0/MlpBlock_0/Dense_0', D, MLP)
  file |= dense('params/MAPHead_0/MlpBlock_0/Dense_1', MLP, D)
  ours = google_npz.to_ours(file)
  initial = initial_params(vit(pool='map'))
  assert {k: v.shape for k, v in ours.items()} == {
    k: v.shape for k, v in flatten(initial).items()
  }
  inlined = google_npz.to_ours(replaced(file, ('MAPHead_0/', '')))
  assert all((ours[k] == inlined[k]).all() for k in ours)
  back = google_npz.from_ours(ours)
  for name in [name for name in file if 'MAPHead' in name]:
    np.testing.assert_array_equal(
      back[name.removeprefix('params/')], file[name]
    )
  key = file['params/MAPHead_0/MultiHeadDotProductAttention_0/key/kernel']
  np.testing.assert_array_equal(ours['pool/attn/kv/kernel'][:, 0], key)


def test_the_mixer_computes_what_the_published_names_say():
  file = published_mixer()
  ours = google_npz.to_ours(file)
  close(logits(mixer(), ours, image), mixer_forward(image, file))


def test_the_first_mixers_are_read():
  file = published_mixer()
  old = replaced(
    file,
    ('stem/', 'embedding/'),
    ('pre_head_layer_norm', 'Mixer/encoder_norm'),
    ('MixerBlock_', 'Mixer/encoderblock_'),
    ('LayerNorm_1', 'LayerNorm_2'),
    ('mixing/', 'mixing_phase_0/'),
    ('Dense_0/kernel', 'kernel1'),
    ('Dense_0/bias', 'bias1'),
    ('Dense_1/kernel', 'kernel2'),
    ('Dense_1/bias', 'bias2'),
  )
  old = {k: x[None] if 'kernel1' in k else x for k, x in old.items()}
  ours, expected = google_npz.to_ours(old), google_npz.to_ours(file)
  assert ours.keys() == expected.keys()
  for name in ours:
    np.testing.assert_array_equal(ours[name], expected[name])


def hybrid_file():
  """A ResNet of two stages with one and two units; group norms of old."""
  file = published_vit()
  file['embedding/kernel'] = array(1, 1, 512, D)

  def conv(name, k, c, d):
    file[f'{name}/kernel'] = array(k, k, c, d)

  def group_norm(name, c):
    file[f'{name}/scale'] = 1 + array(1, 1, 1, c)
    file[f'{name}/bias'] = array(1, 1, 1, c)

  conv('conv_root', 7, 3, 64)
  group_norm('gn_root', 64)
  for s, u, c, d in ((1, 1, 64, 64), (2, 1, 256, 128), (2, 2, 512, 128)):
    unit = f'block{s}/unit{u}'
    shapes = ((1, c, d), (3, d, d), (1, d, 4 * d))
    for i, (k, a, b) in enumerate(shapes, start=1):
      conv(f'{unit}/conv{i}', k, a, b)
      group_norm(f'{unit}/gn{i}', b)
    if u == 1:
      conv(f'{unit}/conv_proj', 1, c, 4 * d)
      group_norm(f'{unit}/gn_proj', 4 * d)
  return file


def same_conv(x, kernel, stride):
  """A convolution with standardised weights and TensorFlow's 'SAME'."""
  kernel = kernel - kernel.mean((0, 1, 2))
  kernel = kernel / (kernel.std((0, 1, 2)) + 1e-5)
  out, (top, bottom) = same_padding(x.shape[1], kernel.shape[0], stride)
  x = np.pad(x, ((0, 0), (top, bottom), (top, bottom), (0, 0)))
  k = kernel.shape[0]
  result = np.empty((len(x), out, out, kernel.shape[-1]))
  for i in range(out):
    for j in range(out):
      y, z = i * stride, j * stride
      window = x[:, y : y + k, z : z + k]
      result[:, i, j] = np.tensordot(window, kernel, 3)
  return result


def same_padding(n, k, stride):
  out = -(-n // stride)
  total = max((out - 1) * stride + k - n, 0)
  return out, (total // 2, total - total // 2)


def group_norm(x, file, name):
  b, h, w, c = x.shape
  y = x.reshape(b, h * w, 32, c // 32)
  y = y - y.mean((1, 3), keepdims=True)
  y = y / np.sqrt((y**2).mean((1, 3), keepdims=True) + 1e-6)
  scale, bias = file[f'{name}/scale'], file[f'{name}/bias']
  return y.reshape(x.shape) * scale.reshape(-1) + bias.reshape(-1)


def hybrid_map(x, file):
  def convolve(x, name, norm, stride=1):
    x = same_conv(x, file[f'{name}/kernel'], stride)
    return group_norm(x, file, norm)

  relu = lambda x: np.maximum(x, 0)
  x = relu(convolve(x, 'conv_root', 'gn_root', 2))
  out, (top, bottom) = same_padding(x.shape[1], 3, 2)
  pad = ((0, 0), (top, bottom), (top, bottom), (0, 0))
  x = np.pad(x, pad, constant_values=-np.inf)
  x = np.stack(
    [
      np.stack(
        [
          x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
          for j in range(out)
        ],
        axis=1,
      )
      for i in range(out)
    ],
    axis=1,
  )
  for s, u in ((1, 1), (2, 1), (2, 2)):
    unit = f'block{s}/unit{u}'
    stride = 2 if (s, u) == (2, 1) else 1
    short = x
    if u == 1:
      short = convolve(x, f'{unit}/conv_proj', f'{unit}/gn_proj', stride)
    x = relu(convolve(x, f'{unit}/conv1', f'{unit}/gn1'))
    x = relu(convolve(x, f'{unit}/conv2', f'{unit}/gn2', stride))
    x = relu(short + convolve(x, f'{unit}/conv3', f'{unit}/gn3'))
  return x


def test_a_hybrid_computes_what_the_published_names_say():
  file = hybrid_file()
  big = array(2, 16, 16, 3)
  expected = vit_forward(hybrid_map(big, file), file)
  ours = google_npz.to_ours(file)
  model = vit(patch_size=1, resnet=(1, 2))
  close(logits(model, ours, big), expected)


def test_a_hybrid_comes_back_with_flat_group_norms():
  file = hybrid_file()
  back = google_npz.from_ours(google_npz.to_ours(file))
  assert back.keys() == file.keys()
  for name in file:
    expected = file[name].reshape(-1) if '/gn' in f'/{name}' else file[name]
    np.testing.assert_array_equal(back[name], expected)


def test_names_without_a_meaning_are_listed():
  with pytest.raises(ValueError, match='no place.*Transformer/what/kernel'):
    google_npz.to_ours(published_vit() | dense('Transformer/what', 2, 2))


def test_a_missing_projection_is_not_made_up():
  file = published_vit()
  del file['Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias']
  with pytest.raises(ValueError, match='incomplete: it lacks.*_0/key/bias'):
    google_npz.to_ours(file)


def test_another_format_is_named_by_what_was_expected():
  with pytest.raises(ValueError, match="'embedding/kernel'.*found blocks.0"):
    google_npz.to_ours({'blocks.0.attn.qkv.weight': array(2, 2)})


def test_layer_scale_has_no_place_in_the_layout():
  ours = google_npz.to_ours(published_vit())
  with pytest.raises(ValueError, match='block_0/scale1/scale'):
    google_npz.from_ours(ours | {'block_0/scale1/scale': array(D)})
