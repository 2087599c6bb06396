"""A bridge that is solved and not trained, and a comparison of what it can be solved from."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from rich.console import Console

from palam.alignment.layer_probe import AlignedSample, ProbeRow, probe_layers
from palam.alignment.solve import AlignmentResult, aligned_batches, solve_bridge
from palam.errors import PalamError
from palam.inference.calibration import TaskCalibration, calibrate_to_task
from palam.models.bases import Bases
from palam.models.checkpoint import CHECKPOINT_MARKER, bridge_card
from palam.models.model_card import public_name
from palam.models.model_config import ModelConfig
from palam.models.modeling import PalamModel
from palam.models.template import RAW_TEXT_PROMPT
from palam.training.build import build_model, resolve_dtype
from palam.training.config import DataConfig, RuntimeConfig, flat_settings, settings_to_yaml
from palam.training.data import TrainingData, raw_texts, read_training_data
from palam.training.place import run_place
from palam.training.run_folder import write_record
from palam.utils.files import atomic_directory, check_replaceable
from palam.utils.processes import check_single_process
from palam.utils.templating import render

PAGE_FILE = "probe.html"


def run_alignment(
    model: ModelConfig,
    data: DataConfig,
    runtime: RuntimeConfig,
    out: Path | None,
    *,
    console: Console | None = None,
    bases: Bases | None = None,
) -> dict[str, Any]:
    """Solve a bridge from English text, and compare every layer and fusion on a sample of it.

    Args:
        model: the base models, the bridge and the template.
        data: the text. A file of raw text is streamed.
        runtime: device, dtype and seed.
        out: the checkpoint's folder, which also gets a page of the comparison; None only compares.
        console: for progress; None is silent.
        bases: encoder and LLM already loaded, in place of loading the configuration's.

    Returns:
        `probe`, the rows of [`probe_layers`]. With `out` also `solved`, the [`AlignmentResult`] by
        name; and with a task that has labels, `task`, what [`calibrate_to_task`] chose.

    Raises:
        PalamError: a mistake in the settings or the data, or too little text; or another run
            writes to `out`, or this process is one of several.
    """
    console = console or Console(quiet=True)
    check_single_process("palam align")
    for name in ("soft_label_file", "lexicon"):
        if getattr(data, name) is not None:
            raise PalamError(f"{name} is learned in training; no bridge is solved from it")
    if out is None:
        return _align_into(None, model, data, runtime, console, bases)
    with run_place(out):
        check_replaceable(out, CHECKPOINT_MARKER)
        return _align_into(out, model, data, runtime, console, bases)


def _align_into(
    out: Path | None,
    model: ModelConfig,
    data: DataConfig,
    runtime: RuntimeConfig,
    console: Console,
    bases: Bases | None,
) -> dict[str, Any]:
    """Solve a bridge and write it to a folder that is held; see [`run_alignment`]."""
    runtime = resolve_dtype(runtime)
    run = AlignmentRun.prepare(model, data, runtime, bases)
    with console.status("comparing layers and fusions"):
        sample = run.take_sample()
        results: dict[str, Any] = {"probe": run.probe(sample)}
    if out is None:
        return results
    with console.status("solving the bridge"):
        solved = run.solve(sample)
    results["solved"] = asdict(solved)
    if run.data.task is not None and run.data.task.labels:
        with console.status("calibrating it to the task"):
            results["task"] = run.calibrate(runtime.seed)
        for line in run.model.processor.text_report():
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    settings = settings_to_yaml(flat_settings(model, data, runtime))
    card = bridge_card(
        run.model.bridge,
        run.model.processor,
        english=data.is_english,
        settings=settings,
        results={f"solved_{name}": value for name, value in results["solved"].items()},
    )
    with atomic_directory(out, marker=CHECKPOINT_MARKER) as aside:
        run.model.write_checkpoint(aside, card)
        write_record(aside, settings, results)
        page = probe_page(results["probe"], model)
        (aside / PAGE_FILE).write_text(page, encoding="utf-8", errors="replace")
    return results


def probe_page(rows: list[ProbeRow], model: ModelConfig) -> str:
    """The comparison of layers and fusions as a page.

    Args:
        rows: of [`probe_layers`].
        model: between whose base models.
    """
    return render(
        "palam.training",
        "probe.html.j2",
        rows=rows,
        encoder=public_name(model.encoder),
        llm=public_name(model.llm),
        normalize=model.normalize,
    )


@dataclass
class AlignmentRun:
    """A bridge to solve and the text to solve it from, and the steps: take a sample of the text,
    probe, solve, calibrate."""

    model: PalamModel
    data: TrainingData
    texts: Callable[[], Iterable[str]]
    """The texts from their beginning; it is called for the sample, and to solve."""

    @classmethod
    def prepare(
        cls,
        model: ModelConfig,
        data: DataConfig,
        runtime: RuntimeConfig,
        bases: Bases | None,
    ) -> "AlignmentRun":
        """Read the data, or see to it that raw text is streamed, and build the model."""
        if data.text_file is not None:
            source = data.source()
            # Each step reads the texts; those of a pipe, which come once, are kept for the next.
            kept_texts = list(raw_texts(data, source)) if source.is_stream else None
            streamed = TrainingData(None, [], [], data.text_language, note="")
            built = build_model(model, streamed, runtime, bases)
            prompt = model.prompt or RAW_TEXT_PROMPT
            processor = built.processor
            processor.template = processor.template.with_prompt(
                model.mode, prompt, processor.llm_tokenizer
            )
            if kept_texts is not None:
                return cls(built, streamed, lambda: kept_texts)
            return cls(built, streamed, lambda: raw_texts(data, source))
        training_data = read_training_data(data, seed=runtime.seed, prompt=model.prompt)
        built = build_model(model, training_data, runtime, bases)
        texts = training_data.texts(training_data.train, model.mode)
        return cls(built, training_data, lambda: texts)

    def take_sample(self) -> AlignedSample:
        """A sample of the text, to compare on and to fit the fusion's own weights on."""
        batches = aligned_batches(self.model, self.texts(), repeat(self.data.language))
        return AlignedSample.take(self.model, batches)

    def probe(self, sample: AlignedSample) -> list[ProbeRow]:
        """Compare every layer and fusion; see [`probe_layers`]."""
        with self.model.evaluating():
            return probe_layers(self.model, sample)

    def solve(self, sample: AlignedSample) -> AlignmentResult:
        """Fit the fusion's own weights on a sample, and solve the mapper from all of the text; see
        [`solve_bridge`]."""
        languages = repeat(self.data.language)
        return solve_bridge(self.model, self.texts(), languages, sample=sample)

    def calibrate(self, seed: int) -> TaskCalibration:
        """Calibrate the solved bridge to the task; see [`calibrate_to_task`]."""
        assert self.data.task is not None
        return calibrate_to_task(
            self.model,
            self.data.task,
            self.data.train,
            self.data.dev,
            self.data.language,
            seed=seed,
        )
