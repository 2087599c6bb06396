"""The long description: README.md with links that also lead somewhere outside the repository.

All else about the package is in pyproject.toml. Links are made absolute by its `Repository` URL
(`[project.urls]`); while there is none, the text of a link stays and its target goes, since a
relative one would lead nowhere.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def long_description(readme: str, repository: str | None, version: str) -> str:
    """README.md for a package index, without a relative link.

    Args:
        readme: the page in Markdown.
        repository: address of the repository's front page, or None if it has none.
        version: whose tag the links point at.
    """

    def absolute(link: re.Match[str]) -> str:
        if re.match(r"https?:|mailto:|#", link["target"]):
            return link[0]
        if repository is None:
            return "" if link["picture"] else link["text"]
        view = "raw" if link["picture"] else "blob"
        address = f"{repository.rstrip('/')}/{view}/v{version}/{link['target']}"
        return f"{link['picture']}[{link['text']}]({address})"

    return LINK.sub(absolute, readme)


if __name__ == "__main__":
    from setuptools import setup

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=long_description(
            (ROOT / "README.md").read_text(encoding="utf-8"),
            project.get("urls", {}).get("Repository"),
            project["version"],
        ),
        long_description_content_type="text/markdown",
    )
