"""`palam evaluate`, `palam classify` and `palam generate`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from palam.cli.options import (
    BatchOption,
    CheckpointArgument,
    ColumnOption,
    ConfigOption,
    DataOption,
    FileOption,
    LabelColumnOption,
    Loading,
    OutOption,
    TextColumnOption,
    TextOption,
    load,
    options_of,
)
from palam.cli.output import json_lines, opened, show
from palam.errors import PalamError

if TYPE_CHECKING:
    from palam.model import PalamModel
    from palam.reading import Evaluation
    from palam.tasks import Example, Task

CHUNK = 1024  # rows of a file in memory at a time
Rows = list[dict[str, Any]]


@options_of(Loading, {"encoder", "llm", "device", "dtype", "allow_mismatch"})
def evaluate_command(
    checkpoint: CheckpointArgument,
    task: Annotated[
        str | None, typer.Option(help="Any task of the bridge's family; `palam info` lists the tasks.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A labelled JSONL or CSV file of your own, not a task.")] = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = "label",
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="Split to read.")] = "dev",
    languages: Annotated[str | None, typer.Option(help="Codes, e.g. en,si,ta; not set is all there are.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Rows per language, a seeded and label-stratified sample; not set is all.")
    ] = None,
    method: Annotated[str, typer.Option(help="score (likeliest label) or generate (greedy, exact match).")] = "score",
    direct: Annotated[
        bool, typer.Option("--direct", help="The LLM reads the text itself, without the bridge.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results here.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Write every prediction here, as JSON lines.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    batch_size: BatchOption = 32,
    config: ConfigOption = None,
    **loading: Any,
) -> None:
    """Measure a bridge on a task in any of its languages, or on a file of your own."""
    from palam.reading import evaluate, load_languages
    from palam.reading.evaluate import METHODS
    from palam.tasks import available, get_task, sample

    if method not in METHODS:
        raise PalamError(f"method is {method!r}; it must be one of: {', '.join(METHODS)}")
    if (task is None) == (file is None):
        raise PalamError("give either --task or --file")
    codes = [code.strip() for code in (languages or "").split(",") if code.strip()]
    if task is not None:
        chosen = get_task(task)
        codes = codes if languages is not None else available(chosen, data_dir=data).get(split, [])
        if not codes:
            raise PalamError(f"{task} has no {split} split here; give --languages, --split or --data")
        rows = load_languages(chosen, split, codes, data_dir=data, limit=limit, seed=seed)
    elif len(codes) != 1:
        raise PalamError("with --file, give the one language of its texts, e.g. --languages si")
    else:
        chosen, examples = _own_task(checkpoint, file, text_column, label_column)
        rows, split = {codes[0]: sample(examples, limit, seed)}, str(file)
    with contextlib.ExitStack() as files:  # opened now, so that a place that cannot be written to is told at once
        results = files.enter_context(opened(json_file)) if json_file else None
        write = files.enter_context(json_lines(predictions)) if predictions else None
        model = load(checkpoint, **loading)
        with _progress() as bar:
            item = bar.add_task("reading", total=sum(map(len, rows.values())))
            found = evaluate(
                model,
                chosen,
                split,
                rows,
                name=checkpoint,
                method=method,
                direct=direct,
                batch_size=batch_size,
                progress=lambda n: bar.advance(item, n),
            )
        if results:
            results.write(json.dumps(found.to_dict(), indent=2).encode() + b"\n")
        if write:
            for one in found.predictions:
                write(one)
    show(_table(found, model))


def _own_task(
    checkpoint: str, file: Path | None, text_column: str | None, label_column: str
) -> tuple[Task, list[Example]]:
    """The rows of a user's file, with the labels and the form of the text that the bridge was trained with."""
    from palam.bridge import load_bridge
    from palam.tasks import task_from_file
    from palam.tasks.task import slots

    trained = load_bridge(checkpoint).config.task
    if not trained:
        raise PalamError("this bridge was not trained for a task; it has no labels to measure")
    form = trained["text"]
    column = text_column or ("text" if slots(form) == {"text"} else form)
    task, examples = task_from_file(
        str(file), text_column=column, label_column=label_column, labels=dict(trained["labels"])
    )
    form = form if slots(form) == set(task.fields) else task.text
    return replace(task, name=trained["name"], family=trained["family"], text=form, paper_text=form), examples


def _table(found: Evaluation, model: PalamModel) -> Table:
    """Accuracy by language; how many texts were cut, and the share of tokens that the encoder does not know."""
    from palam.languages import name

    read = model.processor.stats  # empty if the LLM read the texts itself
    table = Table(title=f"{found.task}, {found.split}", title_justify="left", caption_justify="left")
    table.add_column("language")
    for heading in ("n", "accuracy", "95 % interval", *(("cut", "unknown") if read else ())):
        table.add_column(heading, justify="right")
    results = found.to_dict()["results"]
    for code, result in results.items():
        low, high = result["ci95"]
        cells = [f"{result['n']:,}", f"{result['accuracy']:.1%}", f"{low:.1%} to {high:.1%}"]
        table.add_row(f"{name(code)} ({code})", *cells, *_losses(model, code))
    if len(results) > 1:
        table.add_section()
        table.add_row(f"mean of {len(results)}", "", f"{found.macro:.1%}")
    if read:
        table.caption = f"cut: at {model.processor.max_length} tokens\nunknown: to the encoder, of all tokens"
    return table


def _losses(model: PalamModel, code: str) -> list[str]:
    stats = model.processor.stats
    return [f"{stats[code].cut:,}", f"{stats[code].unknown_share:.2%}"] if code in stats else []


@options_of(Loading)
def classify_command(
    checkpoint: CheckpointArgument,
    text: TextOption = None,
    file: FileOption = None,
    labels: Annotated[
        str | None, typer.Option(help="Labels, e.g. good,bad; not set is those the bridge was trained on.")
    ] = None,
    column: ColumnOption = None,
    out: OutOption = None,
    batch_size: BatchOption = 32,
    config: ConfigOption = None,
    **loading: Any,
) -> None:
    """Label texts.

    Each row comes out, in input order, with its prediction and the log-probability of each label.
    """
    from palam.reading import label_scores

    _check_source(text, file)
    given = _given_labels(labels)
    with json_lines(out) as write:
        model = load(checkpoint, **loading)
        words = given or dict((model.config.task or {}).get("labels", ()))
        if not words:
            raise PalamError("this bridge was not trained for a task; give --labels, e.g. --labels good,bad")
        with _progress(text is None) as bar:
            item = bar.add_task("reading", total=None)
            for rows, texts in _chunks(model, text, file, column):
                scores = label_scores(
                    model,
                    texts,
                    list(words.values()),
                    [loading["language"]] * len(texts),
                    batch_size=batch_size,
                    progress=lambda n: bar.advance(item, n),
                )
                for row, best, values in zip(rows, scores.argmax(1).tolist(), scores.tolist(), strict=True):
                    shown = {key: round(value, 4) for key, value in zip(words, values, strict=True)}
                    write({**row, "prediction": list(words)[best], "scores": shown})


@options_of(Loading)
def generate_command(
    checkpoint: CheckpointArgument,
    text: TextOption = None,
    file: FileOption = None,
    prompt: Annotated[
        str | None, typer.Option(help="What to ask, with one {text} slot; not set is as the bridge was trained.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="Around the text: paper, prompt or chat; not set is as trained.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to answer with.", min=1)] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy; above, the answer is drawn.", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    column: ColumnOption = None,
    out: OutOption = None,
    batch_size: BatchOption = 16,
    config: ConfigOption = None,
    **loading: Any,
) -> None:
    """Let the LLM answer freely about texts.

    The answer to one text is streamed as it comes; rows of a file come out, in input order, with their answers.
    """
    from transformers import set_seed

    from palam.reading import generate
    from palam.template import Template

    _check_source(text, file)
    if mode == "paper" and prompt is not None:
        raise PalamError("the mode paper has no prompt; give --mode prompt or --mode chat")
    with json_lines(out) as write:
        model = load(checkpoint, **loading)
        processor = model.processor
        if prompt is not None or mode is not None:
            trained = processor.template.mode
            mode = mode or (trained if trained != "paper" else "prompt")
            processor.template = Template.build(mode, prompt, processor.llm_tokenizer)
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
        settings |= {"temperature": temperature} if temperature else {}
        set_seed(seed)
        if text is not None and out is None:
            (_, texts), *_ = _chunks(model, text, file, column)
            model.generate(
                **processor(texts, languages=[loading["language"]]), streamer=_streamer(processor), **settings
            )
            return
        with _progress() as bar:
            item = bar.add_task("answering", total=None)
            for rows, texts in _chunks(model, text, file, column):
                answers = generate(
                    model,
                    texts,
                    [loading["language"]] * len(texts),
                    batch_size=batch_size,
                    progress=lambda n: bar.advance(item, n),
                    **settings,
                )
                for row, answer in zip(rows, answers, strict=True):
                    write({**row, "answer": answer})


def _streamer(processor: Any) -> Any:
    """Prints an answer while it is made, without the space in front that an answer begins with."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        begun = False

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            text = text if self.begun else text.lstrip()
            self.begun = self.begun or bool(text)
            super().on_finalized_text(text, stream_end)

    return Streamer(processor.llm_tokenizer, skip_special_tokens=True)


def _progress(wanted: bool = True) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal))


def _check_source(text: str | None, file: str | None) -> None:
    """One source, and one that can be read: told before the models are loaded."""
    if (text is None) == (file is None):
        raise PalamError("give either --text or --file")
    if file not in (None, "-"):
        with Path(str(file)).open("rb"):
            pass


def _given_labels(given: str | None) -> dict[str, str] | None:
    """Each label with its words, which are the same."""
    if given is None:
        return None
    names = dict.fromkeys(name.strip() for name in given.split(",") if name.strip())
    if len(names) < 2:
        raise PalamError(f"--labels {given!r} holds fewer than two labels; give e.g. good,bad")
    return {name: name for name in names}


def _chunks(
    model: PalamModel, text: str | None, file: str | None, column: str | None
) -> Iterator[tuple[Rows, list[str]]]:
    """Rows and what the encoder reads of each, a chunk at a time.

    The form that the bridge's task gives a text is applied where its columns are known: not to one `--text` or one
    `--column` of a task whose text has several.
    """
    from palam.tasks.rows import numbered_rows, text_of
    from palam.tasks.task import slots

    form = str(model.config.task["text"]) if model.config.task else "{text}"
    names = sorted(slots(form))
    several = names != ["text"]
    if text is not None:
        yield [{"text": text}], [text if several else form.format(text=text)]
        return
    columns = [column] if column else names
    hint = "" if column else "; name one with --column"
    numbered = numbered_rows(str(file), column=columns[0] if column or several else None)
    count = 0
    while chunk := list(islice(numbered, CHUNK)):
        count += len(chunk)
        found = [[text_of(row, name, where, hint=hint) for name in columns] for where, row in chunk]
        whole = column is not None and several
        texts = [one[0] if whole else form.format(**dict(zip(names, one, strict=True))) for one in found]
        yield [row for _, row in chunk], texts
    if not count:
        raise PalamError(f"{file if file != '-' else 'standard input'} is empty")
