"""Layer weights for the eye: a table for the terminal, a page, and the file formats."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text
from torch import Tensor

from palam.errors import PalamError
from palam.inference.layer_weights import LayerView
from palam.utils.files import atomic_file
from palam.utils.languages import find_language
from palam.utils.templating import render

SUFFIXES = (".html", ".json")
EVEN = 0.1
"""Layers whose shares differ by less, of an even share, are even: there is nothing to be seen."""


def language_tag(code: str | None) -> str | None:
    """The BCP 47 tag of a language code (`sin_Sinh`: `si-Sinh`); None if it is unknown."""
    language = find_language(code) if code else None
    if language is None:
        return None
    script = language.code[4:]
    return f"{language.iso1 or language.iso3}-{script}"


def percent(share: float) -> str:
    """A share as a percentage of at most three characters and a point."""
    percentage = 100 * share
    return f"{percentage:.1f}" if share < 0.0995 else f"{percentage:.0f}"


def is_even(shares: Sequence[float]) -> bool:
    """Whether all layers contribute nearly alike.

    Args:
        shares: of each layer; together they are 1.
    """
    return max(shares) - min(shares) < EVEN / len(shares)


def table(view: LayerView) -> Table:
    """For the terminal: tokens down, layers across; weight × norm in % of each token's sum."""
    result = Table(
        title="weight × norm, % of each token's sum",
        box=None,
        padding=(0, 1, 0, 0),
        show_footer=True,
    )
    footer = "mean weight × norm\nmean weight"
    result.add_column("token", footer=footer, no_wrap=True, min_width=18)
    mean_shares = view.shares.mean(0).tolist()
    mean_weights = view.weights.mean(0).tolist()
    for layer, share in enumerate(mean_shares):
        weight = mean_weights[layer]
        result.add_column(
            str(layer + 1),
            footer=f"{percent(share)}\n{percent(weight)}",
            justify="right",
            no_wrap=True,
            min_width=3,
        )
    for token, shares in zip(view.tokens, view.shares.tolist(), strict=True):
        cells = [percent(share) for share in shares]
        result.add_row(Text(token), *cells)
    return result


@dataclass(frozen=True)
class Panel:
    """One heat map, as the template `heatmap.html.j2` takes it."""

    title: str
    tag: str | None
    """The tokens' BCP 47 language tag."""
    rows: list[tuple[str, list[float]]]
    """Each token with its L values."""
    foot: list[float]
    """The mean over the tokens, of each layer."""
    top: float
    """The value at which the colour is full."""


def panel(
    title: str,
    view: LayerView,
    values: Tensor,
    top: float | None = None,
) -> Panel:
    """A heat map of values [tokens, L]; its colour is full at `top`, by default the largest."""
    highest = values.max().item() if top is None else top
    return Panel(
        title=title,
        tag=language_tag(view.language),
        rows=list(zip(view.tokens, values.tolist(), strict=True)),
        foot=values.mean(0).tolist(),
        top=max(highest, 1e-12),
    )


def page(view: LayerView) -> str:
    """One HTML page that needs no other file, with the weights and the weights × norms."""
    panels = [
        panel("Weight", view, view.weights),
        panel("Weight × norm", view, view.shares),
    ]
    return render(
        "palam.inference",
        "layers.html.j2",
        view=view,
        panels=panels,
        percent=percent,
    )


def check_path(path: str | os.PathLike[str]) -> str:
    """The file's suffix; raises now what `save` would raise after the model's work.

    Raises:
        PalamError: a suffix that is neither `.html` nor `.json`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise PalamError(
            f"{path}: a layer view is saved as {', '.join(SUFFIXES)}; give a file name that ends so"
        )
    return suffix


def save(view: LayerView, path: str | os.PathLike[str]) -> None:
    """Write a view as a page (`.html`) or data (`.json`), whole or not at all.

    Raises:
        PalamError: another suffix, or a file that cannot be written.
    """
    if check_path(path) == ".json":
        content = json.dumps(view.to_dict(), ensure_ascii=False) + "\n"
    else:
        content = page(view)
    with atomic_file(path) as file:
        file.write(content.encode(errors="replace"))
