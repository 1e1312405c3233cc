"""How `make docs` makes the site: pages in Markdown, a reference from the code.

The home page is README.md. The reference has a page for each room and a section
for each of its modules; they are found, not listed.
"""

import itertools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / 'docs'
sys.path.insert(0, str(ROOT))

project = html_title = 'vit_jax'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
html_theme = 'furo'
html_show_copyright = False
myst_enable_extensions = ['html_image']
default_role = 'code'  # of `this` in a docstring
autodoc_default_options = {'members': True, 'ignore-module-all': True}
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
napoleon_attr_annotations = False
napoleon_use_ivar = True

# What ends the plain text of a docstring.
SECTION = re.compile(r'(Args|Returns|Yields|Raises|Attributes):$')


def write_reference(app):
  """A page for each room of the package."""
  rooms = {}
  for path in sorted((ROOT / 'vit_jax').rglob('*.py')):
    parts = path.relative_to(ROOT).with_suffix('').parts
    name = '.'.join(part for part in parts if part != '__init__')
    if name != 'vit_jax' and parts[-1] != '__main__':
      rooms.setdefault('.'.join(parts[:2]), []).append(name)
  (DOCS / 'reference').mkdir(exist_ok=True)
  for room, names in rooms.items():
    page = f'# {room}\n'
    for name in names:
      heading = f'\n## {name}\n' if name != room else ''
      page += f'{heading}\n```{{eval-rst}}\n.. automodule:: {name}\n```\n'
    path = DOCS / 'reference' / f'{room.removeprefix("vit_jax.")}.md'
    if not path.exists() or path.read_text() != page:
      path.write_text(page)


def fill_in(app, name, source):
  """Puts what stands at the root of the repository into the site."""
  for page, file in (
    ('index', 'README.md'),
    ('contributing', 'CONTRIBUTING.md'),
  ):
    if name == page:
      text = (ROOT / file).read_text().replace('"docs/', '"')
      source[0] = f'{text.replace("](docs/", "](")}\n{source[0]}'
  source[0] = re.sub(
    r'\((\.\./)?CONTRIBUTING\.md\)', '(contributing.md)', source[0]
  )


def is_left_out(app, what, name, obj, skip, options):
  """The fields of a tuple: its docstring says what they are."""
  doc = getattr(obj, '__doc__', None) or ''
  return True if doc.startswith('Alias for field number') else skip


def from_plain_text(app, what, name, obj, options, lines):
  """Docstrings are plain text, in which only `this` means something."""
  ends = [i for i, line in enumerate(lines) if SECTION.match(line)]
  end = ends[0] if ends else len(lines)
  text, literal, item = [], False, False
  for line in lines[:end]:
    indented = line.startswith('  ')
    if line and not indented:
      begins = line.startswith('- ')
      if text and text[-1][1] and (literal or item or begins):
        text.append((False, ''))
      literal, item = False, begins
    elif indented and not item and not literal:
      text.append((False, '\n::\n'))
      literal = True
    text.append((literal, line))
  text += [(False, line) for line in lines[end:]]
  lines.clear()
  for literal, group in itertools.groupby(text, key=lambda pair: pair[0]):
    block = '\n'.join(line for _, line in group)
    lines += (block if literal else escaped(block)).split('\n')


def escaped(text):
  """Stars, bars and final underscores, but not in `code`."""
  parts = re.split(r'(`[^`]*`)', text)
  parts[::2] = [re.sub(r'([*|\\]|_(?=\W|$))', r'\\\1', x) for x in parts[::2]]
  return ''.join(parts)


def setup(app):
  """Connects these."""
  app.connect('builder-inited', write_reference)
  app.connect('source-read', fill_in)
  app.connect('autodoc-skip-member', is_left_out)
  # Before that of napoleon.
  app.connect('autodoc-process-docstring', from_plain_text, priority=400)
