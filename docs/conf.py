"""How the pages are built: `make docs`, or `sphinx-build -W -b html docs docs/_build`."""

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import palam

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Palam"
author = "Palam contributors"
copyright = author
version = release = palam.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "command_help",
    "markdown_docstrings",
    "repository_links",
    "room_pages",
    "source_navigation",
]
exclude_patterns = ["_build"]

myst_heading_anchors = 4  # `guide.md#resume`

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "show-inheritance": True,
}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True  # as they are written
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # "Attributes:" beside the fields' own docstrings
suppress_warnings = ["ref.python"]  # attributes of one name in several classes
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"Palam {release}"


def skip_routing_methods(app: Sphinx, kind: str, name: str, *_: Any) -> bool | None:
    """Leave out `set_fit_request` and its kin, which scikit-learn writes into its estimators."""
    return True if re.search(r"\bset_\w+_request$", name) else None


def setup(app: Sphinx) -> None:
    """Connect the hook."""
    app.connect("autodoc-skip-member", skip_routing_methods, priority=100)
