"""Memory and time of tokenising very many training rows, which are kept on disk.

    python benchmarks/many_rows.py --rows 1000000 --json out.json --svg memory.svg

The rows are made here: two texts of words that are drawn from the demonstration's sentences, as a
pair of an inference task has them. No model is loaded.
"""

import argparse
import json
import math
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from palam.models.backbones.loading import load_tokenizer
from palam.models.processing import PalamProcessor
from palam.models.template import Template
from palam.tasks.loading import load_split
from palam.tasks.registry import get_task
from palam.training.config import DataConfig
from palam.training.data import read_training_data
from palam.training.datasets import AnswerDataset

WORDS_OF_A_TEXT = (6, 20)
LABELS = ("entailment", "neutral", "contradiction")
SAMPLE_SECONDS = 0.5
MEGABYTE = 1e6
WIDTH, HEIGHT, MARGIN, LINE = 640, 240, 48, 14
"""Of the picture; the last is a line of text."""
MOST_POINTS = 400
"""Of the curve."""


class MemoryLog:
    """Samples of this process's resident memory, taken by a thread within the `with` block."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        """Seconds since the start, and MB."""
        self.marks: list[tuple[float, str]] = []
        """Seconds since the start, and what began there."""
        self._start = time.perf_counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "MemoryLog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def mark(self, name: str) -> None:
        """Something begins now."""
        self.marks.append((self.seconds(), name))

    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._start

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._ended.wait(SAMPLE_SECONDS):
            self.samples.append((self.seconds(), process.memory_info().rss / MEGABYTE))


def write_rows(path: Path, count: int) -> None:
    """Write a file of made-up labelled pairs."""
    examples = load_split(get_task("demo"), "train", "eng_Latn")
    words = sorted({word for example in examples for word in example.fields["text"].split()})
    generator = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            first, second = (
                " ".join(generator.choices(words, k=generator.randint(*WORDS_OF_A_TEXT)))
                for _ in range(2)
            )
            row = {"first": first, "second": second, "label": generator.choice(LABELS)}
            file.write(json.dumps(row) + "\n")


def tokenise(path: Path, folder: Path, log: MemoryLog) -> dict[str, float]:
    """Read and tokenise a file as `palam train` does; seconds of both."""
    encoder_tokenizer = load_tokenizer("starter:encoder")
    llm_tokenizer = load_tokenizer("starter:llm")
    template = Template.build("prompt", "{text}\nLabel:", llm_tokenizer)
    processor = PalamProcessor(encoder_tokenizer, llm_tokenizer, template=template)
    log.mark("reading")
    start = log.seconds()
    config = DataConfig(file=path, text_column="Premise: {first} Hypothesis: {second}")
    data = read_training_data(config, seed=0)
    read = log.seconds()
    log.mark("tokenising")
    assert data.task is not None  # the file is labelled
    answers = [data.task.answer(example.label) for example in data.train]
    rows = AnswerDataset(processor, data.texts(data.train, "prompt"), answers, folder=folder)
    done = log.seconds()
    log.mark("done")
    time.sleep(2)
    return {"rows": len(rows), "reading": read - start, "tokenising": done - read}


def picture(log: MemoryLog) -> str:
    """Memory over time, as SVG."""
    end = max(seconds for seconds, _ in log.samples)
    most = max(megabytes for _, megabytes in log.samples)

    def place(seconds: float, megabytes: float) -> tuple[float, float]:
        across = MARGIN + (WIDTH - 2 * MARGIN) * seconds / end
        return across, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * megabytes / most

    step = math.ceil(len(log.samples) / MOST_POINTS)
    points = " ".join("{:.1f},{:.1f}".format(*place(*sample)) for sample in log.samples[::step])
    shapes = [f'<polyline points="{points}" fill="none" stroke="#1f6f8b" stroke-width="2"/>']
    bottom = HEIGHT - MARGIN
    for number, (seconds, name) in enumerate(log.marks):
        across, _ = place(seconds, 0)
        anchor, beside = ("end", across - 3) if across > WIDTH / 2 else ("start", across + 3)
        above = MARGIN - 6 - LINE * (number % 2)  # two that begin close together do not overlap
        shapes.append(
            f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{MARGIN}" y2="{bottom}" '
            'stroke="#999" stroke-dasharray="3 3"/>'
        )
        shapes.append(
            f'<text x="{beside:.1f}" y="{above}" text-anchor="{anchor}">'
            f"{name}, {seconds:,.0f} s</text>"
        )
    shapes.append(
        f'<path d="M{MARGIN} {MARGIN}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="#333"/>'
    )
    for share in (0.5, 1.0):
        _, height = place(0, most * share)
        shapes.append(
            f'<text x="{MARGIN - 4}" y="{height:.1f}" text-anchor="end">{most * share:,.0f}</text>'
        )
    shapes.append(f'<text x="4" y="14">MB</text><text x="{WIDTH - 40}" y="{bottom + 16}">s</text>')
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def main() -> None:
    """Measure, print, and write the figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures and samples to this file")
    parser.add_argument("--svg", type=Path, help="draw memory over time into this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", options.rows)
        with MemoryLog() as log:
            seconds = tokenise(folder / "rows.jsonl", folder / "tokens", log)
    before = max(megabytes for when, megabytes in log.samples if when <= log.marks[0][0])
    figures: dict[str, Any] = {
        **seconds,
        "megabytes before": before,
        "megabytes at most": max(megabytes for _, megabytes in log.samples),
        "megabytes at the end": log.samples[-1][1],
    }
    for key, value in figures.items():
        print(f"{key}: {value:,.0f}")
    if options.json:
        content = {**figures, "samples": log.samples, "marks": log.marks}
        options.json.write_text(json.dumps(content) + "\n", encoding="utf-8")
    if options.svg:
        options.svg.write_text(picture(log), encoding="utf-8")


if __name__ == "__main__":
    main()
