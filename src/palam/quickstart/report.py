"""The quickstart's result as one HTML page that needs nothing else: its sentences are computed from the numbers."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from palam.inference.layer_page import language_tag, panel, percent
from palam.inference.layer_weights import LayerView
from palam.tasks.registry import get_task
from palam.utils import languages
from palam.utils.files import atomic_file
from palam.utils.templating import render


def _mean(method: dict[str, Any], codes: list[str]) -> float | None:
    found = [method["results"][code]["accuracy"] for code in codes if code in method["results"]]
    return sum(found) / len(found) if found else None


def _layers_sentence(shares: Tensor) -> str:
    """Which layer counts most, on average over all tokens [tokens, L]."""
    mean = shares.mean(0)
    even, top = 1 / len(mean), int(mean.argmax())
    if mean.max() - mean.min() < 0.1 * even:
        return f"All layers count nearly alike: about {percent(even)} % each."
    return f"Layer {top + 1} counts most, {percent(mean[top].item())} % on average; an even share is {percent(even)} %."


def write_report(result: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the page, whole or not at all.

    Args:
        result: what was found, all shares from 0 to 1: `title`; `data`, a task's name (`"demo"`, `"sib200"`);
            `n_train`; `n_test`, of a language, and `n_alone`, of those that the LLM alone read; `command`, to try a
            sentence; `settings` and `seconds`, dictionaries;
            `methods`, first the LLM alone, then one for each fusion: `{"name", "results", "macro"}` as evaluation
            gives them; `languages`, in the table's order: `{"code", "name", "script"}`; `layers`, from
            [`LayerView.to_dict`]; `examples`: `{"language", "text", "label", "answers": {method: answer}}`. Optional:
            an example's `english`; `layers_method` (the last method); `versions` (those installed).
        path: of the file.

    Raises:
        PalamError: the file cannot be written.
    """
    methods = result["methods"]
    codes = [one["code"] for one in result["languages"]]
    unseen = [code for code in codes if languages.lookup(code) != languages.lookup("eng_Latn")]
    means = {m["name"]: _mean(m, unseen) for m in methods}
    rows = [
        {**one, "cells": [m["results"].get(one["code"]) for m in methods]}
        for one in result["languages"]
    ]
    views = list(map(LayerView.from_dict, result["layers"]))
    shares = torch.cat([view.shares for view in views]) if views else torch.zeros(1, 1)
    panels = [
        panel(languages.name(v.language or v.text), v, v.shares, shares.max().item()) for v in views
    ]
    installed = {"python": platform.python_version()} | {
        p: version(p) for p in ("palam", "torch", "transformers")
    }
    page = render(
        "quickstart.html.j2",
        result=result,
        rows=rows,
        unseen=unseen,
        means=means,
        everywhere={m["name"]: _mean(m, codes) for m in methods}
        if len(unseen) < len(codes)
        else {},
        best=max(
            (m["name"] for m in methods[1:]), key=lambda name: means[name] or 0.0, default=None
        ),
        topics=list(get_task(result["data"]).labels),
        panels=panels,
        layers_sentence=_layers_sentence(shares),
        language_name=languages.name,
        language_tag=language_tag,
        versions=result.get("versions", installed),
        percent=percent,
    )
    with atomic_file(path) as file:
        file.write(page.encode(errors="replace"))
