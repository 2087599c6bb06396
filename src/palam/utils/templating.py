"""Filling templates, which stand beside the code that uses them."""

import json
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

SHARED = "palam.utils"
"""The package whose `templates` every other template can extend and import."""


def render(package: str, name: str, /, **values: Any) -> str:
    """Fill a template; what is put into an HTML template is escaped.

    Args:
        package: the package in whose `templates` folder it is, e.g. `"palam.bench"`.
        name: the file's name, e.g. `"bench.html.j2"`.
        **values: what the template names; one that is missing is an error.

    Raises:
        jinja2.TemplateNotFound: neither that package nor `palam.utils` has the template.
        jinja2.UndefinedError: the template names a value that is not given.
    """
    return _environment(package).get_template(name).render(**values)


@cache
def _environment(package: str) -> Environment:
    """Where a package's templates are found and kept compiled, and the filters that they use."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(SHARED)]),
        undefined=StrictUndefined,
        autoescape=_is_html,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = table_cell
    environment.filters["json"] = to_json
    return environment


def _is_html(name: str | None) -> bool:
    """Whether a template of this name makes HTML."""
    return name is not None and name.endswith(".html.j2")


def table_cell(value: object) -> str:
    """A value as one cell of a Markdown table."""
    return str(value).replace("|", r"\|").replace("\n", " ")


def to_json(value: object) -> str:
    """A value as JSON, in its own script."""
    return json.dumps(value, ensure_ascii=False)
