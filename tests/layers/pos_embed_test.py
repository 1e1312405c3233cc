import numpy as np
import pytest

from vit_jax.layers.pos_embed import sincos_2d


def test_the_quarters_are_sine_and_cosine_of_column_and_row():
  table = sincos_2d((3, 5), width=12)
  row, column, frequency = 2, 4, 10_000 ** -np.array([0, 0.5, 1])
  np.testing.assert_allclose(
    table[row * 5 + column],
    np.concatenate(
      [
        np.sin(column * frequency),
        np.cos(column * frequency),
        np.sin(row * frequency),
        np.cos(row * frequency),
      ]
    ),
    rtol=1e-5,
    atol=1e-6,
  )


def test_no_two_positions_are_alike():
  table = np.asarray(sincos_2d((4, 7), width=16))
  assert table.shape == (28, 16)
  distances = np.abs(table[:, None] - table[None]).sum(-1)
  assert (distances + np.eye(28) > 0.1).all()


@pytest.mark.parametrize('width', [4, 10])
def test_a_width_that_has_no_quarters_is_refused(width):
  with pytest.raises(ValueError, match=f'multiple of 4.*not {width}'):
    sincos_2d((2, 2), width=width)
