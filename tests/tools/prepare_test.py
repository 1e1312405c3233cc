import numpy as np
import PIL.Image
import pytest

from vit_jax import data
from vit_jax.tools import command
from vit_jax.tools.prepare import main as prepare_main
from vit_jax.tools.work import prepare


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  for split, count in {'train': 3, 'val': 1}.items():
    for name in ('cat', 'dog'):
      (tmp_path / split / name).mkdir(parents=True)
      for index in range(count):
        image = rng.integers(0, 256, (20 + 4 * index, 40, 3), np.uint8)
        PIL.Image.fromarray(image).save(
          tmp_path / split / name / f'{index}.png'
        )
  return tmp_path


def test_a_folder_is_shrunk_and_keeps_splits_classes_and_order(
  folder, tmp_path
):
  output = tmp_path / 'packed'
  counts = prepare.prepare(str(folder), output, size=10)
  assert counts == {'train': 6, 'val': 2}
  for split in counts:
    before = data.open(f'{folder}:{split}')
    after = data.open(f'{output}:{split}')
    assert after.class_names == before.class_names
    assert after.labels.tolist() == before.labels.tolist()
  shapes = [after[i]['image'].shape for i in range(2)]
  assert shapes == [(10, 20, 3)] * 2


def test_a_small_image_stays_as_it_is(folder, tmp_path):
  prepare.prepare(f'{folder}:val', tmp_path / 'packed', size=20)
  after = data.open(f'{tmp_path}/packed:val')
  before = data.decode(data.open(f'{folder}:val')[0]['image'])
  np.testing.assert_array_equal(after[0]['image'], before)


def test_grey_images_get_three_channels(tmp_path):
  image = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
  np.savez(tmp_path / 'grey.npz', image=image, label=[0, 1, 0, 1])
  prepare.prepare(f'{tmp_path}/grey.npz', tmp_path / 'packed', size=8)
  packed = data.open(str(tmp_path / 'packed'))[2]['image']
  np.testing.assert_array_equal(packed, np.stack([image[2]] * 3, -1))


def test_what_cannot_be_read_is_left_out_and_named(folder, tmp_path, caplog):
  (folder / 'train' / 'dog' / '1.png').write_bytes(b'nothing')
  counts = prepare.prepare(str(folder), tmp_path / 'packed', size=10)
  assert counts == {'train': 5, 'val': 2}
  assert data.open(f'{tmp_path}/packed').labels.tolist() == [0, 0, 0, 1, 1]
  assert 'dog/1.png' in caplog.text


def test_the_number_of_threads_changes_nothing(folder, tmp_path):
  for threads in (1, 3):
    output = tmp_path / str(threads)
    prepare.prepare(str(folder), output, size=10, num_threads=threads)
  one, three = (
    (tmp_path / str(n) / 'train' / 'pixels.bin').read_bytes() for n in (1, 3)
  )
  assert one == three


def test_the_command_prepares_checks_and_refuses(
  folder, tmp_path, monkeypatch, capsys
):
  output = tmp_path / 'packed'

  def run(*args):
    monkeypatch.setattr('sys.argv', ['prepare', *args])
    return command(prepare_main)

  args = (f'--data={folder}', f'--output={output}', '--size=10')
  assert run(*args) == 0
  assert 'train: 6 images in' in capsys.readouterr().out
  assert 'train exists; remove it' in run(*args)
  assert run(f'--check={output}') == 0
  assert 'as they were written' in capsys.readouterr().out
  path = output / 'val' / 'pixels.bin'
  path.write_bytes(bytes(path.stat().st_size))
  assert 'is damaged' in run(f'--check={output}')
  assert 'no packed images' in run(f'--check={folder}')
  assert '--size=0' in run(*args[:2], '--size=0')
