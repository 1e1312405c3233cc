import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.extend import core
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from vit_jax import models
from vit_jax.ops import flops

LEFT, RIGHT = jnp.ones((2, 3, 4)), jnp.ones((2, 4, 5))
DOT = 2 * (2 * 3 * 4 * 5)


def dot(left, right):
  return jnp.einsum('bij,bjk->bik', left, right)


def conv(image, kernel, *, stride=1):
  return jax.lax.conv_general_dilated(
    image,
    kernel,
    window_strides=(stride, stride),
    padding='VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@jax.custom_vjp
def dot_with_own_gradient(left, right):
  return dot(left, right)


dot_with_own_gradient.defvjp(
  lambda left, right: (dot(left, right), right),
  lambda right, g: (g @ right.mT, jnp.zeros_like(right)),
)


def test_a_matrix_product_counts_two_for_each_multiply_add():
  assert flops.count(dot, LEFT, RIGHT) == DOT


@pytest.mark.parametrize(('pass_', 'products'), [('fwd', 2), ('bwd', 5)])
def test_the_attention_of_cudnn_counts_its_products(pass_, products):
  # Without a GPU it cannot even be traced; tests/ops/kernels_test.py does.
  fused = core.Primitive(f'dot_product_attention_{pass_}_wrapper')
  fused.def_abstract_eval(lambda query, key: query)
  query, key = jnp.ones((2, 3, 4, 8)), jnp.ones((2, 5, 4, 8))
  product = 2 * (2 * 4) * (3 * 5 * 8)
  assert flops.count(fused.bind, query, key) == products * product


def test_a_convolution_counts_its_taps():
  image, kernel = jnp.ones((2, 9, 6, 4)), jnp.ones((3, 2, 4, 5))
  assert flops.count(conv, image, kernel) == 2 * (2 * 7 * 5 * 5) * (3 * 2 * 4)


def test_a_grouped_convolution_counts_its_group_only():
  layer = nn.Conv(8, (3, 3), feature_group_count=4)
  image = jnp.ones((1, 5, 5, 8))
  params = layer.init(jax.random.key(0), image)
  expected = 2 * (5 * 5 * 8) * (3 * 3 * 2)
  assert flops.count(layer.apply, params, image) == expected


@pytest.mark.parametrize(
  'wrap', [jax.jit, jax.remat, lambda f: dot_with_own_gradient]
)
def test_wrapped_functions_are_looked_into(wrap):
  assert flops.count(wrap(dot), LEFT, RIGHT) == DOT


def test_a_scan_counts_each_step():
  def five_steps(left, right):
    step = lambda carry, _: (carry, dot(left, right))
    return jax.lax.scan(step, 0, length=5)

  assert flops.count(five_steps, LEFT, RIGHT) == 5 * DOT


def test_a_condition_counts_as_its_dearest_branch():
  def either(left, right):
    twice = lambda x: dot(x, right) + dot(2 * x, right)
    return jax.lax.cond(left.sum() > 0, lambda x: dot(x, right), twice, left)

  assert flops.count(either, LEFT, RIGHT) == 2 * DOT


def test_devices_add_up_under_shard_map():
  mesh = jax.make_mesh((2,), ('data',), (AxisType.Auto,))
  split = functools.partial(
    jax.shard_map, mesh=mesh, in_specs=P('data'), out_specs=P('data')
  )
  assert flops.count(split(dot), LEFT, RIGHT) == DOT


def test_a_training_step_costs_three_forward_passes():
  loss = lambda left, right: jnp.sin(dot(left, right)).sum()
  both = jax.value_and_grad(loss, argnums=(0, 1))
  assert flops.count(both, LEFT, RIGHT) == 3 * DOT


def test_the_gradient_of_a_strided_convolution_multiplies_no_zeros():
  image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((4, 4, 3, 5))
  patches = functools.partial(conv, stride=4)
  loss = lambda image, kernel: jnp.sin(patches(image, kernel)).sum()
  forward = flops.count(patches, image, kernel)
  assert flops.count(jax.grad(loss, argnums=1), image, kernel) == 2 * forward
  # The gradient of the image also walks over the border that it cuts off.
  backward = flops.count(jax.grad(loss), image, kernel) - forward
  assert forward <= backward <= 3 * forward


def test_nothing_is_computed_for_shapes():
  shape = jax.ShapeDtypeStruct((100_000, 100_000), jnp.float32)
  assert flops.count(jnp.matmul, shape, shape) == 2 * 10**15


@pytest.mark.parametrize('scan', [False, True])
def test_a_vision_transformer_costs_what_its_formula_says(scan):
  n, d, m, depth, k = 14 * 14, 192, 768, 12, 1000
  multiply_adds = (
    n * 3 * 16**2 * d + depth * (4 * n * d**2 + 2 * n**2 * d + 2 * n * d * m)
  ) + d * k
  model = models.build('vit', 'Ti/16', pool='gap', num_classes=k, scan=scan)
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), image)
  assert flops.count(model.apply, params, image) == 2 * multiply_adds
