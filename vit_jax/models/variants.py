"""Names of model sizes, as the papers write them."""

from collections.abc import Mapping
from typing import Any

from vit_jax.lookup import unknown


def with_patch_size(
  name: str, *, sizes: Mapping[str, Mapping[str, int]], known: tuple[str, ...]
) -> dict[str, Any]:
  """The fields of a variant 'size/patch', e.g. 'B/16', with any patch size.

  Args:
    name: the variant.
    sizes: fields of each size, without the patch size.
    known: published variants, from which an error takes its hint.

  Raises:
    ValueError: if the size is not in the table or the patch is not a number.
  """
  size, _, patch = name.partition('/')
  if size not in sizes or not patch.isdecimal() or int(patch) == 0:
    raise unknown(name, known=known, kind='variant')
  return {**sizes[size], 'patch_size': int(patch)}
