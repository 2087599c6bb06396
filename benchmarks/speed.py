"""Measure Palam against a plain reference after the published design of such bridges.

Time, memory, arithmetic. Both run in this process on the same models, rows, batches and dtype, step
by step in turn. See NOTES.md beside this.

    python benchmarks/speed.py --short --json FILE.json
"""

import argparse
import json
import math
import platform
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from speed_measure import (
    Effort,
    Figures,
    Rows,
    Spread,
    TrainingFigures,
    Unit,
    check,
    measure,
    variants,
)

from palam import PalamModel
from palam.cli._options import silence_libraries
from palam.cli._output import check_writable, print_table
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.tasks.registry import get_task
from palam.utils.device import dtype_name, resolve_placement
from palam.utils.progress import progress_bar

MATMULS = 50
"""Matrix products that are timed in all."""
CHECKED_ROWS = 8
FUSIONS = "last,mean,global_softmax,transformer_softmax,transformer_softmax:32"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--encoder", default="starter:encoder")
    add("--llm", default="starter:llm")
    add("--task", default="demo")
    add("--device", default="auto")
    add("--data", type=Path)
    add("--dtype", default="auto", help="auto (the faster), fp32, bf16 or fp16")
    add("--batch-sizes", default="8,32")
    add(
        "--fusions", default=FUSIONS, help="a rank after a colon; scoring is with mean or the first"
    )
    add("--repeats", type=int, default=5)
    add("--steps", type=int, default=6, help="batches, the same in every repetition")
    add("--threads", type=int, help="of torch; default its own choice")
    add("--compile", action="store_true", help="Palam trains with the LLM's layers compiled")
    add("--json", type=Path, help="write all figures to this file")
    add(
        "--short",
        action="store_true",
        help="the first fusion and batch size, two short repetitions",
    )
    options = parser.parse_args(arguments)
    options.batch_sizes = [int(size) for size in options.batch_sizes.split(",")]
    options.fusions = options.fusions.split(",")
    options.matmuls = math.ceil(MATMULS / options.repeats / len(options.batch_sizes))
    if options.short:
        options.batch_sizes = options.batch_sizes[:1]
        options.fusions = options.fusions[:1]
        options.repeats = 2
        options.steps = 2
        options.matmuls = 1
    return options


def build(options: argparse.Namespace, dtype: str) -> dict[str, PalamModel]:
    """A model of each fusion, all with the same two base models."""
    placement = resolve_placement(options.device, dtype)
    encoder = load_encoder(options.encoder, **placement)
    llm = load_llm(options.llm, **placement)
    models: dict[str, PalamModel] = {}
    processor = None
    for name in options.fusions:
        fusion, _, rank = name.partition(":")
        models[name] = PalamModel.from_bases(
            encoder,
            llm,
            fusion=fusion,
            fusion_options={"rank": int(rank)} if rank else {},
            normalize="layer",
            mode="prompt",
            prompt=get_task(options.task).prompt,
            processor=processor,
        )
        processor = models[name].processor
    return models


def measure_all(
    units: Sequence[Unit], options: argparse.Namespace, console: Console
) -> tuple[list[Figures], float]:
    """The figures of all batch sizes, and the device's matrix rate in operations a second."""
    effort = Effort(repeats=options.repeats, steps=options.steps, matmuls=options.matmuls)
    figures: list[Figures] = []
    products: list[float] = []
    total = len(options.batch_sizes) * (effort.repeats + 1) * effort.steps
    with progress_bar("measuring", total, console) as advance:
        for size in options.batch_sizes:
            measured = measure(units, size, effort, lambda: advance(1))
            figures += measured.figures
            products += measured.matmul_seconds
    limit = 2 * 2048**3 / statistics.median(products)
    for figure in figures:
        if isinstance(figure, TrainingFigures):
            rates = [rate / limit for rate in figure.operations_per_second]
            figure.share_of_matrix_limit = Spread(*rates)
    return figures, limit


# ---------------------------------------------------------------------- showing
def shown(ratio: Spread | None, form: str = "{:.2f}") -> str:
    """A spread as text."""
    if ratio is None:
        return "–"
    median, low, high = (form.format(value) for value in ratio)
    return f"{median} ({low}–{high})"


def case_cells(figure: Figures) -> list[str]:
    """The cells in front of a row."""
    return [figure.kind, str(figure.batch_size), figure.fusion]


def figures_table(figures: Sequence[Figures], title: str) -> Table:
    """Rates, ratios and memory."""
    table = Table(
        "",
        "batch",
        "fusion",
        "Palam tokens/s",
        "reference",
        "fp32 reference",
        "Palam faster",
        "than fp32",
        "time over last",
        "of matrix limit",
        "peak MB",
        "of reference's",
        title=title,
    )
    for figure in figures:
        training = figure if isinstance(figure, TrainingFigures) else None
        peak = figure.peak_bytes["palam"]
        ratio = figure.memory_ratio
        table.add_row(
            *case_cells(figure),
            shown(figure.palam_tokens_per_second, "{:.0f}"),
            shown(figure.reference_tokens_per_second, "{:.0f}"),
            shown(figure.reference_fp32_tokens_per_second, "{:.0f}"),
            shown(figure.speedup),
            shown(figure.speedup_over_fp32),
            shown(training and training.time_over_last),
            shown(training and training.share_of_matrix_limit, "{:.0%}"),
            "–" if peak is None else f"{peak / 1e6:.0f}",
            "–" if ratio is None else f"{ratio:.0%}",
        )
    return table


def switches_table(figures: Sequence[Figures]) -> Table:
    """Each switch alone."""
    switches = list(dict.fromkeys(name for figure in figures for name in figure.switches))
    title = "One switch of the reference alone: how many times as long as Palam"
    table = Table("", "batch", "fusion", *switches, title=title)
    for figure in figures:
        ratios = [shown(figure.switches.get(name)) for name in switches]
        table.add_row(*case_cells(figure), *ratios)
    return table


def cache_table(figures: Sequence[Figures]) -> Table:
    """The encoder's share of a training step."""
    title = "Encoder states kept: the encoder's share of a step, and the step"
    table = Table("", "batch", "fusion", "share", "with states kept", "faster", title=title)
    for figure in figures:
        if isinstance(figure, TrainingFigures):
            table.add_row(
                *case_cells(figure),
                shown(figure.encoder_share),
                shown(figure.encoder_share_cached),
                shown(figure.cached_speedup),
            )
    return table


def machine() -> dict[str, Any]:
    """What it was measured on, but for the device."""
    return {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the reference, measure, print the tables and write the file."""
    options = parse(arguments)
    console = Console(stderr=True)
    silence_libraries()
    if options.json:
        check_writable(options.json)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    placement = resolve_placement(options.device, options.dtype)
    device, dtype = placement["device"], dtype_name(placement["dtype"])
    with console.status("loading the models"):
        models = [build(options, name) for name in dict.fromkeys((dtype, "fp32"))]
        first_model = next(iter(models[0].values()))
        data = Rows(get_task(options.task), first_model.processor, options.data)
    if options.compile:
        for model in models[0].values():
            model.compile_llm()
    count = len(data.texts)
    if count < max(options.batch_sizes):
        raise SystemExit(f"{options.task} has only {count} training rows")
    with console.status("checking that the reference gives Palam's losses"):
        rows = random.Random(0).sample(range(count), min(CHECKED_ROWS, count))
        differences = {fusion: check(model, data, rows) for fusion, model in models[-1].items()}
    units = []
    for fusion in options.fusions:
        units += variants("training", fusion, models, data)
    scored = "mean" if "mean" in options.fusions else options.fusions[0]
    units += variants("scoring", scored, models, data)
    figures, limit = measure_all(units, options, console)

    threads = torch.get_num_threads()
    title = f"{dtype} on {device}, {threads} threads: median (lowest–highest)"
    for table in (figures_table(figures, title), switches_table(figures), cache_table(figures)):
        print_table(table)
    print(f"matrix limit: {limit / 1e9:.0f} billion operations a second")
    print(f"tokenising all {count} rows once, before the steps: {data.seconds:.2f} s")
    if options.json:
        report = {
            "machine": {"device": str(device), **machine()},
            "dtype": dtype,
            "settings": vars(options),
            "matrix_limit": limit,
            "loss_differences": differences,
            "tokenising_seconds": data.seconds,
            "results": [figure.to_dict() for figure in figures],
        }
        text = json.dumps(report, indent=2, default=str)
        options.json.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
