"""Measure Palam against a plain reference after the published design of such bridges: time, memory, arithmetic.

Both run in this process on the same models, rows, batches and dtype, step by step in turn. See NOTES.md beside this.

    python benchmarks/speed.py --short --json FILE.json
"""

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from palam import PalamModel, PalamProcessor
from palam.cli.options import quiet
from palam.cli.output import check_place, show
from palam.inference import generation as generate
from palam.inference.scoring import score_labels
from palam.models.backbones import encoder as encoders
from palam.models.backbones.llm import load_llm
from palam.models.processing import IGNORE, TEXT_SLOT
from palam.models.sequence import LLMInputs
from palam.tasks.loading import load_split, native_language
from palam.tasks.registry import get_task
from palam.tasks.task import Task
from palam.training.collator import Collator
from palam.training.data import AnswerDataset
from palam.training.encoder_cache import EncoderStateCache
from palam.training.sampler import LengthGroupedSampler
from palam.utils.autotune import matmul_seconds
from palam.utils.device import dtype_name, resolve_placement

EXACT = ("tokenise", "stack", "logits", "padding")
"""The switches that must not change the loss."""
SWITCHES = {"training": (*EXACT, "dropout"), "scoring": (*EXACT, "generate")}
TOLERANCE = 1e-4


class OneByOne(PalamProcessor):
    """Tokenises for the encoder text by text."""

    def encode_texts(
        self, texts: Sequence[str], languages: Any = None, **options: Any
    ) -> list[dict[str, Any]]:
        """See [`PalamProcessor.encode_texts`]."""
        read, codes = super().encode_texts, languages or [None] * len(texts)
        return [read([text], [code], **options)[0] for text, code in zip(texts, codes, strict=True)]


class Reference(PalamModel):
    """The parts of a [`PalamModel`], run plainly where a switch is on and by Palam's own code where it is off.

    Args:
        model: the model whose encoder, bridge and LLM are used.
        on: names in `SWITCHES`. `dropout` acts in training alone; `generate` is the caller's.
    """

    on: frozenset[str] = frozenset()

    def __init__(self, model: PalamModel, on: Iterable[str] = ()) -> None:
        on, processor = frozenset(on), model.processor
        if "tokenise" in on:
            given = {
                one.name: getattr(processor, one.name) for one in fields(processor) if one.init
            }
            processor = OneByOne(**given)
        super().__init__(model.encoder, model.bridge, model.llm, processor)
        self.on, self.kept = on, None

    def train(self, mode: bool = True) -> "Reference":
        """The encoder's dropout with the rest's, if its switch is on."""
        super().train(mode)
        self.encoder.train(mode and "dropout" in self.on)
        return self

    def encode(self, ids: Tensor, mask: Tensor) -> Any:
        """The layers [batch, tokens, width] with their pads; with `stack` from a stack, list and stack kept alive."""
        if not self.on & {"stack", "padding"}:
            return super().encode(ids, mask)
        device = self.encoder.device
        states = [
            state.to(self.device)
            for state in encoders.encode(self.encoder, ids.to(device), mask.to(device))
        ]
        if "stack" not in self.on:
            return states
        self.kept = states, torch.stack(states)
        return self.kept[1].unbind()

    def build_llm_inputs(
        self, encoder_input_ids: Any, encoder_attention_mask: Any, input_ids: Any = None, attention_mask: Any = None,
        labels: Any = None,
    ) -> LLMInputs:  # fmt: skip
        """With `padding`: prefix, padded text, boundary, suffix and answer as rectangles side by side."""
        given = encoder_input_ids, encoder_attention_mask, input_ids, attention_mask, labels
        if "padding" not in self.on:
            if "stack" not in self.on:
                return super().build_llm_inputs(*given)
            real = encoder_attention_mask.to(self.device).bool()
            with self.bridge.register_forward_hook(
                lambda bridge, states, out: (out[0][real], out[1])
            ):
                return super().build_llm_inputs(*given)
        text, ids, known, wanted = (
            None if one is None else one.to(self.device) for one in given[1:]
        )
        # Palam pads these rows on the left; on the right, the text's slot is in the same column of all of them.
        width = ids.shape[1]
        order = (torch.arange(width, device=self.device) - known.sum(1, keepdim=True)) % width
        ids, known = ids.gather(1, order), known.gather(1, order)
        slot = int((ids[0] == TEXT_SLOT).nonzero()[0, 0])
        mapped, _ = self.bridge(self.encode(encoder_input_ids, text))
        before, after = self.embed(ids[:, :slot]), self.embed(ids[:, slot + 1 :])
        boundary = self.bridge.boundary.to(before.dtype).expand(len(ids), 1, -1)
        vectors = torch.cat([before, mapped.to(before.dtype), boundary, after], 1)
        mask = torch.cat([known[:, :slot], text, known[:, slot:]], 1)
        if wanted is not None:
            wanted = wanted.gather(1, order)
            wanted = torch.cat(
                [wanted[:, :slot], torch.full_like(text, IGNORE), wanted[:, slot:]], 1
            )
        return LLMInputs(vectors, mask, (mask.cumsum(1) - 1).clamp(min=0), wanted)

    def run_llm(self, joined: LLMInputs, logits_to_keep: int = 0, **options: Any) -> Any:
        """With `logits`: at every position. Scoring then takes the last ones, a loss looks at all."""
        if "logits" not in self.on:
            return super().run_llm(joined, logits_to_keep, **options)
        output = super().run_llm(joined, 0, **options)
        if joined.labels is None:
            output.logits = output.logits[:, -logits_to_keep:]
        return output


class Rows:
    """A task's training rows, tokenised once.

    Attributes:
        dataset: the rows; `seconds` is what tokenising them took.
        lengths: of each row, the encoder's tokens, the LLM's, and how many of these are answers.
    """

    def __init__(self, task: Task, processor: PalamProcessor, data: Path | None) -> None:
        examples = load_split(task, "train", "en", data_dir=data)
        self.language = native_language(task, "en", data_dir=data)
        self.texts = [task.render(example, processor.template.mode) for example in examples]
        self.answers = [task.labels[example.label] for example in examples]
        self.labels = list(task.labels.values())
        start = time.perf_counter()
        self.dataset = self.tokenise(processor, range(len(examples)))
        self.seconds = time.perf_counter() - start
        self.lengths = []
        for row in self.dataset.rows:
            text, answer = (
                len(row["encoder_input_ids"]),
                sum(label != IGNORE for label in row["labels"]),
            )
            self.lengths.append(
                (text, text + len(row["input_ids"]), answer)
            )  # the boundary stands in the slot

    def tokenise(self, processor: PalamProcessor, rows: Sequence[int]) -> AnswerDataset:
        """These rows as a data set of their own."""
        texts, answers = [self.texts[i] for i in rows], [self.answers[i] for i in rows]
        return AnswerDataset(processor, texts, answers, [self.language] * len(rows))

    def batch(self, model: PalamModel, rows: Sequence[int]) -> dict[str, Any]:
        """A training batch; tokenised now if the model's processor works text by text."""
        now = (
            self.tokenise(model.processor, rows).rows
            if isinstance(model.processor, OneByOne)
            else None
        )
        return Collator(model.processor)(now or [self.dataset[i] for i in rows])

    def score(self, model: PalamModel, rows: Sequence[int], batch_size: int) -> Tensor | list[str]:
        """Label scores [rows, labels], or what was generated; in the rows' order if they are not to be sorted."""
        on, read = getattr(model, "on", ()), []
        most = max(len(model.processor.answer_ids(label)) for label in self.labels)
        for part in chunks(rows, batch_size) if "padding" in on else [rows]:
            texts, languages = [self.texts[i] for i in part], [self.language] * len(part)
            if "generate" in on:
                # One: what transformers' generate asks for by itself.
                options = {"batch_size": batch_size, "max_new_tokens": most, "logits_to_keep": 1}
                read += generate(model, texts, languages, **options)
            else:
                read += score_labels(model, texts, self.labels, languages, batch_size=batch_size)
        return read if "generate" in on else torch.stack(read)


@dataclass(eq=False)
class Unit:
    """What is timed: one variant of one fusion (a switch, or as `variants` names it)."""

    kind: str  # a key of SWITCHES
    fusion: str
    name: str
    model: PalamModel
    optimizer: torch.optim.Optimizer
    data: Rows

    def parts(self, rows: Sequence[int], size: int) -> list[Sequence[int]]:
        """The same rows for all. Training goes batch by batch, grouped or shuffled; scoring takes all at once."""
        if self.kind == "scoring" or "padding" in getattr(self.model, "on", ()):
            rows = random.Random(0).sample(rows, len(rows))
        return [rows] if self.kind == "scoring" else chunks(rows, size)

    def run(self, rows: Sequence[int], size: int) -> None:
        """A training step on a batch, or the scoring of the rows."""
        if self.kind == "scoring":
            self.data.score(self.model, rows, size)
        elif self.name == "encoder":
            batch = self.data.batch(self.model, rows)
            self.model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
        else:
            self.model(**self.data.batch(self.model, rows)).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.model.kept = None

    def seconds(self, rows: Sequence[int], size: int) -> float:
        """How long a run takes."""
        self.model.train(self.kind == "training")
        return clock(lambda: self.run(rows, size), self.model.device)

    def peak(self, rows: Sequence[int], size: int) -> int | None:
        """Bytes that a run needs above those held before it; None where they cannot be read."""
        self.model.train(self.kind == "training")
        gc.collect()
        device, statm = self.model.device, Path("/proc/self/statm")
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.run(rows, size)
            return torch.cuda.max_memory_allocated(device) - before
        if device.type != "cpu" or not statm.exists():
            return None
        # glibc keeps what was freed: without this the run would find its memory there already.
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        done, pages = threading.Event(), [int(statm.read_text().split()[1])]

        def watch() -> None:
            while not done.wait(0.001):
                pages.append(int(statm.read_text().split()[1]))

        (watcher := threading.Thread(target=watch, daemon=True)).start()
        self.run(rows, size)
        done.set()
        watcher.join()
        return (max(pages) - pages[0]) * os.sysconf("SC_PAGE_SIZE")


def chunks(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    """The rows in batches."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def clock(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds that it takes, until the device has done all of it."""
    start = time.perf_counter()
    run()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start


def arithmetic(model: PalamModel, lengths: Iterable[tuple[int, int, int]]) -> int:
    """Operations that a training step on these rows needs; a multiply-add is two.

    A matrix of n numbers costs 2n a token; attention over t tokens costs 4·t²·width a layer (scores and mixing, the
    whole square). The encoder runs forward. The LLM runs forward, and backward for its activations: that is the same
    again for its matrices, which are frozen, and twice its attention. Its head is needed only where a label is
    predicted. The bridge, norms and embeddings are left out.

    Args:
        model: its two base models are counted.
        lengths: of each row, without pads: the encoder's tokens, the LLM's, and the positions that need logits.
    """

    def counted(base: Any) -> tuple[int, int]:
        config = base.config.get_text_config()
        head = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
        width = config.num_attention_heads * (
            head or config.hidden_size // config.num_attention_heads
        )
        matrices = [
            part.weight.numel() for part in base.modules() if isinstance(part, nn.Linear | Conv1D)
        ]
        return sum(matrices), width * config.num_hidden_layers

    encoder, encoder_attention = counted(model.encoder)
    llm, llm_attention = counted(model.llm)
    head = model.llm.get_output_embeddings().weight.numel()
    total = 0
    for text, tokens, wanted in lengths:
        total += 2 * encoder * text + 4 * encoder_attention * text**2
        total += 4 * ((llm - head) * tokens + head * wanted) + 12 * llm_attention * tokens**2
    return total


@torch.no_grad()
def check(model: PalamModel, data: Rows, rows: Sequence[int]) -> dict[str, float]:
    """How far the reference's loss is from Palam's: all switches off, and each exact one on. In fp32, no dropout.

    Raises SystemExit if a loss is off by more than 1e-4, or a label's score by more than 1e-4 of its size.
    """
    loss = model.eval()(**data.batch(model, rows)).loss
    scores = data.score(model, rows, len(rows))
    found = {}
    for name in ("off", *EXACT):
        reference = Reference(model, {name} - {"off"})
        found[name] = float((reference(**data.batch(reference, rows)).loss - loss).abs())
        score = float(
            ((data.score(reference, rows, len(rows)) - scores) / scores.clamp(max=-1)).abs().max()
        )
        if not (found[name] <= TOLERANCE and score <= TOLERANCE):
            raise SystemExit(
                f"the reference with {name} is off: its loss by {found[name]:.1e}, scores by {score:.1e}"
            )
    return found


def build(args: argparse.Namespace, dtype: str) -> dict[str, PalamModel]:
    """A model of each fusion, all with the same two base models."""
    how = resolve_placement(args.device, dtype)
    bases, models = (encoders.load_encoder(args.encoder, **how), load_llm(args.llm, **how)), {}
    options: dict[str, Any] = {
        "normalize": "layer",
        "mode": "prompt",
        "prompt": get_task(args.task).prompt,
    }
    for name in args.fusions:
        fusion, _, rank = name.partition(":")
        models[name] = PalamModel.from_bases(
            *bases, fusion=fusion, **options, **({"rank": int(rank)} if rank else {})
        )
        options["processor"] = models[name].processor
    return models


def variants(
    kind: str, fusion: str, models: Sequence[dict[str, PalamModel]], data: Rows
) -> list[Unit]:
    """All units of a fusion, of the first of `models`, and the reference of the last, which are in fp32 too.

    `cached` keeps the encoder's states, `encoder` is its forward pass alone, `compile` is without compiled layers.
    """
    model, plain = models[0][fusion], models[-1][fusion]
    made = {"palam": model, "reference": Reference(model, SWITCHES[kind])}
    made |= {name: Reference(model, [name]) for name in SWITCHES[kind]}
    if kind == "training":
        for name in ("cached", "encoder", *["compile"] * bool(model.compiled)):
            made[name] = PalamModel(model.encoder, model.bridge, model.llm, model.processor)
        made["cached"].cache = EncoderStateCache(model, 2**40)
        for name in ("cached", *SWITCHES[kind]):
            made[name].compiled = model.compiled
    if plain is not model:
        made["reference_fp32"] = Reference(plain, SWITCHES[kind])
    # One optimiser for all variants of a model, at a rate that leaves the loss where it is.
    own, other = (torch.optim.AdamW(one.bridge.parameters(), lr=1e-6) for one in (model, plain))
    return [
        Unit(kind, fusion, name, one, other if "fp32" in name else own, data)
        for name, one in made.items()
    ]


def measure(
    units: Sequence[Unit], size: int, args: argparse.Namespace, tick: Callable[[], Any]
) -> tuple[list[dict[str, Any]], list[float]]:
    """The figures of every kind and fusion at one batch size, and how long matrix products took in between.

    Args:
        units: those to interleave; the first's dtype and device are the products'.
        size: rows of a batch.
        args: `repeats`, `steps`, and `matmuls` of a repetition.
        tick: called after each step of all units, `steps * (repeats + 1)` times.
    """
    llm, limits = units[0].model.llm, []
    rows = list(LengthGroupedSampler(units[0].data.dataset, size, 0))[: size * args.steps]
    lengths = [units[0].data.lengths[row] for row in rows]
    parts = {unit: unit.parts(rows, size) for unit in units}
    for unit in units:
        if (cache := getattr(unit.model, "cache", None)) is not None:
            cache.fill(unit.model, [unit.data.dataset[row]["encoder_input_ids"] for row in rows])
    times: dict[tuple[str, str], Any] = defaultdict(lambda: defaultdict(list))
    for repeat in range(args.repeats + 1):
        taken: Counter[Any] = Counter()
        for step in range(args.steps):
            for unit in random.Random(f"{repeat}/{step}").sample(units, len(units)):
                for part in parts[unit][step : step + 1]:  # scoring has one
                    taken[unit] += unit.seconds(part, size)
            tick()
        if (
            repeat
        ):  # the first warms up: some kernels are compiled at the first sight of a batch's shape
            limits += matmul_seconds(llm.device, llm.dtype, times=args.matmuls)
            for unit in units:
                times[unit.kind, unit.fusion][unit.name].append(taken[unit])
    memory: dict[tuple[str, str], dict[str, int | None]] = defaultdict(dict)
    for unit in units:
        if unit.name in ("palam", "reference"):
            peaks = [unit.peak(part, size) for part in parts[unit]]
            memory[unit.kind, unit.fusion][unit.name] = None if None in peaks else max(peaks)
    found = []
    for (kind, fusion), own in times.items():
        own.setdefault("reference_fp32", own["reference"])
        # In scoring the answers are no part of the text.
        tokens = [sum(a + b - c * (kind == "scoring") for a, b, c in lengths)] * args.repeats
        one: dict[str, Any] = {"kind": kind, "batch_size": size, "fusion": fusion}
        for name in ("palam", "reference", "reference_fp32"):
            one[f"{name}_tokens_per_second"] = spread(tokens, own[name])
        one["speedup"], one["speedup_over_fp32"] = (
            spread(own[f"reference{d}"], own["palam"]) for d in ("", "_fp32")
        )
        one["switches"] = {
            key: spread(own[key], own["palam"])
            for key in (*SWITCHES[kind], "compile")
            if key in own
        }
        one["peak_bytes"] = used = memory[kind, fusion]
        one["memory_ratio"] = used["palam"] / used["reference"] if all(used.values()) else None
        if kind == "training":
            one["operations_per_second"] = spread(
                [arithmetic(units[0].model, lengths)] * args.repeats, own["palam"]
            )
            one["cached_speedup"] = spread(own["palam"], own["cached"])
            one["encoder_share"] = spread(own["encoder"], own["palam"])
            took = zip(own["cached"], own["palam"], own["encoder"], strict=True)
            one["encoder_share_cached"] = spread(
                (max(0.0, c - (whole - e)) for c, whole, e in took), own["cached"]
            )
            if last := times.get((kind, "last")):
                one["time_over_last"] = spread(own["palam"], last["palam"])
        found.append(one)
    return found, limits


def spread(above: Iterable[float], below: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest of the repetitions' ratios."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def tables(results: Sequence[dict[str, Any]], title: str) -> None:
    """Print the figures and, in a second table, each switch alone."""

    def shown(found: dict[str, float] | None, form: str = "{:.2f}") -> str:
        return (
            "{} ({}–{})".format(*(form.format(found[key]) for key in ("median", "low", "high")))
            if found
            else "–"
        )

    cases = ("", "batch", "fusion")
    figures = (
        "Palam tokens/s",
        "reference",
        "fp32 reference",
        "Palam faster",
        "than fp32",
        "time over last",
    )
    whole = Table(*cases, *figures, "of matrix limit", "peak MB", "of reference's", title=title)
    switches = list(dict.fromkeys(name for one in results for name in one["switches"]))
    shares, names = (
        ("encoder_share", "encoder_share_cached", "cached_speedup"),
        ("share", "with states kept", "faster"),
    )
    kept = Table(
        *cases, *names, title="Encoder states kept: the encoder's share of a step, and the step"
    )
    alone = Table(
        *cases,
        *switches,
        title="One switch of the reference alone: how many times as long as Palam",
    )
    for one in results:
        case = one["kind"], str(one["batch_size"]), one["fusion"]
        rates = (
            shown(one[f"{name}_tokens_per_second"], "{:.0f}")
            for name in ("palam", "reference", "reference_fp32")
        )
        ratios = (shown(one.get(key)) for key in ("speedup", "speedup_over_fp32", "time_over_last"))
        used, ratio = one["peak_bytes"]["palam"], one["memory_ratio"]
        memory = (
            "–" if used is None else f"{used / 1e6:.0f}",
            "–" if ratio is None else f"{ratio:.0%}",
        )
        whole.add_row(
            *case, *rates, *ratios, shown(one.get("share_of_matrix_limit"), "{:.0%}"), *memory
        )
        alone.add_row(*case, *(shown(one["switches"].get(name)) for name in switches))
        kept.add_row(*case, *(shown(one.get(key)) for key in shares))
    for table in (whole, alone, kept):
        show(table)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {
        "encoder": "starter:encoder",
        "llm": "starter:llm",
        "task": "demo",
        "device": "auto",
    }.items():
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dtype", default="auto", help="auto (the faster), fp32, bf16 or fp16")
    parser.add_argument("--batch-sizes", default="8,32")
    fusions = "last,mean,global_softmax,transformer_softmax,transformer_softmax:32"
    parser.add_argument(
        "--fusions", default=fusions, help="a rank after a colon; scoring is with mean or the first"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=6, help="batches, the same in every repetition"
    )
    parser.add_argument("--threads", type=int, help="of torch; default its own choice")
    parser.add_argument(
        "--compile", action="store_true", help="Palam trains with the LLM's layers compiled"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument(
        "--short",
        action="store_true",
        help="the first fusion and batch size, two short repetitions",
    )
    args = parser.parse_args(argv)
    args.batch_sizes, args.fusions = (
        [int(size) for size in args.batch_sizes.split(",")],
        args.fusions.split(","),
    )
    if args.short:
        args.batch_sizes, args.fusions, args.repeats, args.steps = (
            args.batch_sizes[:1],
            args.fusions[:1],
            2,
            2,
        )
    args.matmuls = 1 if args.short else math.ceil(50 / args.repeats / len(args.batch_sizes))
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Check the reference, measure, print the tables and write the file."""
    args, console = parse(argv), Console(stderr=True)
    quiet()
    if args.json:
        check_place(args.json)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    device, dtype = (
        resolve_placement(args.device, args.dtype)[name] for name in ("device", "dtype")
    )
    with console.status("loading the models"):
        models = [build(args, one) for one in dict.fromkeys((dtype_name(dtype), "fp32"))]
        data = Rows(get_task(args.task), next(iter(models[0].values())).processor, args.data)
    for model in models[0].values() if args.compile else ():
        model.compile_llm()
    if len(data.texts) < max(args.batch_sizes):
        raise SystemExit(f"{args.task} has only {len(data.texts)} training rows")
    with console.status("checking that the reference gives Palam's losses"):
        some = random.Random(0).sample(range(len(data.texts)), min(8, len(data.texts)))
        differences = {fusion: check(model, data, some) for fusion, model in models[-1].items()}
    units = [unit for fusion in args.fusions for unit in variants("training", fusion, models, data)]
    units += variants(
        "scoring", "mean" if "mean" in args.fusions else args.fusions[0], models, data
    )
    results, limits = [], []
    with Progress(console=console) as bar:
        steps = bar.add_task("", total=len(args.batch_sizes) * (args.repeats + 1) * args.steps)
        for size in args.batch_sizes:
            bar.update(steps, description=f"batches of {size}")
            found, taken = measure(units, size, args, lambda: bar.advance(steps))
            results += found
            limits += taken
    limit = 2 * 2048**3 / statistics.median(limits)
    for one in results:
        if one["kind"] == "training":
            one["share_of_matrix_limit"] = {
                key: rate / limit for key, rate in one["operations_per_second"].items()
            }
    tables(
        results,
        f"{dtype_name(dtype)} on {device}, {torch.get_num_threads()} threads: median (lowest–highest)",
    )
    print(f"matrix limit: {limit / 1e9:.0f} billion operations a second")
    print(f"tokenising all {len(data.texts)} rows once, before the steps: {data.seconds:.2f} s")
    if args.json:
        machine = {"device": str(device), "machine": platform.machine(), "threads": torch.get_num_threads(),
                   "torch": torch.__version__, "transformers": transformers.__version__}  # fmt: skip
        report = {
            "machine": machine,
            "dtype": dtype_name(dtype),
            "settings": vars(args),
            "matrix_limit": limit,
        }
        report |= {
            "loss_differences": differences,
            "tokenising_seconds": data.seconds,
            "results": results,
        }
        args.json.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
