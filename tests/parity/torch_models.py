"""What the tests against models of PyTorch share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import models
from vit_jax.pretrained import join, split, torch_names


def randomise(torch, model):
  """Gives every parameter and statistic a value that no error would survive."""
  torch.manual_seed(0)
  for name, value in model.named_parameters():
    is_scale = 'gamma' in name or 'layer_scale' in name
    is_scale |= value.ndim == 1 and name.endswith('weight')
    torch.nn.init.normal_(value.data, 1.0 if is_scale else 0.0, 0.2)
  for name, value in model.named_buffers():
    if name.endswith('running_mean'):
      torch.nn.init.normal_(value, 0.0, 0.2)
    elif name.endswith('running_var'):
      torch.nn.init.uniform_(value, 0.5, 2.0)
  return model.eval()


def arrays(model):
  """All of a model by name."""
  return {k: v.detach().numpy() for k, v in model.state_dict().items()}


def random_image(size):
  """Two images of (height, width), the same for every test."""
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, *size, 3)).astype(np.float32)


def outputs_by_module(torch, model, image):
  """Runs a torch model; returns name of a module -> its output."""
  found = {}
  for name, module in model.named_modules():

    def keep(module, inputs, output, *, name=name):
      found[name] = output[0] if isinstance(output, tuple) else output

    module.register_forward_hook(keep)
  with torch.no_grad():
    model(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
  return found


def compare(ours, flat, expected, *, image, stages, maps=()):
  """Compares the stages in order, so that a failure names the first wrong.

  Args:
    ours: our model.
    flat: its variables, as `torch_names.to_ours` returns them.
    expected: what `outputs_by_module` found; maps may have channels first.
    image: float (b, h, w, c).
    stages: pairs of our module and theirs.
    maps: their module for each map of our pyramid.

  Returns:
    Our output.
  """
  fresh = zeros(ours, image)
  assert shapes(flat) == shapes(join(fresh))
  variables = jax.tree.map(jnp.asarray, split(flat, like=fresh))
  run = functools.partial(
    ours.apply, capture_intermediates=True, mutable=['intermediates']
  )
  output, captured = jax.jit(run)(variables, jnp.asarray(image))
  actual = {
    jax.tree_util.keystr(path[:-2], simple=True, separator='/'): value
    for path, value in jax.tree.leaves_with_path(captured['intermediates'])
  }
  actual |= {f'map {i}': value for i, value in enumerate(output.pyramid)}
  stages = [*stages, *((f'map {i}', name) for i, name in enumerate(maps))]
  for mine, other in stages:
    value, target = np.asarray(actual[mine]), np.asarray(expected[other])
    if value.ndim == target.ndim == 4 and value.shape != target.shape:
      target = target.transpose(0, 2, 3, 1)
    value = value.reshape(target.shape)
    error = np.abs(value - target).max() / np.abs(target).max()
    assert error <= 1e-4, f'{mine}: relative error {error:.1e}'
  np.testing.assert_array_equal(output.logits, actual['head'])
  return output


def compare_training(torch, ours, theirs, *, image, num_heads=None):
  """Compares the logits and the new statistics of one pass in training.

  Of the variance of a batch, torch keeps the unbiased estimate.

  Args:
    torch: the package.
    ours: our model.
    theirs: their model, randomised; nothing may be dropped.
    image: float (b, h, w, c).
    num_heads: for `torch_names.to_ours`.
  """
  before = {k: x.copy() for k, x in arrays(theirs).items()}
  counts = {}
  for name, module in theirs.named_modules():
    if isinstance(module, torch.nn.BatchNorm2d):

      def count(module, inputs, *, name=name):
        n = inputs[0].numel() // inputs[0].shape[1]
        counts[name] = n, module.momentum

      module.register_forward_pre_hook(count)
  with torch.no_grad():
    output = theirs.train()(torch.from_numpy(image.transpose(0, 3, 1, 2)))
  after = arrays(theirs)
  for name, (n, momentum) in counts.items():
    name = f'{name}.running_var'
    kept = (1 - momentum) * before[name]
    after[name] = kept + (after[name] - kept) * (n - 1) / n
  variables, expected = (
    split(torch_names.to_ours(x, num_heads=num_heads), like=zeros(ours, image))
    for x in (before, after)
  )
  train = functools.partial(ours.apply, train=True, mutable=['batch_stats'])
  actual, state = jax.jit(train)(variables, jnp.asarray(image))
  logits = output if isinstance(output, torch.Tensor) else output.logits
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  close(actual.logits, logits)
  jax.tree.map(close, state['batch_stats'], expected['batch_stats'])


def check_names(name, variant, state, *, family, size=224):
  """Names and shapes of a published model agree strictly, both ways.

  Args:
    name: of the architecture.
    variant: of it.
    state: the `state_dict` of their model, which may be on the meta device.
    family: of the names.
    size: of the image.
  """
  model = models.build(name, variant, num_classes=1000)
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  ours = join(zeros(model, image))
  theirs = torch_names.from_ours(ours, family=family)
  expected = {
    k: v for k, v in state.items() if not torch_names.COMPUTED.fullmatch(k)
  }
  assert torch_names.detect(expected) == family
  assert shapes(theirs) == shapes(expected)
  back = torch_names.to_ours(theirs, num_heads=torch_names.heads_of(ours))
  assert shapes(back) == shapes(ours)


def zeros(model, image):
  """Variables of our model, all zero."""
  fresh = jax.eval_shape(model.init, jax.random.key(0), image)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), fresh)


def shapes(arrays):
  """Shapes by name."""
  return {name: tuple(x.shape) for name, x in arrays.items()}
