"""From settings to a bridge that is solved and not trained, with a probe of the encoder's layers and the fusions."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from rich.console import Console

from palam.align.sample import Sample, probe, search
from palam.align.solving import batches, solve
from palam.align.suit import suit
from palam.card import model_card, public_name, render
from palam.device import dtype_name, pick_device, pick_dtype
from palam.files import check_free, replacing
from palam.model import MARKER
from palam.settings import TrainSettings
from palam.source import Data, read_data
from palam.tasks import read_texts
from palam.template import SLOT, Template
from palam.training.run import RESULTS, SETTINGS, Bases, build


def align(
    settings: TrainSettings, out: Path | None, *, console: Console | None = None, bases: Bases | None = None
) -> dict[str, Any]:
    """Solve a bridge from English text and compare every layer and fusion on a sample of it.

    Args:
        settings: of a training run; only those in `palam.settings.ALIGN` count. A file of raw text is streamed.
        out: the checkpoint's folder, which also gets `probe.html`; None only compares.
        console: for progress; None is silent.
        bases: encoder and LLM already loaded, in place of loading the settings'.

    Returns:
        `probe`, the rows of [`palam.align.probe`], and `solved`, what [`palam.align.solve`] found (if `out`).

    Raises:
        PalamError: a mistake in the settings or the data, or too little text.
    """
    console = console or Console(quiet=True)
    if out is not None:
        check_free(out, MARKER)
    settings = replace(settings, dtype=dtype_name(pick_dtype(settings.dtype, pick_device(settings.device))))
    raw, language = settings.text, settings.language or "en"
    data = Data(None, [], [], language, "") if raw else read_data(settings)
    model = build(settings, data, bases)
    if raw:
        prompt = settings.prompt or f"{SLOT}\n"
        model.processor.template = Template.build(settings.mode, prompt, model.processor.llm_tokenizer)
    rows = data.texts(data.train, settings.mode)

    def texts() -> Iterator[str]:
        return read_texts(raw) if raw else iter(rows)

    with console.status("comparing layers and fusions"):
        sample = Sample.take(model, batches(model, texts(), repeat(data.language)))
        search(model.bridge.fusion, sample)
        found: dict[str, Any] = {"probe": probe(model, sample)}
    if out is None:
        return found
    with console.status("solving the bridge"):
        solved = solve(model, texts(), repeat(data.language))
    found["solved"] = asdict(solved)
    if data.task and data.task.labels:
        with console.status("suiting it to the task"):
            found["task"] = suit(model, data.task, data.train, data.dev, data.language, seed=settings.seed)
    with replacing(out, marker=MARKER) as aside:
        model.write(aside, model_card(model, settings, {f"solved_{key}": value for key, value in vars(solved).items()}))
        (aside / SETTINGS).write_text(settings.to_yaml(), encoding="utf-8")
        (aside / RESULTS).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        names = public_name(settings.encoder), public_name(settings.llm)
        page = render("probe.html.j2", rows=found["probe"], bases=names, normalize=settings.normalize)
        (aside / "probe.html").write_text(page, encoding="utf-8", errors="replace")
    return found
