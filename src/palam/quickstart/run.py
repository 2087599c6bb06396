"""The quickstart: what sentences say at once, a training on English, other languages, a report."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column, Table

from palam.errors import PalamError
from palam.inference.evaluation import Evaluation, evaluate, load_languages
from palam.inference.layer_weights import LayerView
from palam.models.bases import BaseName, Bases, load_bases
from palam.models.modeling import PalamModel
from palam.quickstart.first_reading import read_sentences
from palam.quickstart.report import write_report
from palam.quickstart.result import (
    AnsweredExample,
    MethodResult,
    QuickstartResult,
    ReadLanguage,
    ReadSentence,
)
from palam.starter.resolve import resolve
from palam.starter.sources import BRIDGE
from palam.tasks.registry import get_task
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.config import TrainConfig
from palam.training.run import train
from palam.utils.device import dtype_name, resolve_placement
from palam.utils.files import atomic_directory
from palam.utils.languages import find_language, language_name
from palam.utils.progress import progress_bar
from palam.utils.texts import printable

ENCODER = BaseName("starter:encoder", revision=None)
LLM = BaseName("starter:llm", revision=None)
BASELINE = "last"
FUSED = "mean"
ALONE = "LLM alone"
ABOUT = {BASELINE: "the encoder's last layer", FUSED: "all the encoder's layers"}
ENGLISH = "eng_Latn"
SINHALA = "sin_Sinh"
LANGUAGES = [
    ENGLISH,
    SINHALA,
    "tam_Taml",
    "mal_Mlym",
    "tel_Telu",
    "ben_Beng",
    "hin_Deva",
    "urd_Arab",
    "swh_Latn",
    "amh_Ethi",
    "mya_Mymr",
    "khm_Khmr",
    "arb_Arab",
]
SHOWN = (ENGLISH, SINHALA, "amh_Ethi")
"""The languages whose layers the report shows."""
ALONE_ROWS = 7
"""Of a language. The LLM reads other scripts byte by byte: five times the tokens, for an accuracy
at chance."""
EPOCHS = 1.25
BATCH_SIZE = 8
SHORT_LANGUAGES = 3
SHORT_ROWS = 14
SHORT_EPOCHS = 0.25
RESULTS = "results.json"
REPORT = "report.html"
TITLE = "Palam quickstart"

Rows = dict[str, list[Example]]
"""By language."""


class _Reading(NamedTuple):
    """What is read."""

    task: Task
    split: str
    rows: Rows
    rows_alone: Rows
    """Fewer, for the LLM alone."""


class _Measured(NamedTuple):
    """What the methods reached."""

    evaluations: dict[str, Evaluation]
    """By method: first the LLM alone, then the bridges."""
    model: PalamModel
    """The last bridge."""
    config: TrainConfig
    """Of its training."""
    seconds: dict[str, float]


def quickstart(
    out: Path, *, data: Path | None = None, short: bool = False, console: Console
) -> QuickstartResult:
    """Run it.

    Args:
        out: folder for `bridge-last/`, `bridge-mean/`, `report.html` and `results.json`; new,
            empty, or an older quickstart's. It appears when all of it is there.
        data: folder with real SIB-200 data (its dev split is read); None is the packaged
            demonstration.
        short: few steps, rows and languages: to see that everything works, not to measure.
        console: what is shown.

    Returns:
        What the report was written from.

    Raises:
        PalamError: a folder with other files, or starter models or data that cannot be had.
    """
    _check_folder(out)
    with atomic_directory(out, marker=(RESULTS, TITLE)) as aside:
        start = time.time()
        reading = _read_data(data, short)
        for base in (ENCODER, LLM):
            resolve(base.name)
        fetched = time.time()
        bases = load_bases(ENCODER, LLM, resolve_placement())
        readings = read_sentences(bases, reading.rows, ENGLISH)
        _print_readings(readings, console)
        read = time.time()
        measured = _measure(reading, bases, data, short, aside, console)
        seconds = {
            "fetching the models": fetched - start,
            f"loading them, reading with {BRIDGE}": read - fetched,
            **measured.seconds,
            "all after fetching": time.time() - fetched,
        }
        result = replace(_collect(reading, measured, seconds, aside, out), readings=readings)
        content = json.dumps(result.to_dict(), indent=2, ensure_ascii=False)
        (aside / RESULTS).write_text(f"{content}\n", encoding="utf-8")
        write_report(result, aside / REPORT)
    _print_summary(result, out, console, is_demo=data is None, short=short)
    return result


def _check_folder(out: Path) -> None:
    """Refuse a folder that holds more than a quickstart's files."""
    files = {_bridge_name(BASELINE), _bridge_name(FUSED), RESULTS, REPORT}
    if out.is_dir() and {path.name for path in out.iterdir()} - files:
        raise PalamError(f"{out} holds other files; give --out a folder that is new or empty")


def _bridge_name(fusion: str) -> str:
    return f"bridge-{fusion}"


def _read_data(data: Path | None, short: bool) -> _Reading:
    """Load all that is read, before any model."""
    task, split = get_task("demo"), "test"
    if data is not None:
        task, split = get_task("sib200"), "dev"
    codes = LANGUAGES[:SHORT_LANGUAGES] if short else LANGUAGES
    limit = SHORT_ROWS if short else None
    rows = load_languages(task, split, codes, data_dir=data, limit=limit)
    rows_alone = {code: sample(examples, ALONE_ROWS, 0) for code, examples in rows.items()}
    return _Reading(task, split, rows, rows_alone)


def _print_readings(readings: Sequence[ReadSentence], console: Console) -> None:
    """What each sentence says: lines that are not wrapped, and as their scripts write them."""
    console.out(
        f"What {len(readings)} sentences say in English, before any training: through {BRIDGE}, "
        "which is part of Palam, and to the LLM alone.",
        highlight=False,
    )
    for sentence in readings:
        lines = {
            language_name(sentence.language): sentence.text,
            "  it says": sentence.english or "–",
            f"  {BRIDGE}": sentence.bridge,
            "  the LLM alone": sentence.llm_alone,
        }
        text = "\n".join(f"{name}: {printable(line)}" for name, line in lines.items())
        console.out(f"\n{text}", highlight=False)


def _measure(
    reading: _Reading,
    bases: Bases,
    data: Path | None,
    short: bool,
    folder: Path,
    console: Console,
) -> _Measured:
    """Train a bridge of each fusion and evaluate it, and the LLM alone.

    Args:
        reading: what is read.
        bases: the starter models.
        data: the data folder, or None.
        short: see [`quickstart`].
        folder: where the bridges are written.
        console: what is shown.
    """
    evaluations: dict[str, Evaluation] = {}
    seconds = {}
    model: PalamModel | None = None
    for fusion, about in ABOUT.items():
        model = None  # the bridge before: with its tokenizers it would take memory meanwhile
        start = time.time()
        console.print(f"\n[bold]{fusion} ({about})[/]: training on English", highlight=False)
        config = TrainConfig.from_settings(
            {
                "task": reading.task.name,
                "data": data,
                "fusion": fusion,
                "dtype": dtype_name(bases.llm.dtype),
                "epochs": SHORT_EPOCHS if short else EPOCHS,
                "batch_size": BATCH_SIZE,
            }
        )
        model = train(config, folder / _bridge_name(fusion), bases=bases, console=console)
        if fusion == BASELINE:
            evaluations[ALONE] = _evaluate(model, reading, console, llm_only=True)
        evaluations[fusion] = _evaluate(model, reading, console)
        seconds[f"training and reading, {fusion}"] = time.time() - start
    assert model is not None
    return _Measured(evaluations, model, config, seconds)


def _evaluate(
    model: PalamModel, reading: _Reading, console: Console, *, llm_only: bool = False
) -> Evaluation:
    """A bridge on all rows, or the LLM alone on its fewer ones."""
    rows = reading.rows_alone if llm_only else reading.rows
    reader = "the LLM alone" if llm_only else model.config.fusion
    description = f"{reader} reads {len(rows)} languages"
    total = sum(len(examples) for examples in rows.values())
    with progress_bar(description, total, console) as advance:
        return evaluate(
            model, reading.task, reading.split, rows, llm_only=llm_only, progress=advance
        )


def _collect(
    reading: _Reading,
    measured: _Measured,
    seconds: Mapping[str, float],
    folder: Path,
    out: Path,
) -> QuickstartResult:
    """All that the report shows.

    Args:
        reading: what was read.
        measured: what the methods reached.
        seconds: what took how long.
        folder: where the bridges are.
        out: where they will be.
    """
    rows_alone = reading.rows_alone
    bridge = _bridge_name(FUSED)
    training = json.loads((folder / bridge / RESULTS).read_text(encoding="utf-8"))
    sentence = _typical_row(rows_alone[SINHALA], SINHALA, measured.evaluations).fields["text"]
    layers = []
    for code in SHOWN:
        if code in rows_alone:
            text = reading.task.render(rows_alone[code][0])
            layers.append(LayerView.of(measured.model, text, code))
    return QuickstartResult(
        title=TITLE,
        data=reading.task.name,
        n_train=training["rows"],
        n_test=len(reading.rows[ENGLISH]),
        n_alone=len(rows_alone[ENGLISH]),
        methods=[
            MethodResult.of(name, evaluation) for name, evaluation in measured.evaluations.items()
        ],
        languages=[_describe_language(code) for code in reading.rows],
        layers=layers,
        examples=_examples(rows_alone, measured.evaluations),
        settings=_shown_settings(measured.config),
        seconds={name: round(value, 1) for name, value in seconds.items()},
        command=shlex.join(["palam", "classify", str(out / bridge), "--text", sentence]),
        next_steps=_next_steps(str(out / bridge), sentence),
    )


def _next_steps(bridge: str, sentence: str) -> dict[str, str]:
    """What can be done with the last bridge and after it, each with its command."""
    label_file = ["palam", "classify", bridge, "--file", "letters.csv", "--out", "labelled.csv"]
    train_own = ["palam", "train", "--file", "english.csv", "--out", "my-bridge"]
    return {
        "label a file of texts": shlex.join(label_file),
        "train on labelled texts of your own": shlex.join(train_own),
        "see what the bridge reads of a sentence": shlex.join(
            ["palam", "inspect", bridge, "--text", sentence]
        ),
        "try a sentence of your own": shlex.join(["palam", "classify", bridge, "--text", sentence]),
    }


def _describe_language(code: str) -> ReadLanguage:
    language = find_language(code)
    assert language is not None  # the codes are those of the table
    return ReadLanguage(code=language.code, name=language.name, script=language.script)


def _shown_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that have a value, as text."""
    settings = config.settings().items()
    return {name: str(value) for name, value in settings if value is not None and value != {}}


def _examples(rows: Rows, evaluations: Mapping[str, Evaluation]) -> list[AnsweredExample]:
    """A typical row of each other language, with its English and each method's answer."""
    answers = _answers(evaluations)
    english = {example.row: example.fields["text"] for example in rows[ENGLISH]}
    examples = []
    for code, examples_of_language in rows.items():
        if code == ENGLISH:
            continue
        row = _typical_row(examples_of_language, code, evaluations)
        example = AnsweredExample(
            language=code,
            text=row.fields["text"],
            english=english.get(row.row),
            label=row.label,
            answers=answers[code, row.row],
        )
        examples.append(example)
    return examples


def _answers(evaluations: Mapping[str, Evaluation]) -> dict[tuple[str, int], dict[str, str | None]]:
    """Each method's answer, by language and row."""
    answers: dict[tuple[str, int], dict[str, str | None]] = {}
    for name, evaluation in evaluations.items():
        for prediction in evaluation.predictions:
            item = (prediction["language"], prediction["row"])
            answers.setdefault(item, {})[name] = prediction["prediction"]
    return answers


def _typical_row(
    rows: Sequence[Example], code: str, evaluations: Mapping[str, Evaluation]
) -> Example:
    """The first row on which the most methods do as they do in most of the language's rows.

    So the LLM alone is wrong on it where its figure says that it mostly is.

    Args:
        rows: those of a language that every method has read.
        code: of the language.
        evaluations: by method.
    """
    answers = _answers(evaluations)

    def methods_as_usual(row: Example) -> int:
        count = 0
        for name, evaluation in evaluations.items():
            is_right = answers[code, row.row][name] == row.label
            count += is_right == (evaluation.accuracy(code) >= 0.5)
        return count

    return max(rows, key=methods_as_usual)


def _print_summary(
    result: QuickstartResult, out: Path, console: Console, *, is_demo: bool, short: bool
) -> None:
    """The table, and what to do next."""
    console.print()
    console.print(_table(result))
    if is_demo:
        console.print("A demonstration on machine-written sentences, not a benchmark.")
    if short:
        console.print(
            "A short run: hardly trained, on few sentences; without --short it takes some minutes."
        )
    console.out(f"\nreport: {out / REPORT}\nnext:", highlight=False)
    for step, command in result.next_steps.items():
        console.out(f"- {step}:\n  {command}", highlight=False)


def _table(result: QuickstartResult) -> Table:
    columns = [Column(method.name, justify="right") for method in result.methods]
    table = Table("language", *columns, title="accuracy by language", title_justify="left")
    for language in result.languages:
        cells = [_percent(method.results[language.code].accuracy) for method in result.methods]
        table.add_row(language_name(language.code), *cells)
    table.add_section()
    unseen = [language.code for language in result.languages if language.code != ENGLISH]
    means = [_percent(method.mean(unseen)) for method in result.methods]
    table.add_row("mean without English", *means, style="bold")
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
