"""Pages of the repository, as pages of the documentation.

The Markdown pages link relatively, to each other and to files of the repository, so that they can
be read there. Here a link to a module leads to its API page, and a link to another file of the
repository stays as its text. A page that only includes one of the repository's own
(CONTRIBUTING.md) is that page.
"""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INCLUDE = re.compile(r"```\{include\} (\S+)\n```\n")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def included_pages() -> dict[Path, Path]:
    """By page of the repository, the page of the documentation that includes it."""
    pages = {}
    for page in DOCS.glob("*.md"):
        match = INCLUDE.fullmatch(page.read_text(encoding="utf-8"))
        if match:
            pages[(DOCS / match[1]).resolve()] = page
    return pages


def converted_link(link: re.Match[str], folder: Path, page_folder: Path) -> str:
    """A link as it should stand in the documentation.

    Args:
        link: a match of `LINK`.
        folder: from which it is written.
        page_folder: of the page on which it will stand.
    """
    text, target = link["text"], link["target"]
    path, hash_sign, anchor = target.partition("#")
    if not path or re.match(r"\w+:", target):
        return link[0]
    file = (folder / path).resolve()
    file = included_pages().get(file, file)
    if file.is_relative_to(DOCS):
        return f"[{text}]({os.path.relpath(file, page_folder)}{hash_sign}{anchor})"
    if file.is_relative_to(ROOT / "src") and (file.is_dir() or file.suffix == ".py"):
        module = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
        return f"{{py:mod}}`{text.strip('`')} <{module.removesuffix('.__init__')}>`"
    return text


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Include what the page includes, and convert its links."""
    page = DOCS / f"{docname}.md"
    folder = page.parent
    include = INCLUDE.fullmatch(source[0])
    if include:
        included = (folder / include[1]).resolve()
        app.env.note_dependency(str(included))
        source[0] = included.read_text(encoding="utf-8")
        folder = included.parent
    parts = FENCE.split(source[0])
    for number in range(0, len(parts), 2):  # between code blocks
        parts[number] = LINK.sub(
            lambda link: converted_link(link, folder, page.parent), parts[number]
        )
    source[0] = "".join(parts)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hook."""
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True}
