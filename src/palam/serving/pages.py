"""The pages for people: one to try the bridges on, and one that describes the interface.

They are whole in themselves: no script, font or picture from elsewhere, and nothing is kept. The
trial page is written by hand: a framework of widgets would load its own scripts and fonts, which
the content security policy forbids, and keep what people write.
"""

import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from starlette.responses import HTMLResponse

from palam.errors import PalamError
from palam.serving.engine import Engine
from palam.tasks.loading import load_split
from palam.tasks.registry import get_task
from palam.utils.templating import render

PACKAGE = "palam.serving"
DEMO_TASK = "demo"
EXAMPLES = {
    "sin_Sinh": ("සිංහල", 1),
    "tam_Taml": ("தமிழ்", 4),
    "hin_Deva": ("हिन्दी", 5),
    "amh_Ethi": ("አማርኛ", 3),
    "arb_Arab": ("العربية", 7),
    "urd_Arab": ("اردو", 2),
    "mya_Mymr": ("မြန်မာ", 0),
    "swh_Latn": ("Kiswahili", 6),
}
"""Of each language its name in itself, and the row of the demonstration's texts."""
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Example(NamedTuple):
    """A text to try."""

    code: str
    language: str
    """In itself."""
    text: str


class Operation(NamedTuple):
    """One thing that the interface does."""

    method: str
    path: str
    description: str
    request: str | None
    """The name of its body's schema."""
    reply: str | None


class Pages:
    """The pages of one server.

    Args:
        engine: whose bridges are tried.
        root_path: under which a proxy shows the server.
    """

    def __init__(self, engine: Engine, root_path: str) -> None:
        self._engine = engine
        self._root_path = root_path.rstrip("/")

    def trial(self) -> HTMLResponse:
        """The page on which people try a bridge."""
        nonce = secrets.token_urlsafe(16)
        bridges = {
            name: list(bridge.words_by_label) for name, bridge in self._engine.bridges.items()
        }
        page = render(
            PACKAGE,
            "trial.html.j2",
            nonce=nonce,
            root_path=self._root_path,
            bridges=bridges,
            examples=self._examples,
        )
        return _page(page, nonce)

    def reference(self, schema: Mapping[str, Any]) -> HTMLResponse:
        """The interface described, from its OpenAPI schema."""
        nonce = secrets.token_urlsafe(16)
        page = render(
            PACKAGE,
            "reference.html.j2",
            root_path=self._root_path,
            title=schema["info"]["title"],
            version=schema["info"]["version"],
            description=schema["info"]["description"],
            operations=_operations(schema),
            schemas=schema["components"]["schemas"],
        )
        return _page(page, nonce)

    @cached_property
    def _examples(self) -> list[Example]:
        """Texts in several scripts, from the demonstration's."""
        task = get_task(DEMO_TASK)
        examples = []
        for code, (language, row) in EXAMPLES.items():
            try:
                rows = load_split(task, "test", code)
            except PalamError:  # another data folder is set
                continue
            examples.append(Example(code, language, rows[row % len(rows)].fields["text"]))
        return examples


def _page(page: str, nonce: str) -> HTMLResponse:
    headers = {"content-security-policy": POLICY.format(nonce=nonce)}
    return HTMLResponse(page, headers=headers)


def _operations(schema: Mapping[str, Any]) -> list[Operation]:
    """What an OpenAPI schema says can be done."""
    operations = []
    for path, methods in schema["paths"].items():
        for method, details in methods.items():
            replies = details["responses"]["200"].get("content", {})
            operations.append(
                Operation(
                    method=method.upper(),
                    path=path,
                    description=details.get("description", details["summary"]),
                    request=_schema_name(details.get("requestBody", {}).get("content", {})),
                    reply=_schema_name(replies),
                )
            )
    return operations


def _schema_name(content: Mapping[str, Any]) -> str | None:
    """The name of the schema of a JSON body."""
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    return str(reference).rpartition("/")[2] or None
