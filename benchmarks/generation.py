"""Measure how fast answers are made: Palam's own generation, and vLLM's where it is installed.

Both read the same vectors of the same texts, in this process, in turn, repetition by repetition.
Every answer has the same number of tokens: ends are not looked for. See NOTES.md beside this.

    python benchmarks/generation.py --dtype bf16 --json FILE.json

Another state of the code is measured by its folder: `--source OTHER/src`.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Rates(NamedTuple):
    """Tokens a second over the repetitions."""

    median: float
    low: float
    high: float


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--encoder", default="starter:encoder")
    add("--llm", default="starter:llm")
    add("--task", default="demo")
    add("--language", default="si")
    add("--dtype", default="fp32", help="fp32 or bf16; one, as vLLM is started once a process")
    add("--prompts", default="1,8,32")
    add("--new-tokens", type=int, default=32, help="of each answer")
    add("--repeats", type=int, default=5)
    add("--threads", type=int, help="of torch; default its own choice")
    add("--source", type=Path, help="measure the palam in this folder, without vLLM")
    add("--no-vllm", action="store_true")
    add("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    options.prompts = [int(count) for count in options.prompts.split(",")]
    return options


def build(options: argparse.Namespace, is_packed: bool) -> Any:
    """A new bridge between the base models; with plain code, as `palam generate` loads it."""
    from palam import PalamModel
    from palam.tasks.registry import get_task
    from palam.utils.device import resolve_placement

    model = PalamModel.from_bases(
        options.encoder,
        options.llm,
        fusion="mean",
        normalize="layer",
        mode="prompt",
        prompt=get_task(options.task).prompt,
        **resolve_placement("cpu", options.dtype),
    )
    if is_packed:
        from palam.models.backbones.packing import pack_llm

        pack_llm(model.llm)
    return model


def texts_of(options: argparse.Namespace) -> list[str]:
    """As many texts as the largest batch has."""
    from palam.tasks.loading import load_split
    from palam.tasks.registry import get_task

    task = get_task(options.task)
    examples = load_split(task, "test", options.language)
    texts = [task.render(example, "prompt") for example in examples]
    count = max(options.prompts)
    if len(texts) < count:
        raise SystemExit(f"{options.task} has only {len(texts)} texts in {options.language}")
    return texts[:count]


def runs_of(options: argparse.Namespace) -> dict[str, Callable[[list[str]], int]]:
    """What is measured, by name: each takes texts and returns how many tokens it made."""
    from palam.inference.generation import generate_ids

    runs: dict[str, Callable[[list[str]], int]] = {}

    def own(model: Any) -> Callable[[list[str]], int]:
        def run(texts: list[str]) -> int:
            generated = generate_ids(
                model,
                texts,
                max_new_tokens=options.new_tokens,
                eos_token_id=[],
                batch_size=len(texts),
            )
            # What comes after an end is cut from the ids, but was made.
            return options.new_tokens * len(generated)

        return run

    runs["plain"] = own(build(options, is_packed=False))
    if find_spec("palam.models.backbones.packing") is not None:
        runs["packed"] = own(build(options, is_packed=True))
    if not options.no_vllm and find_spec("vllm") is not None:
        runs["vllm"] = _vllm_run(options)
    return runs


def _vllm_run(options: argparse.Namespace) -> Callable[[list[str]], int]:
    from palam.inference.generation import generate_ids
    from palam.integrations.vllm import VllmEngine

    model = build(options, is_packed=False)
    VllmEngine(model)
    model.stop_ids = list  # no ends

    def run(texts: list[str]) -> int:
        generated = generate_ids(
            model, texts, max_new_tokens=options.new_tokens, batch_size=len(texts)
        )
        return sum(map(len, generated))

    return run


def measure(
    runs: dict[str, Callable[[list[str]], int]], texts: list[str], repeats: int
) -> dict[str, Rates]:
    """Tokens a second of each, in turn; a first round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repeats + 1):
        names = list(runs) if repetition % 2 else list(reversed(runs))
        for name in names:
            start = time.perf_counter()
            tokens = runs[name](texts)
            rates[name].append(tokens / (time.perf_counter() - start))
    counted = {name: values[1:] for name, values in rates.items()}
    return {
        name: Rates(statistics.median(values), min(values), max(values))
        for name, values in counted.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a line for each number of prompts, write the file."""
    options = parse(arguments)
    if options.source is not None:
        sys.path.insert(0, str(options.source.resolve()))
        options.no_vllm = True
    if options.threads:
        torch.set_num_threads(options.threads)
    threads = torch.get_num_threads()
    texts = texts_of(options)
    runs = runs_of(options)
    torch.set_num_threads(threads)  # vLLM has its own idea of them
    results = []
    for count in options.prompts:
        rates = measure(runs, texts[:count], options.repeats)
        shown = ", ".join(
            f"{name} {rate.median:.1f} ({rate.low:.1f}–{rate.high:.1f})"
            for name, rate in rates.items()
        )
        print(f"{options.dtype}, {count} prompts, tokens/s: {shown}", flush=True)
        figures = {name: rate._asdict() for name, rate in rates.items()}
        results.append({"prompts": count, "tokens_per_second": figures})
    if options.json:
        report = {
            "machine": {
                "machine": platform.machine(),
                "threads": threads,
                "torch": torch.__version__,
            },
            "settings": vars(options),
            "results": results,
        }
        text = json.dumps(report, indent=2, default=str)
        options.json.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
