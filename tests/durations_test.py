import pytest

from vit_jax import durations

RUN = dict(batch_size=32, num_examples=1000, total_steps=200)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (7, 7),
    ('7', 7),
    ('1 step', 1),
    ('10_000 steps', 10_000),
    ('2e3 steps', 2000),
    ('1.5e3steps', 1500),
    ('32 epochs', 1000),
    (' 1 epoch ', 32),  # 31.25
    ('0.5 epochs', 16),  # 15.625
    ('1e6 examples', 31_250),
    ('33 examples', 2),
    ('1 example', 1),
    ('0 steps', 0),
    ('10%', 20),
    ('0.6 %', 2),  # 1.2
    ('100%', 200),
  ],
)
def test_every_unit_becomes_steps_rounded_up(text, expected):
  assert durations.steps(text, **RUN) == expected


def test_a_rounding_error_is_not_one_more_step():
  # 1.1 * 100 is 110.00000000000001.
  steps = durations.steps('1.1 epochs', batch_size=1, num_examples=100)
  assert steps == 110


@pytest.mark.parametrize('text', ['', 'soon', '-5 steps', '3 days', '5 % 6'])
def test_what_is_no_duration_is_named_with_examples(text):
  with pytest.raises(ValueError, match='is no duration; .*90 epochs') as error:
    durations.steps(text, **RUN)
  assert repr(text) in str(error.value)


def test_a_run_cannot_last_a_part_of_itself():
  with pytest.raises(ValueError, match="'5%'; give steps, epochs or examples"):
    durations.steps('5%', batch_size=1, num_examples=1)


def test_resolve_leaves_everything_else_alone():
  tree = {
    'warmup': '10%',
    'nested': {'every': '2 epochs', 'best': 'test/accuracy'},
    'variant': 'B/16',
    'arg': '16',
    'data': 'digits:train[:50%]',
    'rate': 0.1,
    'betas': (0.9, 0.999),
    'nothing': None,
  }
  resolved = durations.resolve(tree, **RUN)
  changed = {'warmup': 20, 'nested': {'every': 63, 'best': 'test/accuracy'}}
  assert resolved == tree | changed
  assert tree['warmup'] == '10%'


def test_a_number_beyond_all_numbers_is_an_error():
  with pytest.raises(ValueError, match="'1e999 steps' is beyond"):
    durations.steps('1e999 steps', batch_size=8, num_examples=10)
