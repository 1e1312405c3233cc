"""Whether a checkpoint is what was written.

While a checkpoint still has its temporary name, after all processes have
written their parts, the first process adds `SHA256SUMS`, the hashes of all its
files in the form of the program sha256sum (`sha256sum -c SHA256SUMS` checks
them by hand); then one rename makes it count. It happens in the thread that
writes checkpoints. Orbax itself guards only the index of its arrays by
checksums, not their values.

A checkpoint that is damaged is set aside under another name. Of those, the
newest `KEPT_ASIDE` stay, once there is one that is whole.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from vit_jax import divergence

logger = logging.getLogger(__name__)

SUMS = 'SHA256SUMS'
# What a checkpoint says of itself, so that the loss of its sums is noticed;
# those of earlier versions have none.
MARK = {'checksums': SUMS}
DAMAGED = '.damaged'
KEPT_ASIDE = 3
# Here orbax puts what is no longer kept. A checkpoint counts from one rename to
# another: a kill leaves no half of one under its name.
DELETED = 'deleted'
# Larger files are read when their checkpoint is.
SMALL = 2**20
# The record that orbax keeps of a checkpoint.
RECORD = '_CHECKPOINT_METADATA'


class Sealed(ocp.path.atomicity.AtomicRenameTemporaryPath):
  """A directory in the making, which gets its sums before its name."""

  async def finalize(self):
    """Gives the directory its name, by which it counts."""
    final = self._final_path
    if not final.name.isdigit():  # an item of a checkpoint
      return await super().finalize()
    # The last files are written here, hence before the sums.
    staged = self._tmp_path.with_name(f'{self._tmp_path.name}-sealed')
    self._final_path = staged
    await super().finalize()
    seal(pathlib.Path(staged))
    os.rename(staged, final)


def seal(directory: pathlib.Path) -> None:
  """Writes the sums of all files of a directory."""
  names = _files(directory)
  lines = [
    f'{digest}  {name}\n'
    for name, digest in zip(names, _digests(directory, names), strict=True)
  ]
  with (directory / SUMS).open('w') as file:
    file.writelines(lines)
    file.flush()
    os.fsync(file.fileno())


def damage(
  directory: pathlib.Path, *, item: str = '', max_bytes: int | None = None
) -> str:
  """Says what is wrong with a checkpoint, such as 'model/d/3f has changed'.

  Args:
    directory: the checkpoint.
    item: 'model' reads the files of this part only; '' reads all.
    max_bytes: larger files must only be there; None for no such limit.

  Returns:
    '' if nothing is wrong; also for a checkpoint of an earlier version, which
    has no sums, if its record is there.
  """
  sums = directory / SUMS
  if not sums.exists():
    return _unsealed(directory)
  try:
    expected = dict(
      reversed(line.split('  ', maxsplit=1))
      for line in sums.read_text().splitlines()
    )
  except ValueError:
    return f'{SUMS} is not readable'
  there = _files(directory)
  for name in sorted(expected.keys() | set(there)):
    if name not in there:
      return f'{name} is missing'
    if name not in expected:
      return f'{name} is not in {SUMS}'
  names = [
    name
    for name in there
    if name.startswith(f'{item}/' if item else '')
    and (max_bytes is None or (directory / name).stat().st_size <= max_bytes)
  ]
  for name, digest in zip(names, _digests(directory, names), strict=True):
    if digest != expected[name]:
      return f'{name} has changed'
  return ''


def _unsealed(directory: pathlib.Path) -> str:
  """What is wrong with a checkpoint that has no sums."""
  try:
    record = json.loads((directory / RECORD).read_text())
    return f'{SUMS} is missing' if record['custom_metadata'] == MARK else ''
  except OSError:
    return f'{RECORD} is missing'
  except (ValueError, LookupError, TypeError):
    return f'{RECORD} is not readable'


def steps(directory: pathlib.Path) -> list[int]:
  """Lists the steps of the checkpoints that are complete."""
  return sorted(
    int(path.name)
    for path in directory.glob('[0-9]*')
    if path.is_dir() and path.name.isdigit()
  )


def check_whole(checkpoint: pathlib.Path, *, item: str = '') -> None:
  """Raises a ValueError if a checkpoint, or an item of it, is damaged."""
  if wrong := damage(checkpoint, item=item):
    raise ValueError(
      f'The checkpoint {checkpoint} is damaged: {wrong}. {_others(checkpoint)}'
    )


def check_finite(checkpoint: pathlib.Path, tree: Any) -> None:
  """Raises a ValueError if what was read holds a NaN or an infinity."""
  if names := divergence.not_finite(tree):
    raise ValueError(
      f'The checkpoint {checkpoint} is of a run that diverged: {names[0]} is '
      f'not finite. {_others(checkpoint)}'
    )


def _others(checkpoint: pathlib.Path) -> str:
  """What to do without this checkpoint."""
  there = [x for x in steps(checkpoint.parent) if str(x) != checkpoint.name]
  if not there:
    return 'There is no other.'
  return f'There are others, of the steps {there}: name one, or move it away.'


def keep_whole(directory: pathlib.Path) -> None:
  """Sets damaged checkpoints aside, with a warning; all processes must ask.

  The newest that is whole is read from end to end, of older ones `SMALL` files
  only.

  Args:
    directory: of the checkpoints of one run.

  Raises:
    ValueError: if there is none that is whole, but there were some.
  """
  sweep(directory)
  if jax.process_index() == 0:
    max_bytes = None
    for step in reversed(steps(directory)):
      path = directory / str(step)
      if wrong := damage(path, max_bytes=max_bytes):
        logger.warning(
          'The checkpoint %s is damaged: %s. It is set aside as %s.',
          *(path, wrong, set_aside(path).name),
        )
      else:
        max_bytes = SMALL
    aside = sorted(
      directory.glob(f'*{DAMAGED}*'), key=lambda path: path.stat().st_mtime
    )
    for path in aside[:-KEPT_ASIDE] if steps(directory) else ():
      logger.warning('%s was set aside long ago; it is deleted.', path)
      shutil.rmtree(path)
  multihost_utils.sync_global_devices('kept')
  damaged = sorted(path.name for path in directory.glob(f'*{DAMAGED}*'))
  if damaged and not steps(directory):
    raise ValueError(
      f'{directory} holds no checkpoint that is whole, only '
      f'{", ".join(damaged)}. Mend one of them and take away the end of its '
      'name, or give another --workdir.'
    )


def sweep(directory: pathlib.Path) -> None:
  """Removes the checkpoints that are no longer kept."""
  if jax.process_index() == 0:
    shutil.rmtree(directory / DELETED, ignore_errors=True)


def set_aside(directory: pathlib.Path) -> pathlib.Path:
  """Renames a checkpoint so that it does not count; returns where it lies."""
  aside = directory.with_name(directory.name + DAMAGED)
  number = 1
  while aside.exists():
    number += 1
    aside = directory.with_name(f'{directory.name}{DAMAGED}-{number}')
  directory.rename(aside)
  return aside


def _files(directory: pathlib.Path) -> list[str]:
  """The files below a directory, but for hidden ones and the sums."""
  return sorted(
    name
    for path in directory.rglob('*')
    if path.is_file()
    and not path.name.startswith('.')
    and (name := path.relative_to(directory).as_posix()) != SUMS
  )


def _digests(directory: pathlib.Path, names: Sequence[str]) -> list[str]:
  """The SHA-256 of each file."""

  def digest(name):
    with (directory / name).open('rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()

  # Hashing releases Python's lock.
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    return list(pool.map(digest, names))


class WriteError(OSError):
  """A checkpoint could not be written."""


@contextlib.contextmanager
def writing(directory: pathlib.Path) -> Iterator[None]:
  """Says in one line what orbax says in many, and what can be done.

  Args:
    directory: of the checkpoints of the run.

  Raises:
    WriteError: in place of the errors of orbax.
  """
  try:
    yield
  except (ValueError, OSError) as error:
    text = str(error).splitlines()[0]
    known = [os.strerror(e) for e in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)]
    reason = next((x for x in known if x in text), text)
    there = steps(directory)
    kept = f'those of the steps {there} are whole' if there else 'there is none'
    raise WriteError(
      f'A checkpoint could not be written to {directory}: {reason}. The run '
      f'stops; of its checkpoints, {kept}. Make room there, and give the same '
      'command again.'
    ) from error
