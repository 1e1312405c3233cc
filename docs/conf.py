"""How `make docs` makes the site: pages in Markdown, a reference from the code.

The home page is README.md. The reference has a page for each module, a section
for each room; no list of them is kept.
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

project = 'vit_jax'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
html_theme = 'furo'
html_title = 'vit_jax'
exclude_patterns = ['_build']
# `like this` in a docstring.
default_role = 'code'
nitpicky = False
# README.md and CONTRIBUTING.md link into the repository.
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_default_options = {'members': True, 'show-inheritance': False}
napoleon_google_docstring = True
napoleon_use_ivar = True
