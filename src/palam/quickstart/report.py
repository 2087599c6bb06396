"""The quickstart's report: one HTML page that needs no other file, its sentences computed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from palam.inference.layer_page import Panel, is_even, language_tag, panel, percent
from palam.quickstart.result import LanguageResult, QuickstartResult, ReadLanguage
from palam.tasks.registry import get_task
from palam.utils.files import atomic_file
from palam.utils.languages import find_language, language_name
from palam.utils.templating import render
from palam.utils.versions import installed_versions


@dataclass(frozen=True)
class TableRow:
    """A language's row of the table."""

    language: ReadLanguage
    cells: list[LanguageResult | None]
    """Of each method; None where it did not read the language."""


def write_report(result: QuickstartResult, path: str | os.PathLike[str]) -> None:
    """Write the page, whole or not at all.

    Args:
        result: what was measured.
        path: of the file.

    Raises:
        PalamError: the file cannot be written.
    """
    codes = [language.code for language in result.languages]
    english = find_language("eng_Latn")
    unseen = [code for code in codes if find_language(code) != english]
    means = {method.name: method.mean(unseen) for method in result.methods}
    means_of_all = {}
    if len(unseen) < len(codes):
        means_of_all = {method.name: method.mean(codes) for method in result.methods}
    rows = [
        TableRow(language, [method.results.get(language.code) for method in result.methods])
        for language in result.languages
    ]
    views = result.layers
    shares = torch.cat([view.shares for view in views]) if views else torch.zeros(1, 1)
    page = render(
        "palam.quickstart",
        "quickstart.html.j2",
        result=result,
        rows=rows,
        unseen=unseen,
        means=means,
        means_of_all=means_of_all,
        best=_best_bridge(result, means),
        topics=list(get_task(result.data).labels),
        panels=[] if is_even(shares.mean(0).tolist()) else _panels(result, shares),
        layers_sentence=describe_layers(shares),
        language_name=language_name,
        language_tag=language_tag,
        versions=installed_versions(),
        percent=percent,
    )
    with atomic_file(path) as file:
        file.write(page.encode(errors="replace"))


def describe_layers(shares: Tensor) -> str:
    """A sentence on which layer counts most.

    Args:
        shares: what each layer contributes to each token, [tokens, L].
    """
    mean = shares.mean(0)
    even_share = 1 / len(mean)
    if is_even(mean.tolist()):
        return f"All layers count nearly alike: about {percent(even_share)} % each."
    top = int(mean.argmax())
    highest = percent(mean[top].item())
    return (
        f"Layer {top + 1} counts most, {highest} % on average; "
        f"an even share is {percent(even_share)} %."
    )


def _best_bridge(result: QuickstartResult, means: Mapping[str, float | None]) -> str | None:
    """The bridge with the highest mean; None if there is no bridge."""
    bridges = [method.name for method in result.methods[1:]]
    return max(bridges, key=lambda name: means[name] or 0.0, default=None)


def _panels(result: QuickstartResult, shares: Tensor) -> list[Panel]:
    """A heat map for each view, their colours on one scale."""
    top = shares.max().item()
    panels = []
    for view in result.layers:
        title = language_name(view.language or view.text)
        panels.append(panel(title, view, view.shares, top))
    return panels
