"""The quickstart: fetch the starter models, train on English, read languages never trained on, write a report."""

import json
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from palam.errors import PalamError
from palam.inference import evaluation as evaluate
from palam.inference.evaluation import Evaluation, load_languages
from palam.inference.layer_weights import LayerView
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.models.modeling import PalamModel
from palam.quickstart.report import write_report
from palam.starter.resolve import resolve
from palam.tasks.registry import get_task
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.config import TrainConfig
from palam.training.run import train
from palam.utils.device import dtype_name, resolve_placement
from palam.utils.files import atomic_directory
from palam.utils.languages import find_language, language_name

BASELINE, FUSED, ALONE = "last", "mean", "LLM alone"
ENGLISH, SINHALA = "eng_Latn", "sin_Sinh"
LANGUAGES = [
    *(ENGLISH, SINHALA, "tam_Taml", "mal_Mlym", "tel_Telu", "ben_Beng", "hin_Deva", "urd_Arab"),
    *("swh_Latn", "amh_Ethi", "mya_Mymr", "khm_Khmr", "arb_Arab"),
]
SHOWN = (ENGLISH, SINHALA, "amh_Ethi")  # whose layers the report shows
ALONE_ROWS = (
    7  # the LLM reads other scripts byte by byte: five times the tokens, for what is chance
)
EPOCHS, BATCH_SIZE = 1.25, 8
SHORT_LANGUAGES, SHORT_ROWS, SHORT_EPOCHS = 3, 14, 0.25
RESULTS, REPORT = "results.json", "report.html"
TITLE = "Palam quickstart"


def quickstart(
    out: Path, *, data: Path | None = None, short: bool = False, console: Console
) -> dict[str, Any]:
    """Run it.

    Args:
        out: folder for `bridge-last/`, `bridge-mean/`, `report.html` and `results.json`; new, empty, or an older
            quickstart's. It appears when all of it is there.
        data: folder with real SIB-200 data (its dev split is read); None is the packaged demonstration.
        short: few steps, rows and languages: to see that everything works, not to measure.
        console: what is shown.

    Returns:
        What the report was written from.

    Raises:
        PalamError: a folder with other files, or starter models or data that cannot be had.
    """
    bridges = {fusion: f"bridge-{fusion}" for fusion in (BASELINE, FUSED)}
    if out.is_dir() and {path.name for path in out.iterdir()} - {
        *bridges.values(),
        RESULTS,
        REPORT,
    }:
        raise PalamError(f"{out} holds other files; give --out a folder that is new or empty")
    with atomic_directory(out, marker=(RESULTS, TITLE)) as aside:
        began = time.time()
        task, split = (get_task("sib200"), "dev") if data else (get_task("demo"), "test")
        codes = LANGUAGES[:SHORT_LANGUAGES] if short else LANGUAGES
        rows = load_languages(
            task, split, codes, data_dir=data, limit=SHORT_ROWS if short else None
        )
        few = {code: sample(examples, ALONE_ROWS, 0) for code, examples in rows.items()}
        for name in ("starter:encoder", "starter:llm"):
            resolve(name)
        fetched = time.time()
        options = resolve_placement()
        bases = load_encoder("starter:encoder", **options), load_llm("starter:llm", **options)
        seconds = {"fetching the models": fetched - began}
        found: dict[str, Evaluation] = {}
        for fusion, bridge in bridges.items():
            start = time.time()
            fused = "the encoder's last layer" if fusion == BASELINE else "all the encoder's layers"
            console.print(f"\n[bold]{fusion} ({fused})[/]: training on English", highlight=False)
            settings = TrainConfig(
                task=task.name, data=data, fusion=fusion, dtype=dtype_name(options["dtype"])
            )
            settings.epochs, settings.batch_size = SHORT_EPOCHS if short else EPOCHS, BATCH_SIZE
            model = train(settings, aside / bridge, bases=bases, console=console)
            if fusion == BASELINE:
                found[ALONE] = _read(model, task, split, few, console, llm_only=True)
            found[fusion] = _read(model, task, split, rows, console)
            seconds[f"training and reading, {fusion}"] = time.time() - start
        seconds["all after fetching"] = time.time() - fetched
        example = few[SINHALA][0].fields["text"]
        command = shlex.join(["palam", "classify", str(out / bridges[FUSED]), "--text", example])
        result = {
            "title": TITLE,
            "data": task.name,
            "n_train": json.loads((aside / bridges[FUSED] / RESULTS).read_text(encoding="utf-8"))[
                "rows"
            ],
            "n_test": len(rows[ENGLISH]),
            "n_alone": len(few[ENGLISH]),
            "methods": [
                {"name": name, **evaluation.to_dict()} for name, evaluation in found.items()
            ],
            "languages": [
                {"code": x.code, "name": x.name, "script": x.script}
                for x in map(find_language, codes)
                if x
            ],
            "layers": [
                LayerView.of(model, task.render(few[c][0]), c).to_dict() for c in SHOWN if c in few
            ],
            "examples": _examples(few, found),
            "settings": {
                key: str(value) for key, value in asdict(settings).items() if value is not None
            },
            "seconds": {key: round(value, 1) for key, value in seconds.items()},
            "command": command,
        }
        (aside / RESULTS).write_text(
            json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        write_report(result, aside / REPORT)
    console.print()
    console.print(_table(found, codes))
    if not data:
        console.print("A demonstration on machine-written sentences, not a benchmark.")
    if short:
        console.print(
            "A short run: hardly trained, on few sentences; without --short it takes some minutes."
        )
    console.out(
        f"\nreport: {out / REPORT}\ntry a sentence of your own:\n  {command}", highlight=False
    )
    return result


def _read(
    model: PalamModel,
    task: Task,
    split: str,
    rows: dict[str, list[Example]],
    console: Console,
    **options: Any,
) -> Evaluation:
    who = "the LLM alone reads" if options.get("direct") else f"{model.config.fusion} reads"
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        item = bar.add_task(f"{who} {len(rows)} languages", total=sum(map(len, rows.values())))
        return evaluate(
            model, task, split, rows, progress=lambda n: bar.advance(item, n), **options
        )


def _examples(rows: dict[str, list[Example]], found: dict[str, Evaluation]) -> list[dict[str, Any]]:
    """Each language's first row, with its English and each method's answer."""
    answers = {
        name: {(one["language"], one["row"]): one["prediction"] for one in evaluation.predictions}
        for name, evaluation in found.items()
    }
    english = {example.row: example.fields["text"] for example in rows[ENGLISH]}
    result = []
    for code, (first, *_) in rows.items():
        if code != ENGLISH:
            said = {name: by_row[code, first.row] for name, by_row in answers.items()}
            texts = {"text": first.fields["text"], "english": english.get(first.row)}
            result.append({"language": code, **texts, "label": first.label, "answers": said})
    return result


def _table(found: dict[str, Evaluation], codes: list[str]) -> Table:
    columns = [Column(name, justify="right") for name in found]
    table = Table("language", *columns, title="topics answered rightly", title_justify="left")
    for code in codes:
        table.add_row(language_name(code), *(f"{one.accuracy(code):.0%}" for one in found.values()))
    table.add_section()
    unseen = [code for code in codes if code != ENGLISH]
    means = [sum(map(one.accuracy, unseen)) / len(unseen) for one in found.values()]
    table.add_row("mean without English", *(f"{mean:.0%}" for mean in means), style="bold")
    return table
