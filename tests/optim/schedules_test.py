import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_jax.optim import schedules

EXTRA = {'exponential': {'every': 7}, 'wsd': {'cooldown': 20}}


def make(name, **options):
  extra = EXTRA[name] if name in EXTRA else {}
  return schedules.SCHEDULES[name](
    0.5, **{'total_steps': 100, 'warmup': 10, **extra, **options}
  )


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_a_schedule_warms_up_linearly_to_the_peak(name):
  rate = make(name, start=0.1)
  np.testing.assert_allclose(
    [rate(0), rate(5), rate(10)], [0.1, 0.3, 0.5], rtol=1e-6
  )


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_a_schedule_without_warm_up_starts_at_the_peak(name):
  np.testing.assert_allclose(make(name, warmup=0)(0), 0.5, rtol=1e-6)


@pytest.mark.parametrize('name', ['cosine', 'linear', 'wsd'])
def test_a_schedule_arrives_at_its_end_and_stays_there(name):
  rate = make(name, end=1e-5)
  np.testing.assert_allclose([rate(100), rate(120)], [1e-5] * 2, rtol=1e-6)


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_a_schedule_is_float32_and_the_same_under_jit(name):
  rate = make(name)
  traced = jax.jit(rate)(np.int32(42))
  assert traced.dtype == np.float32 and traced.shape == ()
  np.testing.assert_allclose(traced, rate(42), rtol=1e-6)


@given(
  name=st.sampled_from(sorted(schedules.SCHEDULES)),
  step=st.integers(10, 99),
)
def test_a_rate_never_rises_after_the_warm_up(name, step):
  rate = make(name)
  assert rate(step + 1) <= rate(step)


def test_cosine_and_linear_have_their_closed_forms():
  np.testing.assert_allclose(
    make('cosine')(40), 0.25 * (1 + np.cos(np.pi / 3)), rtol=1e-6
  )
  np.testing.assert_allclose(make('linear')(40), 0.5 * 2 / 3, rtol=1e-6)


def test_wsd_is_flat_between_warm_up_and_cooldown():
  rate = make('wsd')
  np.testing.assert_allclose(
    [rate(11), rate(80), rate(90)], [0.5, 0.5, 0.25], rtol=1e-6
  )


def test_exponential_goes_down_a_staircase_from_the_warm_up_on():
  rate = make('exponential', every=20, factor=0.9)
  np.testing.assert_allclose(
    [rate(step) for step in (10, 29, 30, 49, 50, 100)],
    [0.5, 0.5, 0.45, 0.45, 0.405, 0.5 * 0.9**4],
    rtol=1e-6,
  )


@pytest.mark.parametrize(
  ('options', 'words'),
  [({'every': 0}, 'every=0'), ({'factor': 1.1}, 'factor=1.1')],
)
def test_exponential_falls_by_whole_steps(options, words):
  with pytest.raises(ValueError, match=words):
    make('exponential', **options)


def test_rsqrt_has_the_rates_of_scaling_vision_transformers():
  rate = schedules.rsqrt(
    8e-4,
    total_steps=1_000_000,
    warmup=10_000,
    cooldown=50_000,
    timescale=10_000,
  )
  steps = [10_000, 20_000, 100_000, 400_000, 950_000, 975_000, 1_000_000]
  np.testing.assert_allclose(
    [rate(step) for step in steps],
    [8e-4, 5.657e-4, 2.530e-4, 1.265e-4, 8.208e-5, 4.051e-5, 0],
    rtol=2e-4,
  )


def test_rsqrt_without_cooldown_does_not_stop():
  np.testing.assert_allclose(make('rsqrt', timescale=30)(100), 0.25, rtol=1e-6)


@pytest.mark.parametrize('name', schedules.SCHEDULES)
@pytest.mark.parametrize(
  'options, words',
  [
    ({'warmup': 101}, 'warmup=101'),
    ({'warmup': -1}, 'warmup=-1'),
    ({'total_steps': 0}, 'total_steps=0'),
  ],
)
def test_a_duration_that_does_not_fit_is_an_error(name, options, words):
  with pytest.raises(ValueError, match=words):
    make(name, **options)


def test_a_cooldown_must_fit_behind_the_warm_up():
  with pytest.raises(ValueError, match='cooldown=95'):
    make('rsqrt', cooldown=95)


def test_rsqrt_needs_a_timescale():
  with pytest.raises(ValueError, match='timescale=0'):
    make('rsqrt', timescale=0)
