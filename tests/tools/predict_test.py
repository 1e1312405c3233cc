import json

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import data, experiment
from vit_jax.tools import command, predict
from vit_jax.tools.work import predict as work
from vit_jax.trained import load

CLASSES = {'cat', 'cow', 'dog'}


def as_json(capsys, *args):
  """The exit code, and what the tool prints."""
  code = predict.main(['--json', *map(str, args)])
  return code, json.loads(capsys.readouterr().out)


def softmax_of(workdir, path, *, step=None):
  """The probabilities of one image, by hand."""
  trained = load(workdir, step=step)
  transform = data.build_transforms(trained.run['config']['preprocess'])
  rng = np.random.default_rng(0)  # the preprocessing draws nothing
  image = transform(data.decode(path.read_bytes()), rng)
  batch = experiment.dummy_batch(image.shape) | {
    'image': jnp.asarray(image[None])
  }
  output = trained.predict(trained.params, trained.state, batch)
  p = np.exp(np.asarray(output.logits[0], np.float64))
  return p / p.sum()


@pytest.mark.parametrize('name', ['a.png', 'b.jpg'])
def test_classes_and_probabilities_are_the_softmax_of_the_model(
  small_run, images, capsys, name
):
  path = images / 'whole' / name
  code, (row,) = as_json(capsys, f'--workdir={small_run}', path)
  assert code == 0 and row['image'] == str(path)
  expected = softmax_of(small_run, path)
  order = np.argsort(-expected)
  names = np.array(sorted(CLASSES))[order].tolist()
  assert [c['class'] for c in row['classes']] == names
  np.testing.assert_allclose(
    [c['probability'] for c in row['classes']], expected[order], rtol=1e-5
  )


def test_a_broken_image_does_not_hide_the_others(small_run, images, capsys):
  code, rows = as_json(capsys, f'--workdir={small_run}', images / 'broken')
  assert code == 1
  found = {row['image'].rpartition('/')[2]: row['classes'] for row in rows}
  assert {name: len(classes) for name, classes in found.items()} == {
    'c.png': 3,
    'd.jpg': 0,
    'e.png': 3,
  }
  expected = softmax_of(small_run, images / 'broken' / 'e.png')
  assert found['e.png'][0]['probability'] == pytest.approx(expected.max())


def test_files_folders_and_addresses_go_together(small_run, images, capsys):
  code, rows = as_json(
    capsys,
    *(f'--workdir={small_run}', '--top=1', images / 'whole' / 'a.png'),
    *(images / 'whole', f'{images}/all.npz[:4]'),
  )
  assert code == 0 and len(rows) == 1 + 2 + 4
  assert all(len(row['classes']) == 1 for row in rows)
  assert rows[0] == rows[1]


def test_more_images_than_a_batch_are_each_named_once(
  small_run, images, capsys, monkeypatch
):
  address = f'{images}/all.npz'
  _, whole = as_json(capsys, f'--workdir={small_run}', address)
  monkeypatch.setattr(work, 'BATCH_SIZE', 8)
  _, parts = as_json(capsys, f'--workdir={small_run}', address)
  assert [row['image'] for row in parts] == [row['image'] for row in whole]
  assert len(parts) == 20
  for one, other in zip(parts, whole, strict=True):
    assert one['classes'][0]['probability'] == pytest.approx(
      other['classes'][0]['probability'], rel=1e-5
    )


def test_an_earlier_step_can_be_asked(small_run, images, capsys):
  path = images / 'whole' / 'a.png'
  args = (f'--workdir={small_run}', '--step=2', '--top=1', path)
  _, (row,) = as_json(capsys, *args)
  expected = softmax_of(small_run, path, step=2).max()
  assert row['classes'][0]['probability'] == pytest.approx(expected)
  assert softmax_of(small_run, path).max() != pytest.approx(expected)


def test_the_table_names_images_classes_and_what_is_unreadable(
  small_run, images, capsys
):
  code = predict.main([f'--workdir={small_run}', str(images / 'broken')])
  out = capsys.readouterr().out
  assert code == 1
  assert 'step 4' in out and '(unreadable)' in out
  assert all(name in out for name in CLASSES) and out.count('%') >= 6


@pytest.mark.parametrize(
  ('workdir', 'args', 'message'),
  [
    ('images', ['x.png'], 'is no run directory'),
    ('run', ['--step=3', 'x.png'], r'no checkpoint of step 3; .*\[2, 4\]'),
    ('run', ['no_such.png'], 'no_such.png'),
  ],
)
def test_a_mistake_is_one_short_message(
  small_run, images, workdir, args, message
):
  workdir = {'run': small_run, 'images': images}[workdir]
  said = command(lambda: predict.main([f'--workdir={workdir}', *args]))
  assert isinstance(said, str) and said.startswith('Error: ')
  with pytest.raises(ValueError, match=message):
    predict.main([f'--workdir={workdir}', *args])
