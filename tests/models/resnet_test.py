import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.models import resnet
from vit_jax.models.resnet import Block, ResNet

X = jax.random.normal(jax.random.key(0), (2, 6, 8, 8))
every_block = pytest.mark.parametrize('bottleneck', [False, True])


def test_maps_have_the_strides_and_widths_of_the_paper():
  image = jax.ShapeDtypeStruct((1, 224, 160, 3), jnp.float32)
  model = models.build('resnet', '50', scan=True)
  output, variables = jax.eval_shape(
    model.init_with_output, jax.random.key(0), image
  )
  assert [x.shape[1:] for x in output.pyramid] == [
    (56, 40, 256),
    (28, 20, 512),
    (14, 10, 1024),
    (7, 5, 2048),
  ]
  assert output.pooled.shape == (1, 2048)
  assert set(variables) == {'params', 'batch_stats'}


@every_block
def test_a_block_starts_as_its_shortcut(bottleneck):
  block = Block(8, bottleneck)
  variables = jax.jit(block.init)(jax.random.key(1), X)
  assert 'shortcut' not in variables['params']
  out = jax.jit(block.apply)(variables, X)
  np.testing.assert_array_equal(out, jnp.maximum(X, 0))


@pytest.mark.parametrize(('width', 'stride'), [(8, 2), (16, 1), (16, 2)])
def test_the_shortcut_is_projected_where_the_map_changes(width, stride):
  block = Block(width, bottleneck=False, stride=stride)
  out, variables = jax.eval_shape(block.init_with_output, jax.random.key(1), X)
  assert out.shape == (2, 6 // stride, 8 // stride, width)
  assert variables['params']['shortcut']['conv']['kernel'].shape[:2] == (1, 1)


def test_a_bottleneck_halves_the_map_where_it_is_3_by_3():
  """The first one, of 1 x 1, would not see three positions of four."""
  block = Block(8, bottleneck=True, stride=2)
  variables = jax.jit(block.init)(jax.random.key(1), X)
  params = jax.tree.map(lambda x: x + 0.1, variables['params'])
  run = lambda x: block.apply(variables | {'params': params}, x).sum()
  seen = np.abs(jax.jit(jax.grad(run))(X)).max((0, 3)) > 0
  assert seen.all()


def test_convolutions_have_no_bias():
  model = ResNet(widths=(8,), depths=(1,), bottleneck=True, num_classes=3)
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  for path, _ in jax.tree.leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    assert not name.endswith('conv/bias')


def test_fields_that_do_not_go_together_are_refused():
  model = ResNet(widths=(8, 16), depths=(1,), bottleneck=False)
  with pytest.raises(ValueError, match=r'widths=\(8, 16\) and depths=\(1,\)'):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_an_unpublished_variant_is_answered_by_the_known():
  with pytest.raises(ValueError, match="variant: '51'. Did you mean"):
    resnet.variant('51')
