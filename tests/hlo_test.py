import textwrap

import jax
import jax.numpy as jnp
import pytest

from vit_jax import hlo, sharding

# Two loops of 12 and 3 turns, of which the second has its limit in its
# condition only; an asynchronous gather in three parts; a fused scatter.
PROGRAM = textwrap.dedent("""
  HloModule jit_f, is_scheduled=true, num_partitions=8

  %body (p: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
    %p = (s32[], f32[8,64]{1,0}) parameter(0)
    %x = f32[8,64]{1,0} get-tuple-element(%p), index=1
    %g = f32[64,64]{1,0} all-gather(%x), channel_id=1, GROUPS, dimensions={0}
    ROOT %t = (s32[], f32[8,64]{1,0}) tuple(%i, %x)
  }

  %limit (p.1: (s32[], f32[8,64])) -> pred[] {
    %p.1 = (s32[], f32[8,64]{1,0}) parameter(0)
    %three = s32[] constant(3)
    ROOT %lt = pred[] compare(%i, %three), direction=LT
  }

  %start (a: bf16[16]) -> bf16[16] {
    %a = bf16[16]{0:T(256)} parameter(0)
    ROOT %g.1 = bf16[128]{0:T(256)} all-gather(%a), channel_id=7, GROUPS
  }

  %all-reduce-scatter (b: f32[32]) -> f32[4] {
    %b = f32[32]{0} parameter(0)
    %r = f32[32]{0} all-reduce(%b), channel_id=8, replica_groups={{0,1},{2,3}}
    ROOT %s = f32[4]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={4}
  }

  ENTRY %main (x: f32[8,64], a: bf16[16], b: f32[32]) -> f32[8,64] {
    %x.1 = f32[8,64]{1,0} parameter(0)
    %a.1 = bf16[16]{0} parameter(1)
    %b.1 = f32[32]{0} parameter(2)
    %w = (s32[], f32[8,64]{1,0}) while(%x.1), condition=%limit, body=%body, \
  backend_config={"known_trip_count":{"n":"12"}}
    %w.1 = (s32[], f32[8,64]{1,0}) while(%x.1), condition=%limit, body=%body
    %f = bf16[16]{0} fusion(%a.1), kind=kCustom, calls=%start
    %f.1 = bf16[16]{0} fusion(%f), kind=kCustom, calls=%start
    %f.2 = f32[4]{0} fusion(%b.1), kind=kCustom, calls=%all-reduce-scatter
    ROOT %y = f32[8,64]{1,0} collective-permute(%x.1), channel_id=9
  }
""")


def program(groups='replica_groups=[1,8]<=[8]'):
  return PROGRAM.replace('GROUPS', groups)


def test_what_a_loop_sends_counts_as_often_as_it_turns():
  found = hlo.traffic(program())
  # Of n devices each sends its own part to n - 1; the parts of an asynchronous
  # gather are one.
  loops = (12 + 3) * 7 * 8 * 64 * 4
  assert found.sent == {
    'all-gather': loops + 7 * 16 * 2,
    'reduce-scatter': 32 * 4 / 2,
    'collective-permute': 8 * 64 * 4,
  }
  assert found.calls['all-gather'] == 12 + 3 + 1
  assert found.endless == 0


@pytest.mark.parametrize(
  ('groups', 'size'),
  [
    ('replica_groups={{0,1,2,3},{4,5,6,7}}', 4),
    ('replica_groups=[4,2]<=[8]T(1,0)', 2),
    ("replica_groups=mesh['a'=2,'b'=4] {'b'}", 4),
    ("replica_groups=mesh['a'=2,'b'=4] {'a','b':(2)2}", 4),
    ('dimensions={1}', 8),
  ],
)
def test_every_spelling_of_a_group_is_read(groups, size):
  found = hlo.traffic(program(groups))
  assert found.sent['all-gather'] == (size - 1) * (15 * 8 * 64 * 4 + 16 * 2)


def test_a_loop_without_a_known_end_is_counted_once_and_told():
  text = program().replace('s32[] constant(3)', 's32[] parameter(1)')
  found = hlo.traffic(text)
  assert found.endless == 1
  assert found.calls['all-gather'] == 12 + 1 + 1


def test_what_a_kernel_of_cuda_scribbles_into_is_no_traffic():
  text = textwrap.dedent("""
    HloModule jit_f, is_scheduled=true

    ENTRY %main (x: bf16[64,32], w: bf16[32,16]) -> bf16[64,16] {
      %x = bf16[64,32]{1,0} parameter(0)
      %w = bf16[32,16]{1,0} parameter(1)
      %g = (bf16[64,16]{1,0}, s8[33554432]{0}) custom-call(%x, %w), TARGET
      ROOT %y = bf16[64,16]{1,0} get-tuple-element(%g), index=0
    }
  """)
  arrays = 2 * (64 * 32 + 32 * 16 + 64 * 16)
  for target, scratch in (('__cublas$lt$matmul', 0), ('tpu_call', 2**25)):
    found = hlo.traffic(
      text.replace('TARGET', f'custom_call_target="{target}"')
    )
    assert found.memory == arrays + scratch


def test_what_is_no_program_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.traffic('HloModule nothing')


def compiled(function, *args, **options):
  return jax.jit(function, **options).lower(*args).compile()


def test_a_program_of_eight_devices_sends_what_its_shapes_say():
  mesh = sharding.make_mesh(data=1, fsdp=8)
  weights = jax.ShapeDtypeStruct((12, 64, 64), jnp.float32)
  weights = sharding.annotate({'w': weights}, mesh)['w']
  batch = jax.ShapeDtypeStruct(
    (16, 64), jnp.float32, sharding=sharding.batched(mesh)
  )

  def loss(weights, batch):
    layer = lambda x, w: (jnp.tanh(x @ w), None)
    return jax.lax.scan(layer, batch, weights)[0].sum()

  gradient = compiled(
    jax.grad(loss), weights, batch, out_shardings=weights.sharding
  )
  found = hlo.traffic(gradient.as_text())
  layer = 64 * 64 * 4
  # Forward and backward gather each layer; its gradient is summed.
  assert found.sent == {
    'all-gather': 2 * 12 * layer * 7 / 8,
    'all-reduce': 12 * 2 * layer * 7 / 8,
  }
  assert found.calls == {'all-gather': 24, 'all-reduce': 12}


def test_memory_without_a_loop_is_what_xla_counts():
  args = [jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 3

  def function(x, y, z):
    return jnp.tanh(x @ y) @ z + 1

  program = compiled(function, *args)
  ours = hlo.traffic(program.as_text()).memory
  theirs = program.cost_analysis()['bytes accessed']
  assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize('depth', [4, 16])
def test_a_loop_reads_a_slice_of_its_stack_in_each_turn(depth):
  weights = jax.ShapeDtypeStruct((depth, 128, 128), jnp.float32)
  x = jax.ShapeDtypeStruct((128,), jnp.float32)

  def function(weights, x):
    return jax.lax.scan(lambda x, w: (jnp.tanh(w @ x), None), x, weights)[0]

  found = hlo.traffic(compiled(function, weights, x).as_text())
  # Each turn reads its slice, writes it and reads it again, at most.
  stack = depth * 128 * 128 * 4
  assert stack <= found.memory <= 3.2 * stack
