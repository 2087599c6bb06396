"""Reading labels through a bridge: rows a second, and the share of the machine's matrix rate.

    python benchmarks/reading.py BRIDGE --json out.json

Compared in one run with what one would otherwise take: the LLM that reads the same text itself
(labels scored in the same way), and the published way, an answer that is generated through the
bridge and matched with the labels. Short texts are the demonstration's sentences in eight
languages; long ones are eight of them joined. The share is that of the floating-point operations
that were counted, over the rate of a product of two matrices of 2048 x 2048 in the same dtype,
measured before and after. With --other-dtype, the share of texts that get the same label in that
dtype.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from palam import PalamModel
from palam.bench.plan import MATRIX_PRODUCT_OPERATIONS
from palam.inference.generation import generate
from palam.inference.scoring import LabelScorer
from palam.tasks.loading import load_split
from palam.tasks.registry import get_task
from palam.utils.autotune import matmul_seconds
from palam.utils.device import dtype_name, resolve_placement

LANGUAGES = (
    "eng_Latn",
    "sin_Sinh",
    "tam_Taml",
    "hin_Deva",
    "swh_Latn",
    "amh_Ethi",
    "ben_Beng",
    "tel_Telu",
)
LABELS = (
    "sports",
    "health",
    "geography",
    "science",
    "travel",
    "politics",
    "entertainment",
    "business",
    "culture",
    "war",
    "weather",
    "food",
    "art",
    "law",
    "education",
    "history",
    "music",
    "religion",
    "money",
    "animals",
)
JOINED = 8
"""Sentences of a long text."""


def texts_of(kind: str, count: int) -> list[str]:
    """Short or long texts, all different."""
    rows = [load_split(get_task("demo"), "test", code) for code in LANGUAGES]
    sentences = [row[place].fields["text"] for place in range(len(rows[0])) for row in rows]
    if kind == "short":
        return sentences[:count]
    joined = []
    for start in range(count):
        joined.append(" ".join(sentences[start : start + JOINED]))
    return joined


def seconds_of(action: Callable[[], object], repeats: int) -> float:
    """The median of some runs, after one that is not counted."""
    action()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def operations_of(action: Callable[[], object]) -> float:
    """The floating-point operations of the matrix products in a run."""
    with FlopCounterMode(display=False) as counter:
        action()
    return float(counter.get_total_flops())


def matrix_rate(dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    return MATRIX_PRODUCT_OPERATIONS / statistics.median(matmul_seconds("cpu", dtype))


def measure(
    model: PalamModel, texts: Sequence[str], labels: Sequence[str], repeats: int
) -> dict[str, float]:
    """Rows a second of each way, and the first one's share of the matrix rate."""
    through_bridge = LabelScorer(model, labels)
    by_itself = LabelScorer(model, labels, llm_only=True)
    longest = max(len(model.processor.answer_ids(label)) for label in labels)
    before = matrix_rate(model.llm.dtype)

    def read() -> object:
        return through_bridge.score(texts)

    seconds = seconds_of(read, repeats)
    rate = (before + matrix_rate(model.llm.dtype)) / 2
    return {
        "through the bridge": len(texts) / seconds,
        "share of the matrix rate": operations_of(read) / seconds / rate,
        "the LLM itself": len(texts) / seconds_of(lambda: by_itself.score(texts), repeats),
        "generate and match": len(texts)
        / seconds_of(lambda: generate(model, texts, max_new_tokens=longest), repeats),
    }


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bridge")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--other-dtype", help="also: how many texts get the same label in this one")
    parser.add_argument("--short", type=int, default=256, help="number of short texts")
    parser.add_argument("--long", type=int, default=32, help="number of long texts")
    parser.add_argument("--labels", default="3,7,20", help="how many labels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    placement = resolve_placement("cpu", options.dtype)
    model = PalamModel.from_pretrained(options.bridge, **placement)
    figures: dict[str, Any] = {
        "dtype": dtype_name(placement["dtype"]),
        "threads": torch.get_num_threads(),
    }
    for kind, count in (("short", options.short), ("long", options.long)):
        texts = texts_of(kind, count)
        for num_labels in map(int, options.labels.split(",")):
            measured = measure(model, texts, LABELS[:num_labels], options.repeats)
            figures[f"{kind}, {num_labels} labels"] = measured
            listed = ", ".join(f"{name} {value:.2f}" for name, value in measured.items())
            print(f"{kind}, {num_labels} labels: {listed}", flush=True)
    if options.other_dtype:
        other = PalamModel.from_pretrained(
            options.bridge, **resolve_placement("cpu", options.other_dtype)
        )
        texts = texts_of("short", len(LANGUAGES) * 35)
        labels = LABELS[:7]
        ours = LabelScorer(model, labels).score(texts).argmax(1)
        theirs = LabelScorer(other, labels).score(texts).argmax(1)
        same = (ours == theirs).float().mean().item()
        figures[f"same label in {options.other_dtype}"] = same
        print(f"same label in {options.other_dtype}: {same:.2%} of {len(texts)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
