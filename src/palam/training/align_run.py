"""From settings to a bridge that is solved and not trained, with a probe of the encoder's layers and the fusions."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from rich.console import Console

from palam.alignment.layer_probe import AlignedSample, fit_fusion_weights, probe_layers
from palam.alignment.solve import aligned_batches, solve_bridge
from palam.inference.calibration import calibrate_to_task
from palam.models.checkpoint import CHECKPOINT_MARKER
from palam.models.model_card import model_card, public_name
from palam.models.template import SLOT, Template
from palam.tasks.readers import read_texts
from palam.training.build import Bases, build_model
from palam.training.config import TrainConfig
from palam.training.data import TrainingData, read_training_data
from palam.training.run import RESULTS, SETTINGS
from palam.utils.device import dtype_name, pick_device, pick_dtype
from palam.utils.files import atomic_directory, check_replaceable
from palam.utils.templating import render


def run_alignment(
    settings: TrainConfig,
    out: Path | None,
    *,
    console: Console | None = None,
    bases: Bases | None = None,
) -> dict[str, Any]:
    """Solve a bridge from English text and compare every layer and fusion on a sample of it.

    Args:
        settings: of a training run; only those in `palam.training.config.ALIGN` count. A file of raw text is streamed.
        out: the checkpoint's folder, which also gets `probe.html`; None only compares.
        console: for progress; None is silent.
        bases: encoder and LLM already loaded, in place of loading the settings'.

    Returns:
        `probe`, the rows of [`palam.alignment.layer_probe.probe_layers`], and `solved`, what [`palam.alignment.solve.solve_bridge`] found (if `out`).

    Raises:
        PalamError: a mistake in the settings or the data, or too little text.
    """
    console = console or Console(quiet=True)
    if out is not None:
        check_replaceable(out, CHECKPOINT_MARKER)
    settings = replace(
        settings, dtype=dtype_name(pick_dtype(settings.dtype, pick_device(settings.device)))
    )
    raw, language = settings.text, settings.language or "en"
    data = TrainingData(None, [], [], language, "") if raw else read_training_data(settings)
    model = build_model(settings, data, bases)
    if raw:
        prompt = settings.prompt or f"{SLOT}\n"
        model.processor.template = Template.build(
            settings.mode, prompt, model.processor.llm_tokenizer
        )
    rows = data.texts(data.train, settings.mode)

    def texts() -> Iterator[str]:
        return read_texts(raw) if raw else iter(rows)

    with console.status("comparing layers and fusions"):
        sample = AlignedSample.take(model, aligned_batches(model, texts(), repeat(data.language)))
        fit_fusion_weights(model.bridge.fusion, sample)
        found: dict[str, Any] = {"probe": probe_layers(model, sample)}
    if out is None:
        return found
    with console.status("solving the bridge"):
        solved = solve_bridge(model, texts(), repeat(data.language))
    found["solved"] = asdict(solved)
    if data.task and data.task.labels:
        with console.status("suiting it to the task"):
            found["task"] = calibrate_to_task(
                model, data.task, data.train, data.dev, data.language, seed=settings.seed
            )
    with atomic_directory(out, marker=CHECKPOINT_MARKER) as aside:
        model.write(
            aside,
            model_card(
                model, settings, {f"solved_{key}": value for key, value in vars(solved).items()}
            ),
        )
        (aside / SETTINGS).write_text(settings.to_yaml(), encoding="utf-8")
        (aside / RESULTS).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        names = public_name(settings.encoder), public_name(settings.llm)
        page = render(
            "probe.html.j2", rows=found["probe"], bases=names, normalize=settings.normalize
        )
        (aside / "probe.html").write_text(page, encoding="utf-8", errors="replace")
    return found
