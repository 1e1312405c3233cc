import pytest

from vit_jax.models.variants import with_patch_size

SIZES = {'S': {'width': 8}, 'L': {'width': 16}}


def test_size_and_patch_become_fields():
  fields = with_patch_size('L/28', sizes=SIZES, known=('L/16',))
  assert fields == {'width': 16, 'patch_size': 28}


@pytest.mark.parametrize('name', ['L', 'L/', 'l/16', 'L/x', 'L/0', 'L-16', ''])
def test_what_is_no_variant_is_refused(name):
  with pytest.raises(ValueError, match='Unknown variant.*Known: S/16, L/16'):
    with_patch_size(name, sizes=SIZES, known=('S/16', 'L/16'))
