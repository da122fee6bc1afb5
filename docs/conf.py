"""How the site is built: `make docs`. Pages are Markdown, the reference is read from the code."""

import sys
from pathlib import Path

import qprune

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "qprune"
author = "the qprune developers"
copyright = "2026, the qprune developers"
release = version = qprune.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "public_names",
    "spec_keys",
    "code_words",
]
exclude_patterns = ["_build"]
highlight_language = "none"  # blocks without a language are what a terminal shows
smartquotes = False  # two hyphens are an option

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # headings can be linked to, as on a forge

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields stand in a list, not each as an entry of its own beside that of the class
napoleon_custom_sections = ["Source"]

# types of other libraries are shown, not linked: the site is built without a network
nitpick_ignore_regex = [("py:(?!obj).*", r"(?!qprune\.).*")]

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"qprune {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
