"""Lists the tools, `python -m vit_jax.tools`; with a name, runs one."""

import sys
from collections.abc import Sequence

from vit_jax.lookup import choose
from vit_jax.tools import (
  command,
  demo,
  evaluate,
  export,
  inspect,
  plan,
  predict,
  prepare,
  report,
  scaling_laws,
  sweep,
  zoo,
)

# `python -m vit_jax.tools NAME` is `python -m vit_jax.tools.NAME`.
TOOLS = {
  'demo': demo,
  'evaluate': evaluate,
  'export': export,
  'inspect': inspect,
  'plan': plan,
  'predict': predict,
  'prepare': prepare,
  'report': report,
  'scaling_laws': scaling_laws,
  'sweep': sweep,
  'zoo': zoo,
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the tool that the first word names, or lists all."""
  words = list(sys.argv[1:] if argv is None else argv)
  if not words or words[0] in ('-h', '--help'):
    for name, tool in TOOLS.items():
      line = (tool.__doc__ or '').partition('\n')[0].partition(':')[0]
      print(f'  python -m vit_jax.tools.{name:<13} {line.rstrip(".")}')
    print('\nEach has --help. To train: python -m vit_jax.main --help')
    return 0
  return choose(TOOLS, word=words[0], kind='tool').main(words[1:])


if __name__ == '__main__':
  sys.exit(command(main))
