"""`palam evaluate`, `palam classify` and `palam generate`."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import TextStreamer

from palam.cli.options import (
    BatchOption,
    CheckpointArgument,
    ColumnOption,
    ConfigOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    EncoderOption,
    FileOption,
    LanguageOption,
    LLMOption,
    MismatchOption,
    OutOption,
    TextOption,
    load,
)
from palam.errors import PalamError
from palam.files import writing
from palam.languages import name as language_name
from palam.model import PalamModel
from palam.reading import evaluate, generate, label_scores, load_languages, wilson
from palam.tasks import available, get_task, read_rows
from palam.tasks.task import slots
from palam.template import Template

CHUNK = 1024  # rows of a file in memory at a time


def evaluate_command(
    checkpoint: CheckpointArgument,
    task: Annotated[str, typer.Option(help="Any task of the family that the bridge was trained for.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="Split to read.")] = "dev",
    languages: Annotated[str | None, typer.Option(help="Codes, e.g. en,si,ta; not set is all there are.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows per language: a seeded, label-stratified sample.")] = None,
    method: Annotated[str, typer.Option(help="score (likeliest label) or generate (greedy, exact match).")] = "score",
    direct: Annotated[bool, typer.Option("--direct", help="The LLM reads the text itself, without the bridge.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results here.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Write every prediction here, as JSON lines.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    batch_size: BatchOption = 32,
    encoder: EncoderOption = None,
    llm: LLMOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    allow_mismatch: MismatchOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure a bridge on a task in any of its languages."""
    chosen = get_task(task)
    if languages is None:
        codes = available(chosen, data_dir=data).get(split, [])
    else:
        codes = [code.strip() for code in languages.split(",") if code.strip()]
    if not codes:
        raise PalamError(f"{task} has no {split} split here; give --languages, --split or --data")
    rows = load_languages(chosen, split, codes, data_dir=data, limit=limit, seed=seed)
    model = load(checkpoint, encoder, llm, device, dtype, allow_mismatch=allow_mismatch)
    with Progress(console=Console(stderr=True), transient=True) as bar:
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
    table = Table("language", "n", "accuracy", "95 %", title=f"{task}, {split}")
    for code, right in found.correct.items():
        low, high = wilson(sum(right), len(right))
        share = f"{found.accuracy(code):.1%}"
        table.add_row(f"{language_name(code)} ({code})", str(len(right)), share, f"{low:.1%} to {high:.1%}")
    table.add_row("mean", "", f"{found.macro:.1%}", "")
    Console().print(table)
    for code, stats in model.processor.stats.items():
        if stats.cut or stats.unknown:
            typer.echo(
                f"{code}: {stats.cut} of {stats.texts} texts cut at {model.processor.max_length} tokens, "
                f"{stats.unknown_share:.2%} of the tokens unknown to the encoder",
                err=True,
            )
    if json_file:
        with writing(json_file) as file:
            file.write(json.dumps(found.to_dict(), indent=2).encode() + b"\n")
    if predictions:
        with _sink(predictions) as write:
            for one in found.predictions:
                write(one)


def classify_command(
    checkpoint: CheckpointArgument,
    text: TextOption = None,
    file: FileOption = None,
    labels: Annotated[str | None, typer.Option(help="Labels, e.g. good,bad; not set is the bridge's task's.")] = None,
    column: ColumnOption = None,
    out: OutOption = None,
    language: LanguageOption = None,
    batch_size: BatchOption = 32,
    encoder: EncoderOption = None,
    llm: LLMOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    allow_mismatch: MismatchOption = False,
    config: ConfigOption = None,
) -> None:
    """Label texts: each row with its prediction and the log-probability of each label, in input order."""
    _one_of(text, file)
    model = load(checkpoint, encoder, llm, device, dtype, allow_mismatch=allow_mismatch)
    names = _labels(model, labels)
    with _sink(out) as write, Progress(console=Console(stderr=True), transient=True, disable=text is not None) as bar:
        item = bar.add_task("reading", total=None)
        for rows, texts in _chunks(model, text, file, column):
            scores = label_scores(
                model,
                texts,
                list(names.values()),
                [language] * len(texts),
                batch_size=batch_size,
                progress=lambda n: bar.advance(item, n),
            )
            for row, best, values in zip(rows, scores.argmax(1).tolist(), scores.tolist(), strict=True):
                shown = {key: round(value, 4) for key, value in zip(names, values, strict=True)}
                write({**row, "prediction": list(names)[best], "scores": shown})


def generate_command(
    checkpoint: CheckpointArgument,
    text: TextOption = None,
    file: FileOption = None,
    prompt: Annotated[str | None, typer.Option(help="What to ask, with one {text} slot; not set is as trained.")] = None,
    mode: Annotated[str | None, typer.Option(help="paper, prompt or chat; not set is as trained.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to answer with.", min=1)] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy; above, the answer is drawn.", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    column: ColumnOption = None,
    out: OutOption = None,
    language: LanguageOption = None,
    batch_size: BatchOption = 16,
    encoder: EncoderOption = None,
    llm: LLMOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    allow_mismatch: MismatchOption = False,
    config: ConfigOption = None,
) -> None:
    """Let the LLM answer freely about texts; one text's answer is streamed as it comes."""
    from transformers import set_seed

    _one_of(text, file)
    model = load(checkpoint, encoder, llm, device, dtype, allow_mismatch=allow_mismatch)
    processor = model.processor
    if prompt is not None or mode is not None:
        mode = mode or (processor.template.mode if processor.template.mode != "paper" else "prompt")
        processor.template = Template.build(mode, prompt, processor.llm_tokenizer)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    settings |= {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    set_seed(seed)
    if text is not None and out is None:
        streamer = TextStreamer(processor.llm_tokenizer, skip_special_tokens=True)
        model.generate(**processor([text], languages=[language]), streamer=streamer, **settings)
        return
    with _sink(out) as write, Progress(console=Console(stderr=True), transient=True) as bar:
        item = bar.add_task("answering", total=None)
        for rows, texts in _chunks(model, text, file, column):
            answers = generate(
                model,
                texts,
                [language] * len(texts),
                batch_size=batch_size,
                progress=lambda n: bar.advance(item, n),
                **settings,
            )
            for row, answer in zip(rows, answers, strict=True):
                write({**row, "answer": answer})


def _one_of(text: str | None, file: str | None) -> None:
    if (text is None) == (file is None):
        raise PalamError("give either --text or --file")


def _labels(model: PalamModel, given: str | None) -> dict[str, str]:
    """Each label with its words."""
    if given is not None:
        names = [name.strip() for name in given.split(",") if name.strip()]
        if len(set(names)) < 2:
            raise PalamError(f"--labels {given!r} holds fewer than two labels; give e.g. good,bad")
        return {name: name for name in names}
    if not model.config.task:
        raise PalamError("this bridge was not trained for a task; give --labels, e.g. --labels good,bad")
    return dict(model.config.task["labels"])


def _chunks(
    model: PalamModel, text: str | None, file: str | None, column: str | None
) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
    """Rows and the encoder's texts, a chunk at a time; the task's form of a text is applied to rows."""
    task = model.config.task
    form = task["text"] if task else "{text}"
    several = slots(form) != {"text"}
    if text is not None:
        yield [{"text": text}], [text if several else form.format(text=text)]
        return
    rows: Iterable[dict[str, Any]] = read_rows(str(file), column=column or (sorted(slots(form))[0] if several else None))
    iterator = iter(rows)
    number = 0
    while chunk := list(islice(iterator, CHUNK)):
        texts = []
        for row in chunk:
            number += 1
            fields = row if several and column is None else {"text": row[column or "text"]}
            missing = [slot for slot in slots(form) if slot not in fields] if several and column is None else []
            if missing:
                raise PalamError(f"{file}, row {number}: no column {missing[0]!r}; or name one with --column")
            texts.append(fields["text"] if several and column else form.format_map(fields))
        yield chunk, texts


@contextlib.contextmanager
def _sink(path: Path | None) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Writes rows as JSON lines to standard output, or to a file that appears when all of it is written."""

    def encoded(row: dict[str, Any]) -> bytes:
        try:
            return json.dumps(row, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:  # an unpaired surrogate in the input: escaped, it survives
            return json.dumps(row).encode() + b"\n"

    if path is None:
        yield lambda row: (sys.stdout.buffer.write(encoded(row)), sys.stdout.buffer.flush())
    else:
        with writing(path) as file:
            yield lambda row: file.write(encoded(row))
