"""`palam evaluate`, `palam classify` and `palam generate`."""
# ruff: noqa: B008, RUF009 (an option with its default is typer's own form, and `option` is a field with its help)

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Column, Table
from transformers import TextStreamer
from typer import Option

from palam.cli.options import CheckpointArgument, ConfigOption, Loading, load, options_of
from palam.cli.output import json_lines, opened, show
from palam.errors import PalamError
from palam.inference import evaluation as evaluate
from palam.inference import generation as generate
from palam.inference.evaluation import METHODS, Evaluation, load_languages
from palam.inference.scoring import score_labels
from palam.models.checkpoint import load_bridge
from palam.models.modeling import PalamModel
from palam.models.template import Template
from palam.tasks.loading import available, task_from_file
from palam.tasks.readers import numbered_rows, text_of
from palam.tasks.registry import get_task
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task, slots
from palam.training.config import option
from palam.utils.languages import language_name

MADE = ("prediction", "scores", "answer")  # columns that the commands add
CHUNK = 1024  # rows of a file in memory at a time


@dataclass
class Source(Loading):
    """Texts to read, and where to write; a source that cannot be read is told before a model is loaded."""

    text: str | None = option(None, "One text.")
    file: str | None = option(
        None, "Texts: JSONL, CSV, or plain text with one text a line; - is standard input."
    )
    column: str | None = option(
        None, "The column that holds the text; not set is text, or the columns of the task."
    )
    out: Path | None = option(None, "Where to write, as JSON lines; else standard output.")
    resume: bool = option(
        False, "Keep what is done in <out>.partial; given again, go on from there."
    )

    def __post_init__(self) -> None:
        if (self.text is None) == (self.file is None):
            raise PalamError("give either --text or --file")
        if self.file not in (None, "-"):
            Path(str(self.file)).open("rb").close()
        if self.resume and (self.file in (None, "-") or self.out is None):
            raise PalamError("--resume needs --file and --out")


@options_of(Loading, {"encoder", "llm", "device", "dtype", "load_in", "allow_mismatch"})
def evaluate_command(
    checkpoint: CheckpointArgument,
    task: str | None = Option(
        None, help="Any task of the bridge's family; `palam info` lists the tasks."
    ),
    file: Path | None = Option(None, help="A labelled JSONL or CSV file of your own, not a task."),
    text_column: str | None = Option(
        None, help="Its text column, or a template over several; not set is as trained."
    ),
    label_column: str = Option("label", help="Its label column."),
    data: Path | None = Option(
        None, help="Folder of <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub."
    ),
    split: str = Option("dev", help="Split to read."),
    languages: str | None = Option(None, help="Codes, e.g. en,si,ta; not set is all there are."),
    limit: int | None = Option(
        None, help="Rows per language, a seeded and label-stratified sample; not set is all."
    ),
    method: str = Option(
        "score", help="score (likeliest label) or generate (greedy, exact match)."
    ),
    llm_only: bool = Option(
        False, "--direct", help="The LLM reads the text itself, without the bridge."
    ),
    json_file: Path | None = Option(None, "--json", help="Write the results here."),
    predictions: Path | None = Option(None, help="Write every prediction here, as JSON lines."),
    seed: int = Option(0, help="Seed of the sample."),
    batch_size: int = Option(32, help="Texts at a time.", min=1),
    config: ConfigOption = None,
    **loading: Any,
) -> None:
    """Measure a bridge on a task in any of its languages, or on a file of your own."""
    if method not in METHODS:
        raise PalamError(f"method is {method!r}; it must be one of: {', '.join(METHODS)}")
    if (task is None) == (file is None):
        raise PalamError("give either --task or --file")
    codes = _listed(languages)
    if task is not None:
        chosen = get_task(task)
        codes = codes if languages is not None else available(chosen, data_dir=data).get(split, [])
        if not codes:
            raise PalamError(
                f"{task} has no {split} split here; give --languages, --split or --data"
            )
        rows = load_languages(chosen, split, codes, data_dir=data, limit=limit, seed=seed)
    elif len(codes) != 1:
        raise PalamError("with --file, give the one language of its texts, e.g. --languages si")
    else:
        chosen, examples = _own_task(checkpoint, file, text_column, label_column)
        rows, split = {codes[0]: sample(examples, limit, seed)}, str(file)
    with (
        contextlib.ExitStack() as files
    ):  # opened now, so that a place that cannot be written to is told at once
        results = files.enter_context(opened(json_file)) if json_file else None
        write, *_ = files.enter_context(json_lines(predictions)) if predictions else (None,)
        model = load(checkpoint, Loading(**loading))
        options: dict[str, Any] = {"method": method, "direct": llm_only, "batch_size": batch_size}
        with _progress("reading", sum(map(len, rows.values()))) as progress:
            found = evaluate(
                model, chosen, split, rows, name=checkpoint, progress=progress, **options
            )
        if results:
            results.write(json.dumps(found.to_dict(), indent=2).encode() + b"\n")
        if write:
            for one in found.predictions:
                write(one)
    show(_table(found, model))


def _own_task(
    bridge: str, file: Path | None, column: str | None, label: str
) -> tuple[Task, list[Example]]:
    """The rows of a user's file, with the labels and the form of the text that the bridge was trained with."""
    trained = load_bridge(bridge).config.task
    if not trained:
        raise PalamError("this bridge was not trained for a task; it has no labels to measure")
    form = trained["text"]
    column = column or ("text" if slots(form) == {"text"} else form)
    task, examples = task_from_file(
        str(file), text_column=column, label_column=label, labels=dict(trained["labels"])
    )
    form = form if slots(form) == set(task.fields) else task.text
    return replace(
        task, name=trained["name"], family=trained["family"], text=form, paper_text=form
    ), examples


def _table(found: Evaluation, model: PalamModel) -> Table:
    """Accuracy by language; how many texts were cut, and the share of tokens that the encoder does not know."""
    read = model.processor.stats  # empty if the LLM read the texts itself
    columns = [
        Column(one, justify="right") for one in ("n", "accuracy", "95 % interval", "cut", "unknown")
    ]
    table = Table("language", *columns[: 5 if read else 3], title=f"{found.task}, {found.split}")
    table.title_justify = table.caption_justify = "left"
    results = found.to_dict()["results"]
    for code, result in results.items():
        low, high = result["ci95"]
        cells = [f"{result['n']:,}", f"{result['accuracy']:.1%}", f"{low:.1%} to {high:.1%}"]
        if code in read:
            cells += [f"{read[code].cut:,}", f"{read[code].unknown_share:.2%}"]
        table.add_row(f"{language_name(code)} ({code})", *cells)
    if len(results) > 1:
        table.add_section()
        table.add_row(f"mean of {len(results)}", "", f"{found.macro:.1%}")
    if read:
        table.caption = (
            f"cut: at {model.processor.max_length} tokens\nunknown: to the encoder, of all tokens"
        )
    return table


@options_of(Source)
def classify_command(
    checkpoint: CheckpointArgument,
    labels: str | None = Option(
        None, help="Labels, e.g. good,bad; not set is those the bridge was trained on."
    ),
    batch_size: int = Option(32, help="Texts at a time.", min=1),
    config: ConfigOption = None,
    **given: Any,
) -> None:
    """Label texts.

    Each row comes out, in input order, with its prediction and the log-probability of each label.
    """
    source = Source(**given)
    own = {label: label for label in _listed(labels)}  # each with its words, which are the same
    if labels is not None and len(own) < 2:
        raise PalamError(f"--labels {labels!r} holds fewer than two labels; give e.g. good,bad")
    with json_lines(source.out, source.resume) as (write, done, last):
        model = load(checkpoint, source)
        words = own or dict((model.config.task or {}).get("labels", ()))
        if not words:
            raise PalamError(
                "this bridge was not trained on a task with labels; give --labels, e.g. --labels good,bad"
            )
        if last and list(last.get("scores", ())) != list(words):
            raise PalamError("what <out>.partial holds has other labels; delete it to start anew")
        options: dict[str, Any] = {"labels": list(words.values()), "batch_size": batch_size}
        with _progress("reading", wanted=source.text is None) as progress:
            for rows, texts in _chunks(model, source, done, last):
                languages = [source.language] * len(texts)
                scores = score_labels(
                    model, texts, languages=languages, progress=progress, **options
                )
                for row, best, values in zip(
                    rows, scores.argmax(1).tolist(), scores.tolist(), strict=True
                ):
                    shown = {key: round(value, 4) for key, value in zip(words, values, strict=True)}
                    write({**row, "prediction": list(words)[best], "scores": shown})


@options_of(Source)
def generate_command(
    checkpoint: CheckpointArgument,
    prompt: str | None = Option(
        None, help="What to ask, with one {text} slot; not set is as the bridge was trained."
    ),
    mode: str | None = Option(
        None, help="Around the text: paper, prompt or chat; not set is as trained."
    ),
    max_new_tokens: int = Option(64, help="Most tokens to answer with.", min=1),
    temperature: float = Option(0.0, help="0 is greedy; above, the answer is drawn.", min=0),
    seed: int = Option(0, help="Seed of what is drawn."),
    llm_only: bool = Option(
        False, "--direct", help="The LLM reads the text itself, without the bridge."
    ),
    batch_size: int = Option(16, help="Texts at a time.", min=1),
    config: ConfigOption = None,
    **given: Any,
) -> None:
    """Let the LLM answer freely about texts.

    The answer to one text is streamed as it comes; rows of a file come out, in input order, with their answers.
    """
    from transformers import set_seed

    source = Source(**given)
    if mode == "paper" and prompt is not None:
        raise PalamError("the mode paper has no prompt; give --mode prompt or --mode chat")
    with json_lines(source.out, source.resume) as (write, done, last):
        model = load(checkpoint, source)
        processor = model.processor
        if prompt is not None or mode is not None:
            mode = mode or processor.template.mode.replace("paper", "prompt")
            processor.template = Template.build(mode, prompt, processor.llm_tokenizer)
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
        settings |= {"temperature": temperature} if temperature else {}
        reading: dict[str, Any] = {"direct": llm_only, "batch_size": batch_size}
        set_seed(seed)
        if source.text is not None and source.out is None:
            (_, texts), *_ = _chunks(model, source)
            inputs = processor(
                texts, languages=[source.language], llm_only=llm_only or model.config.llm_only
            )
            streamer = _Streamer(processor.llm_tokenizer, skip_special_tokens=True)
            model.generate(**inputs, streamer=streamer, **settings)
            return
        with _progress("answering") as progress:
            for rows, texts in _chunks(model, source, done, last):
                languages = [source.language] * len(texts)
                answers = generate(
                    model, texts, languages, progress=progress, **reading, **settings
                )
                for row, answer in zip(rows, answers, strict=True):
                    write({**row, "answer": answer})


class _Streamer(TextStreamer):
    """Prints an answer while it is made, without the space in front that an answer begins with."""

    begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        text = text if self.begun else text.lstrip()
        self.begun = self.begun or bool(text)
        super().on_finalized_text(text, stream_end)


@contextlib.contextmanager
def _progress(
    doing: str, total: int | None = None, wanted: bool = True
) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; gives what advances it."""
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not (wanted and console.is_terminal)
    ) as bar:
        item = bar.add_task(doing, total=total)
        yield lambda n: bar.advance(item, n)


def _listed(given: str | None) -> list[str]:
    return [one.strip() for one in (given or "").split(",") if one.strip()]


def _chunks(
    model: PalamModel, source: Source, done: int = 0, last: Any = None
) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
    """Rows and what the encoder reads of each, a chunk at a time, after those that are done.

    The form that the bridge's task gives a text is applied where its columns are known: not to one `--text` or one
    `--column` of a task whose text has several.
    """
    form = str(model.config.task["text"]) if model.config.task else "{text}"
    names = sorted(slots(form))
    if names != ["text"] and (source.text is not None or source.column):
        form, names = "{text}", ["text"]
    if source.text is not None:
        yield [{"text": source.text}], [form.format(text=source.text)]
        return
    file, column = str(source.file), source.column
    hint = "" if column else "; name one with --column"
    numbered = numbered_rows(file, column=column or (names[0] if names != ["text"] else None))
    if done:
        _, row = next(islice(numbered, done - 1, done), ("", {}))
        if not row or row | {name: last[name] for name in MADE if name in last} != last:
            raise PalamError(
                f"what <out>.partial holds is not of the rows of {file}; delete it to start anew"
            )
    texts: list[str] = []
    while chunk := list(islice(numbered, CHUNK)):
        found = (
            {name: text_of(row, column or name, where, hint=hint) for name in names}
            for where, row in chunk
        )
        texts = [form.format(**fields) for fields in found]
        yield [row for _, row in chunk], texts
    if not texts and not done:
        raise PalamError(f"{file if file != '-' else 'standard input'} is empty")
