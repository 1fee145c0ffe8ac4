"""How Sphinx builds this documentation: `tox -e docs` puts it into .tox/docs/html."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import pymdc  # noqa: E402  # from this checkout

project = "pymdc"
author = "the pymdc developers"
project_copyright = "2026, The pymdc developers"
version = release = pymdc.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosectionlabel", "sphinx_copybutton"]
autosectionlabel_prefix_document = True
exclude_patterns = ["_build"]
default_role = "any"  # `name` in a docstring or a page is a link
nitpicky = True

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the docstrings say what a parameter may be
autodoc_class_signature = "mixed"
maximum_signature_line_length = 100
smartquotes = False  # '' is the empty text
add_module_names = False
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

linkcheck_ignore = [r"https?://"]  # the build needs no internet

html_theme = "furo"
html_title = f"pymdc {release}"
html_static_path = ["_static"]
html_css_files = ["pymdc.css"]
html_show_sphinx = False
html_copy_source = False
pygments_style = "default"  # unlike "friendly", every colour has a contrast of 4.5 or more
pygments_dark_style = "github-dark"
