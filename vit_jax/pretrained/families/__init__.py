"""What others call an architecture, and what they publish of it.

A file for each: `NAMES`, tables of names by family of checkpoints, and
`entries`, the published ones. Accuracies are top-1 on the validation set of
ImageNet-1k, in per cent, as `source` states them; None where none was found.
"""

import functools

from vit_jax.pretrained import augreg
from vit_jax.pretrained.entry import Entry
from vit_jax.pretrained.families import convnext, deit, mlp_mixer, swin, vit

# Reading takes the first in which all names of a file have a meaning.
NAMES = {
  **vit.NAMES,
  **mlp_mixer.NAMES,
  **convnext.NAMES,
  **swin.NAMES,
}
_ENTRIES = (
  vit.entries,
  augreg.entries,
  mlp_mixer.entries,
  deit.entries,
  swin.entries,
  convnext.entries,
)


@functools.cache
def entries() -> dict[str, Entry]:
  """All published checkpoints by name."""
  return {entry.name: entry for each in _ENTRIES for entry in each()}
