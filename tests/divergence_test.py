"""Batches that make the loss NaN, wherever they come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_jax import checkpoint, divergence, experiment, feed, step
from vit_jax import train as train_module
from vit_jax.train import train


def rows(workdir):
  """The reports of steps, without what a clock says."""
  found = runs.without_times(workdir)
  return [row for row in found if 'train/learning_rate' in row]


def fingerprint(batch):
  label = batch['label']
  return jnp.sum(label * (1 + jnp.arange(len(label))) ** 2)


@pytest.fixture
def poison(tiny_config, monkeypatch):
  """A function of steps, whose batches are bad from now on."""
  tiny_config.model.depth = 1
  built = experiment.build(tiny_config.to_dict())
  # More than the run has: those that follow a rollback as well.
  longer = built._replace(total_steps=20)
  prints = [int(fingerprint(b)) for b in feed.batches(longer, first_step=0)]
  assert len(set(prints)) == 20

  def mark(*steps):
    bad = jnp.array([prints[step - 1] for step in steps])

    def build(config):
      built = experiment.build(config)

      def loss(params, state, batch, rng):
        value, aux = built.objective.loss(params, state, batch, rng)
        is_bad = jnp.any(fingerprint(batch) == bad)
        return jnp.where(is_bad, jnp.nan, 1.0) * value, aux

      return built._replace(objective=built.objective._replace(loss=loss))

    monkeypatch.setattr(train_module, 'build', build)
    return build(tiny_config.to_dict())

  with jax.debug_nans(False):
    yield mark


def assert_same_end(one, other):
  assert rows(one) == rows(other)
  jax.tree.map(
    np.testing.assert_array_equal,
    checkpoint.read_model(one),
    checkpoint.read_model(other),
  )


def test_a_step_that_is_skipped_did_not_happen(tiny_config, poison):
  """But for its number and the count, to the bit, and in what follows."""
  tiny_config.on_divergence = 'skip'
  tiny_config.objective.mixup = tiny_config.model.drop_path = 0.0  # no dice
  built = poison(2)
  take = jax.jit(step.make_step(built))
  first, bad, next_one = list(feed.batches(built, first_step=0))[:3]
  before, _ = take(jax.jit(step.make_init(built))(), first)
  after, scalars = take(before, bad)
  assert not np.isfinite(scalars['grad_norm'])
  assert (before.step, after.step) == (1, 2)
  assert (scalars['skipped'], scalars['skipped_in_a_row']) == (1, 1)
  same = dict(step=before.step, detours=before.detours)
  jax.tree.map(np.testing.assert_array_equal, before, after._replace(**same))
  with_it, one = take(after, next_one)
  without, other = take(before, next_one)
  assert (one['skipped'], one['skipped_in_a_row']) == (1, 0)
  assert one['learning_rate'] == other['learning_rate']
  same = dict(step=without.step, detours=without.detours)
  jax.tree.map(np.testing.assert_array_equal, without, with_it._replace(**same))


def test_skipped_steps_are_counted_also_by_a_run_that_goes_on(
  tiny_config, poison, tmp_path, monkeypatch, capsys
):
  tiny_config.on_divergence = 'skip'
  poison(2, 4, 5)
  train(tiny_config, tmp_path / 'whole')
  whole = rows(tmp_path / 'whole')
  assert [row['step'] for row in whole] == [1, 2, 3, 4, 5, 6]
  assert [row['train/skipped'] for row in whole] == [0, 1, 1, 2, 3, 3]
  assert 'train/grad_norm' in whole[2]
  assert 'train/grad_norm' not in whole[3]  # it is no number
  assert 'at step 4; it is skipped, as 2 so far.' in capsys.readouterr().out
  runs.stop(tiny_config, tmp_path / 'stopped', monkeypatch, evaluation=2)
  train(tiny_config, tmp_path / 'stopped')
  assert_same_end(tmp_path / 'whole', tmp_path / 'stopped')


def test_a_rollback_leaves_out_the_batches_since_the_checkpoint(
  tiny_config, poison, tmp_path, monkeypatch, caplog
):
  """The sixth batch is bad, and the eighth, which comes in its place."""
  tiny_config.on_divergence = 'rollback'
  tiny_config.checkpoint.keep = 3
  poison(6, 8)
  train(tiny_config, tmp_path / 'whole')
  whole = rows(tmp_path / 'whole')
  assert [row['step'] for row in whole] == [1, 2, 3, 4, 5, 6]
  assert [row['train/rollbacks'] for row in whole] == [0, 0, 0, 0, 2, 2]
  # Steps 5 and 6 took the batches 5 and 6, then 7 and 8, and now 9 and 10.
  assert whole[-1]['train/batches_left_out'] == 4
  assert 'Back to step 4' in caplog.text
  assert checkpoint.steps(tmp_path / 'whole') == [2, 4, 6]
  runs.stop(tiny_config, tmp_path / 'stopped', monkeypatch, evaluation=1)
  train(tiny_config, tmp_path / 'stopped')
  assert_same_end(tmp_path / 'whole', tmp_path / 'stopped')


def test_a_run_stopped_after_a_rollback_goes_on_with_the_other_batches(
  tiny_config, poison, tmp_path, monkeypatch
):
  """The checkpoint of step 4 says which batches were left out before it."""
  tiny_config.on_divergence = 'rollback'
  tiny_config.duration = '8 steps'
  tiny_config.eval_every = '5 steps'
  poison(3)
  train(tiny_config, tmp_path / 'whole')
  runs.stop(tiny_config, tmp_path / 'stopped', monkeypatch, evaluation=1)
  assert checkpoint.steps(tmp_path / 'stopped')[-1] == 4
  train(tiny_config, tmp_path / 'stopped')
  assert rows(tmp_path / 'stopped')[-1]['train/batches_left_out'] == 1
  assert_same_end(tmp_path / 'whole', tmp_path / 'stopped')


@pytest.mark.parametrize(
  ('policy', 'message'),
  [
    ('stop', r'at step 3\. The run stops; its checkpoint of step 2 is good\.'),
    ('skip', rf'at step 12, the {divergence.MAX_SKIPS}th in a row'),
    ('rollback', f'but {divergence.MAX_ROLLBACKS} ways on from it diverged'),
  ],
)
def test_a_run_that_cannot_go_on_stops_and_keeps_what_is_good(
  tiny_config, poison, tmp_path, policy, message
):
  tiny_config.on_divergence = policy
  tiny_config.duration = '15 steps'
  tiny_config.eval_every = '0 steps'
  poison(*range(3, 21))
  with pytest.raises(divergence.Diverged, match=message):
    train(tiny_config, tmp_path)
  _, model = checkpoint.read_model(tmp_path)
  assert not divergence.not_finite(model)
  assert '\n' not in message


def test_another_policy_may_be_given_when_a_run_goes_on(
  tiny_config, poison, tmp_path
):
  poison(6)
  with pytest.raises(divergence.Diverged):
    train(tiny_config, tmp_path)
  tiny_config.on_divergence = 'skip'
  train(tiny_config, tmp_path)
  assert rows(tmp_path)[-1]['train/skipped'] == 1


def test_without_a_checkpoint_there_is_no_way_back(
  tiny_config, poison, tmp_path
):
  tiny_config.on_divergence = 'rollback'
  poison(1)
  with pytest.raises(divergence.Diverged, match='there is no checkpoint yet'):
    train(tiny_config, tmp_path)


def test_arrays_that_are_not_finite_are_named():
  tree = {
    'params': {'kernel': jnp.ones(3), 'bias': jnp.array([1.0, jnp.inf])},
    'step': jnp.int32(0),
    'ema': None,
    'half': jnp.full(2, jnp.inf, jnp.bfloat16),
  }
  assert divergence.not_finite(tree) == ['half', 'params/bias']
  with pytest.raises(divergence.Diverged, match='half is .* nor are 1 other'):
    divergence.check_arrays(tree, step=3)
  divergence.check_arrays({'params': tree['params']['kernel']}, step=3)
