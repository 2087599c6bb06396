"""The navigation of pages of source code, made once for all that are as deep.

It is the list of all pages, which takes longer to make than the page. Pages of source code are not
in it, so that it differs among them in how far the links go up, and in nothing else.
"""

from collections.abc import Callable
from typing import Any

from sphinx.application import Sphinx

FOLDER = "_modules/"
BEFORE_THE_THEME = 400
"""Themes ask for the navigation at 500."""


class SharedNavigation:
    """Lets the pages of source code share what makes their list of pages."""

    def __init__(self) -> None:
        self._lists: dict[Any, str] = {}

    def __call__(
        self, app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], *_: Any
    ) -> None:
        """For the event `html-page-context`."""
        if pagename.startswith(FOLDER) and "toctree" in context:
            context["toctree"] = self.shared(context["toctree"], pagename.count("/"))

    def shared(self, toctree: Callable[..., str], depth: int) -> Callable[..., str]:
        """The same list, made once for each depth and each choice of options."""

        def list_of_pages(**options: Any) -> str:
            key = (depth, *sorted(options.items()))
            if key not in self._lists:
                self._lists[key] = toctree(**options)
            return self._lists[key]

        return list_of_pages


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hook."""
    app.connect("html-page-context", SharedNavigation(), priority=BEFORE_THE_THEME)
    return {"parallel_read_safe": True}
