"""The quickstart: fetch the starter models, train on English, read languages never trained on, write a report."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from palam.device import dtype_name, pick_attention, pick_device, pick_dtype
from palam.encoder import load_encoder
from palam.errors import PalamError
from palam.languages import lookup
from palam.languages import name as language_name
from palam.llm import load_llm
from palam.model import PalamModel
from palam.reading import evaluate, load_languages
from palam.report import LayerView, write_report
from palam.starter import resolve
from palam.tasks import Example, get_task
from palam.training import TrainSettings, train

BASELINE, FUSED = "last", "mean"
LANGUAGES = (
    "eng_Latn sin_Sinh tam_Taml mal_Mlym tel_Telu ben_Beng hin_Deva urd_Arab swh_Latn amh_Ethi mya_Mymr khm_Khmr arb_Arab"
).split()
SHOWN = ("eng_Latn", "sin_Sinh", "amh_Ethi")  # whose layers and answers the report shows
RESULTS = "results.json"
SHORT = {"epochs": 0.25, "languages": 3, "limit": 14}


def quickstart(out: Path, *, data: Path | None = None, short: bool = False, console: Console) -> dict[str, Any]:
    """Run it.

    Args:
        out: folder for `bridge/`, `report.html` and `results.json`; new, empty, or an older quickstart's.
        data: folder with real SIB-200 data (its dev split is read); None is the packaged demonstration.
        short: few steps, rows and languages: to see that everything works, not to measure.
        console: what is shown.

    Returns:
        What the report was written from.

    Raises:
        PalamError: a folder with other files, or starter models or data that cannot be had.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / RESULTS).is_file()):
        raise PalamError(f"{out} holds other files; give --out a folder that is new or empty")
    began = time.time()
    task, split = (get_task("sib200"), "dev") if data else (get_task("demo"), "test")
    codes = LANGUAGES[: SHORT["languages"]] if short else LANGUAGES
    rows = load_languages(task, split, codes, data_dir=data, limit=SHORT["limit"] if short else None)
    for name in ("starter:encoder", "starter:llm"):
        resolve(name)
    fetched = time.time()
    device = pick_device()
    dtype = pick_dtype("auto", device)
    options: dict[str, Any] = {"dtype": dtype, "device": device, "attention": pick_attention(device)}
    bases = load_encoder("starter:encoder", **options), load_llm("starter:llm", **options)
    seconds = {"fetching the models": fetched - began}
    found: dict[str, Any] = {}
    out.mkdir(parents=True, exist_ok=True)
    for fusion in (BASELINE, FUSED):
        start = time.time()
        console.print(f"training [bold]{fusion}[/] on English ({'demonstration' if not data else 'SIB-200'})")
        settings = TrainSettings(
            task=task.name, data=data, fusion=fusion, dtype=dtype_name(dtype), epochs=SHORT["epochs"] if short else 2.0
        )
        model = train(settings, out / f"bridge-{fusion}", bases=bases, console=console)
        seconds[f"training {fusion}"] = time.time() - start
        if fusion == BASELINE:
            found["LLM alone"] = _read(model, task, split, rows, console, direct=True)
        found[fusion] = _read(model, task, split, rows, console)
        seconds[f"training and reading, {fusion}"] = time.time() - start
    bridge = out / f"bridge-{FUSED}"
    example = next((one for one in rows.get("sin_Sinh", rows[codes[-1]])))
    command = f"palam classify {bridge} --text '{example.fields['text']}'"
    seconds["all after fetching"] = time.time() - fetched
    result = {
        "title": "Palam quickstart",
        "data": task.name,
        "n_train": json.loads((bridge / RESULTS).read_text())["rows"],
        "n_test": len(rows[codes[0]]),
        "methods": [{"name": name, **evaluation.to_dict()} for name, evaluation in found.items()],
        "languages": [_language(code) for code in codes],
        "layers": [
            LayerView.of(model, task.render(rows[code][0]), code).to_dict() for code in SHOWN if code in rows
        ],
        "examples": _examples(rows, found),
        "settings": {key: str(value) for key, value in asdict(settings).items() if value is not None},
        "seconds": {key: round(value, 1) for key, value in seconds.items()},
        "command": command,
    }
    (out / RESULTS).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report(result, out / "report.html")
    _show(found, codes, console)
    note = "A demonstration on machine-written sentences, not a benchmark." if not data else ""
    console.print(f"{note} Report: {out / 'report.html'}\nTry a sentence of your own:")
    console.print(f"  {command}", highlight=False, soft_wrap=True)
    return result


def _read(model: PalamModel, task: Any, split: str, rows: dict[str, list[Example]], console: Console, **options: Any) -> Any:
    who = "the LLM reads the text itself" if options.get("direct") else f"{model.config.fusion} reads"
    with Progress(console=console, transient=True) as bar:
        item = bar.add_task(who, total=sum(map(len, rows.values())))
        return evaluate(model, task, split, rows, progress=lambda n: bar.advance(item, n), **options)


def _language(code: str) -> dict[str, str]:
    language = lookup(code)
    return {"code": code, "name": language_name(code), "script": language.script if language else ""}


def _examples(rows: dict[str, list[Example]], found: dict[str, Any]) -> list[dict[str, Any]]:
    """The first two rows of some languages with each method's answer."""
    answers = {
        name: {(one["language"], one["row"]): one["prediction"] for one in evaluation.predictions}
        for name, evaluation in found.items()
    }
    english = {example.row: example.fields["text"] for example in rows["eng_Latn"]}
    return [
        {
            "language": code,
            "text": example.fields["text"],
            "english": english.get(example.row),
            "label": example.label,
            "answers": {name: by_row[code, example.row] for name, by_row in answers.items()},
        }
        for code in rows
        if code != "eng_Latn"
        for example in rows[code][:1]
    ]


def _show(found: dict[str, Any], codes: list[str], console: Console) -> None:
    table = Table("language", *found, title="share of topics answered rightly")
    for code in codes:
        table.add_row(language_name(code), *(f"{one.accuracy(code):.0%}" for one in found.values()))
    unseen = [code for code in codes if code != "eng_Latn"]
    means = [sum(map(one.accuracy, unseen)) / len(unseen) for one in found.values()]
    table.add_row("[bold]mean, never trained on[/]", *(f"[bold]{mean:.0%}[/]" for mean in means))
    console.print(table)
