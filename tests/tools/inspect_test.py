import cv2
import matplotlib.figure
import numpy as np
import pytest

from vit_jax.ops import augment
from vit_jax.ops.distort import OPS
from vit_jax.tools import command, inspect
from vit_jax.tools.pictures import augmentations


@pytest.fixture
def few(monkeypatch):
  """Small images and one cheap augmentation of each kind, to compile less."""
  monkeypatch.setattr(augmentations, 'SIZE', 32)
  for table, name in (
    (augment.AUGMENTS, 'flip'),
    (augment.NORMALIZED, 'random_erasing'),
  ):
    for other in table.keys() - {name}:
      monkeypatch.delitem(table, other)


def test_the_sheet_has_every_operation_and_augmentation_with_its_name(few):
  figure = augmentations.contact_sheet(augmentations.photographs([]))
  top, bottom = figure.subfigs
  titles = [axis.get_title().partition(' ')[0] for axis in top.axes]
  assert titles == ['original', *OPS, 'cutout']
  labels = [axis.get_ylabel() for axis in bottom.axes]
  assert list(filter(None, labels)) == ['flip', 'random_erasing']
  original, *tiles = (axis.images[0].get_array() for axis in top.axes)
  for op, tile in zip([*OPS, 'cutout'], tiles, strict=True):
    assert np.any(tile != original), op
  first, second = augmentations.photographs([])
  flips = [axis.images[0].get_array() for axis in bottom.axes[:8]]
  for index, tile in enumerate(flips):
    image = (first, second)[index % 2]
    assert np.array_equal(tile, image) or np.array_equal(tile, image[:, ::-1])


def test_the_command_draws_the_images_that_it_is_given(
  few, tmp_path, monkeypatch, capsys
):
  image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
  cv2.imwrite(str(tmp_path / 'photo.png'), image)
  output = tmp_path / 'sheet.png'
  drawn = []
  sheet = augmentations.contact_sheet
  monkeypatch.setattr(
    augmentations,
    'contact_sheet',
    lambda images, **options: drawn.append(images) or sheet(images, **options),
  )
  args = ['augment', '-o', str(output), str(tmp_path / 'photo.png')]
  assert inspect.main(args) == 0
  assert drawn[0].shape == (1, 32, 32, 3)
  expected = cv2.resize(image, (48, 32), interpolation=cv2.INTER_AREA)
  np.testing.assert_array_equal(drawn[0][0], expected[:, 8:40, ::-1])
  assert cv2.imread(str(output)).shape[0] > 500
  assert str(output) in capsys.readouterr().out


@pytest.mark.parametrize('name', ['no_such.png', 'text.png'])
def test_what_is_no_image_is_one_short_message(name, tmp_path):
  (tmp_path / 'text.png').write_text('no image')
  args = ['augment', '-o', str(tmp_path / 'x.png'), str(tmp_path / name)]
  said = command(lambda: inspect.main(args))
  assert said.startswith('Error: ')


@pytest.fixture
def drawn(monkeypatch, tmp_path):
  """view, arguments -> the figure that the command writes."""

  def run(view, *args):
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
      matplotlib.figure.Figure,
      'savefig',
      lambda self, *args, **kwargs: (
        figures.append(self) or save(self, *args, **kwargs)
      ),
    )
    output = tmp_path / f'{view}.png'
    assert inspect.main([view, '-o', str(output), *map(str, args)]) == 0
    assert cv2.imread(str(output)).std() > 5
    (figure,) = figures
    return figure

  return run


@pytest.mark.parametrize(
  ('view', 'args', 'title', 'axes'),
  [
    # The model has one block of 4 heads; the last of the axes is the scale.
    ('attention', ['whole/a.png'], 'Attention of the token marked', 1 + 4 + 1),
    ('rollout', ['whole'], 'Attention rollout', 2 * 2 + 1),
    ('distance', ['whole'], 'Mean attention distance, 2 images of 16×16 px', 1),
    ('posembed', [], 'Cosine similarity of position embeddings', 1 + 1),
    ('filters', [], 'First 15 principal components of 16 filters', 2 * 14),
    ('landscape', ['--points=3'], 'Loss around the trained parameters', 1 + 1),
    ('batch', ['--most=6'], 'The batch of step 1 as the model sees it', 6),
  ],
)
def test_a_view_of_a_model_has_its_title_and_its_panels(
  small_run, images, drawn, view, args, title, axes
):
  args = [images / arg if 'whole' in arg else arg for arg in args]
  figure = drawn(view, f'--workdir={small_run}', *args)
  assert figure.get_suptitle().startswith(title)
  assert len(figure.axes) == axes


def test_maps_and_their_bar_share_a_scale(small_run, drawn):
  figure = drawn('attention', f'--workdir={small_run}')
  *_, bar = figure.axes
  scales = {
    (image.norm.vmin, image.norm.vmax)
    for axis in figure.axes[1:-1]
    for image in axis.images[1:]
  }
  assert len(scales) == 1 and bar.get_ylim() == scales.pop()
  assert 'uniform attention' in bar.get_ylabel()
  titles = [axis.get_title() for axis in figure.axes]
  assert titles == ['input', 'head 1', 'head 2', 'head 3', 'head 4', '']


def test_a_distance_has_a_point_for_each_head_and_its_unit(small_run, drawn):
  (axis,) = drawn('distance', f'--workdir={small_run}').axes
  heads, *_ = axis.lines
  assert len(heads.get_ydata()) == 4 and np.all(heads.get_ydata() > 0)
  assert axis.get_ylabel() == 'distance (pixels)'


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (
      ['attention', '--layers', '3'],
      'There is no layer 3; there are 0 block_0',
    ),
    (['attention', '--query=99,0'], 'is outside of the image of 16x16 pixels'),
    (['batch', '--at=0'], '--at=0 is no step: the first is 1'),
  ],
)
def test_a_question_that_has_no_answer_is_one_line(
  small_run, tmp_path, args, message
):
  view, *args = args
  args = [view, *('-o', str(tmp_path / 'x.png')), *args]
  said = command(lambda: inspect.main([*args, f'--workdir={small_run}']))
  assert message in said and '\n' not in said
  assert not (tmp_path / 'x.png').exists()
