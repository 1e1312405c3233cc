import json

import jax
import pytest

from vit_jax import experiment, memory, metrics
from vit_jax import train as module
from vit_jax.train import train


@pytest.fixture
def config(tiny_config):
  """64 digits a step on 8 devices: 1, 2, 4 or 8 micro-batches."""
  tiny_config.batch_size = 64
  tiny_config.model.depth = 1
  tiny_config.augment = ()
  tiny_config.accumulate = -1
  tiny_config.evals = {}
  tiny_config.checkpoint.best = ''
  return tiny_config


def numbers(found):
  return [candidate.config['accumulate'] for candidate in found]


def usage(total, *, arguments=100):
  return memory.Usage(arguments, total - arguments, 0, 0, 0)


@pytest.fixture
def compiles(monkeypatch):
  """Steps that take 100 bytes and 800 more, divided; says which were asked."""
  asked = []

  def compile_step(candidate):
    asked.append(candidate.config['accumulate'])
    return memory.Compiled(asked[-1], asked[-1])

  sizes = lambda compiled: usage(100 + 800 // compiled.step)
  monkeypatch.setattr(memory, 'compile_step', compile_step)
  monkeypatch.setattr(memory, 'usage', sizes)
  return asked


def test_what_the_new_state_takes_over_from_the_old_counts_once():
  assert memory.Usage(100, 50, 110, 90, 7).total == 100 + 50 + 20 + 7


def test_micro_batches_split_over_the_devices(config):
  built = experiment.build(config.to_dict())
  assert numbers(memory.candidates(built)) == [1, 2, 4, 8]


def test_micro_batches_split_the_groups_of_sam(config):
  config.optim.sam = {'rho': 0.1, 'group_size': 4}
  built = experiment.build(config.to_dict())
  assert numbers(memory.candidates(built)) == [1, 2, 4]


@pytest.mark.parametrize(
  ('limit', 'parts'), [(900, 1), (899, 2), (500, 2), (499, 4), (200, 8)]
)
def test_the_fewest_micro_batches_that_fit_are_taken(
  config, compiles, caplog, limit, parts
):
  built = experiment.build(config.to_dict())
  found, compiled = memory.fit(built, limit=limit)
  assert found.config['accumulate'] == compiled.step == parts
  assert compiles == [n for n in (1, 2, 4, 8) if n <= parts]
  assert f'accumulate={parts} of {64 // parts} images' in caplog.text


def test_what_the_compiler_refuses_does_not_fit(config, compiles, monkeypatch):
  whole = memory.compile_step

  def refuse(candidate):
    if candidate.config['accumulate'] < 4:
      raise memory.TooLargeError('Ran out of memory on HBM')
    return whole(candidate)

  monkeypatch.setattr(memory, 'compile_step', refuse)
  built = experiment.build(config.to_dict())
  found, _ = memory.fit(built, limit=1000)
  assert found.config['accumulate'] == 4


def test_if_nothing_fits_the_remedies_are_named(config, compiles):
  built = experiment.build(config.to_dict())
  with pytest.raises(ValueError, match='8: .*fsdp.*remat.*batch_size'):
    memory.fit(built, limit=150)


def test_a_state_that_is_too_large_is_not_compiled_again(config, compiles):
  built = experiment.build(config.to_dict())
  with pytest.raises(ValueError, match='No number of micro-batches fits'):
    memory.fit(built, limit=99)
  assert compiles == [1]


class Device:
  platform = 'gpu'

  def __init__(self, limit):
    self.limit = limit

  def memory_stats(self):
    return self.limit and {'bytes_limit': self.limit}


def test_the_smallest_device_sets_the_limit_less_a_reserve():
  devices = [Device(80 * memory.GIB), Device(40 * memory.GIB)]
  found = memory.budget(None, devices)
  assert found == pytest.approx(0.95 * 40 * memory.GIB, abs=2**20)


def test_what_the_user_says_is_taken_as_it_is():
  assert memory.budget(1.5, [Device(None)]) == 1.5 * memory.GIB


def test_a_device_that_does_not_tell_asks_for_a_number(config):
  built = experiment.build(config.to_dict())
  with pytest.raises(ValueError, match=r'cpu does not tell.*memory_gib=16'):
    memory.settle(built)


@pytest.mark.parametrize('parts', [0, -2])
def test_no_other_number_stands_for_a_choice(config, parts):
  config.accumulate = parts
  with pytest.raises(ValueError, match=f'accumulate={parts} is no number'):
    experiment.build(config.to_dict())


def test_a_refusal_of_the_compiler_is_told_from_its_failures(
  config, monkeypatch
):
  class Lowered:
    def lower(self, *_):
      return self

    def compile(self):
      raise jax.errors.JaxRuntimeError(message)

  monkeypatch.setattr(memory, 'jit_step', lambda *_: Lowered())
  config.accumulate = 1
  built = experiment.build(config.to_dict())
  message = 'RESOURCE_EXHAUSTED: Ran out of memory on HBM\nmore'
  with pytest.raises(memory.TooLargeError, match='on HBM$'):
    memory.compile_step(built)
  message = 'INTERNAL: a bug'
  with pytest.raises(jax.errors.JaxRuntimeError, match='a bug'):
    memory.compile_step(built)


def losses(workdir):
  rows = metrics.read_rows(workdir / 'metrics.jsonl')
  return [row['train/loss'] for row in rows if 'train/loss' in row]


def test_a_run_takes_what_fits_keeps_it_and_resumes_exactly(
  config, tmp_path, caplog, monkeypatch
):
  config.duration = '4 steps'
  config.memory_gib = 1.0
  sizes = iter([usage(2 * memory.GIB), usage(memory.GIB)])
  monkeypatch.setattr(memory, 'usage', lambda _: next(sizes))
  with jax.log_compiles():
    train(config, tmp_path / 'whole')
  run = json.loads((tmp_path / 'whole' / 'run.json').read_text())
  assert run['config']['accumulate'] == 2
  # One that did not fit, and one that was then run: not compiled again.
  assert caplog.text.count('Compiling jit(step)') == 2

  def stop(*args):
    save(*args)
    raise KeyboardInterrupt

  save = module.save
  config.accumulate = 2
  with monkeypatch.context() as patch:
    patch.setattr(module, 'save', stop)
    with pytest.raises(KeyboardInterrupt):
      train(config, tmp_path / 'stopped')
  config.accumulate = -1
  # With more memory one would do now; nobody asks.
  monkeypatch.setattr(memory, 'fit', None)
  train(config, tmp_path / 'stopped')
  assert losses(tmp_path / 'stopped') == losses(tmp_path / 'whole')


def test_a_branch_keeps_the_number_of_the_run_that_it_leaves(
  config, tmp_path, monkeypatch
):
  config.accumulate = 2
  run = {'config': config.to_dict(), 'class_names': [], 'image_shape': []}
  (tmp_path / 'run.json').write_text(json.dumps(run))
  config.accumulate = -1
  monkeypatch.setattr(memory, 'fit', None)
  built = experiment.build(config.to_dict())
  runs = (tmp_path / 'new', f'{tmp_path}@3')
  found, step = memory.settle(built, runs=runs)
  assert found.config['accumulate'] == 2 and step is None
