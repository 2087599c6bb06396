"""What `speed.py` times: training steps and scoring, of Palam and of the reference, in turn."""

import ctypes
import gc
import os
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from speed_reference import EXACT, SWITCHES, OneByOne, PaddedEncoding, Reference
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from palam import PalamModel, PalamProcessor
from palam.inference.generation import generate
from palam.inference.scoring import score_labels
from palam.models.processing import IGNORE
from palam.tasks.loading import load_split, native_language
from palam.tasks.task import Task
from palam.training.collator import Collator
from palam.training.datasets import AnswerDataset
from palam.training.encoder_cache import EncoderStateCache
from palam.training.sampler import LengthGroupedSampler
from palam.utils.autotune import matmul_seconds

TOLERANCE = 1e-4
NO_LIMIT = 2**40
"""Bytes of encoder states to keep."""
UNCHANGING_RATE = 1e-6
"""A learning rate that leaves the loss where it is."""


class RowLengths(NamedTuple):
    """Tokens of one row, without padding."""

    text: int
    """The encoder's."""
    sequence: int
    """The LLM's."""
    logits: int
    """Of them, the positions that need logits."""


class Rows:
    """A task's training rows, tokenised once.

    Args:
        task: whose English training split it is.
        processor: tokenises.
        data: the data folder, or None.

    Attributes:
        dataset: the rows.
        seconds: what tokenising them took.
        lengths: of each row; the logits are those of its answer.
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
        self.lengths = [_row_lengths(row) for row in self._rows(self.dataset)]

    def tokenise(self, processor: PalamProcessor, rows: Sequence[int]) -> AnswerDataset:
        """These rows as a data set of their own."""
        texts = [self.texts[row] for row in rows]
        answers = [self.answers[row] for row in rows]
        return AnswerDataset(processor, texts, answers, [self.language] * len(rows))

    @staticmethod
    def _rows(dataset: AnswerDataset) -> list[Any]:
        return [dataset[row] for row in range(len(dataset))]

    def batch(self, model: PalamModel, rows: Sequence[int]) -> dict[str, Any]:
        """A training batch; tokenised now if the model's processor works text by text."""
        if isinstance(model.processor, OneByOne):
            features = self._rows(self.tokenise(model.processor, rows))
        else:
            features = [self.dataset[row] for row in rows]
        return Collator(model.processor)(features)

    def score(self, model: PalamModel, rows: Sequence[int], batch_size: int) -> Tensor | list[str]:
        """Label scores [rows, labels], or with the switch `generate` what was generated.

        With the switch `padding` the rows are read in their order, without it sorted by length.
        """
        switches = getattr(model, "switches", frozenset())
        parts = split_rows(rows, batch_size) if "padding" in switches else [rows]
        if "generate" in switches:
            return [answer for part in parts for answer in self._generate(model, part, batch_size)]
        scores = []
        for part in parts:
            texts = [self.texts[row] for row in part]
            languages = [self.language] * len(part)
            scores.append(score_labels(model, texts, self.labels, languages, batch_size=batch_size))
        return torch.cat(scores)

    def _generate(self, model: PalamModel, rows: Sequence[int], batch_size: int) -> list[str]:
        longest = max(len(model.processor.answer_ids(label)) for label in self.labels)
        return generate(
            model,
            [self.texts[row] for row in rows],
            [self.language] * len(rows),
            batch_size=batch_size,
            max_new_tokens=longest,
            logits_to_keep=1,  # what transformers' generate asks for by itself
        )


def _row_lengths(row: dict[str, Any]) -> RowLengths:
    text = len(row["encoder_input_ids"])
    answer = sum(label != IGNORE for label in row["labels"])
    return RowLengths(text, text + len(row["input_ids"]), answer)  # the boundary is in the slot


@dataclass(eq=False)
class Unit:
    """What is timed: one variant of one fusion (a switch, or as `variants` names it)."""

    kind: str
    """A key of `SWITCHES`."""
    fusion: str
    name: str
    model: PalamModel
    optimizer: torch.optim.Optimizer
    data: Rows

    def parts(self, rows: Sequence[int], size: int) -> list[Sequence[int]]:
        """The same rows for all units, in the parts that are run one by one.

        Training goes batch by batch, grouped by length or shuffled; scoring takes all at once.
        """
        shuffled = "padding" in getattr(self.model, "switches", frozenset())
        if self.kind == "scoring" or shuffled:
            rows = random.Random(0).sample(rows, len(rows))
        return [rows] if self.kind == "scoring" else split_rows(rows, size)

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
        if isinstance(self.model.encoding, PaddedEncoding):
            self.model.encoding.kept = None

    def seconds(self, rows: Sequence[int], size: int) -> float:
        """How long a run takes."""
        self.model.train(self.kind == "training")
        return clock(lambda: self.run(rows, size), self.model.device)

    def peak(self, rows: Sequence[int], size: int) -> int | None:
        """Bytes that a run needs above those held before it; None where they cannot be read."""
        self.model.train(self.kind == "training")
        gc.collect()
        device = self.model.device
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.run(rows, size)
            return torch.cuda.max_memory_allocated(device) - before
        if device.type != "cpu" or not STATM.exists():
            return None
        return resident_peak(lambda: self.run(rows, size))


STATM = Path("/proc/self/statm")
"""Where Linux says how many pages the process has."""


def resident_peak(run: Callable[[], Any]) -> int:
    """Bytes of resident memory that a run needs above those held before it; on Linux."""
    # glibc keeps what was freed: without this the run would find its memory there already.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", int)
    trim(0)
    pages = [_resident_pages()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            pages.append(_resident_pages())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return (max(pages) - pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _resident_pages() -> int:
    return int(STATM.read_text().split()[1])


def split_rows(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    """The rows in batches."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def clock(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds that it takes, until the device has done all of it."""
    start = time.perf_counter()
    run()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start


# ---------------------------------------------------------------------- arithmetic
class Counted(NamedTuple):
    """What a base model's arithmetic depends on."""

    matrix_weights: int
    attention: int
    """Attention's width, over all layers."""


def count_weights(base: Any) -> Counted:
    """A base model's matrices, and the width of its attention over all layers."""
    config = base.config.get_text_config()
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    width = heads * (head_width or config.hidden_size // heads)
    matrices = [
        module.weight.numel() for module in base.modules() if isinstance(module, nn.Linear | Conv1D)
    ]
    return Counted(sum(matrices), width * config.num_hidden_layers)


def arithmetic(model: PalamModel, lengths: Iterable[RowLengths]) -> int:
    """Operations that a training step on these rows needs; a multiply-add is two.

    A matrix of n numbers costs 2n a token; attention over t tokens costs 4·t²·width a layer (scores
    and mixing, the whole square). The encoder runs forward. The LLM runs forward, and backward for
    its activations: that is the same again for its matrices, which are frozen, and twice its
    attention. Its head is needed only where a label is predicted. The bridge, norms and embeddings
    are left out.

    Args:
        model: its two base models are counted.
        lengths: of each row.
    """
    encoder = count_weights(model.encoder)
    llm = count_weights(model.llm)
    head = model.llm.get_output_embeddings().weight.numel()
    body = llm.matrix_weights - head
    total = 0
    for text, sequence, logits in lengths:
        total += 2 * encoder.matrix_weights * text + 4 * encoder.attention * text**2
        total += 4 * (body * sequence + head * logits) + 12 * llm.attention * sequence**2
    return total


# ---------------------------------------------------------------------- checking
@torch.no_grad()
def check(model: PalamModel, data: Rows, rows: Sequence[int]) -> dict[str, float]:
    """How far the reference's loss is from Palam's: all switches off, and each exact one on.

    In fp32, without dropout.

    Raises:
        SystemExit: a loss is off by more than 1e-4, or a label's score by more than 1e-4 of its
            size.
    """
    loss = model.eval()(**data.batch(model, rows)).loss
    scores = data.score(model, rows, len(rows))
    differences = {}
    for name in ("off", *EXACT):
        reference = Reference(model, {name} - {"off"})
        difference = float((reference(**data.batch(reference, rows)).loss - loss).abs())
        changes = (data.score(reference, rows, len(rows)) - scores) / scores.clamp(max=-1)
        score_difference = float(changes.abs().max())
        if not (difference <= TOLERANCE and score_difference <= TOLERANCE):
            raise SystemExit(
                f"the reference with {name} is off: its loss by {difference:.1e}, "
                f"scores by {score_difference:.1e}"
            )
        differences[name] = difference
    return differences


# ---------------------------------------------------------------------- units
def variants(
    kind: str, fusion: str, models: Sequence[dict[str, PalamModel]], data: Rows
) -> list[Unit]:
    """All units of a fusion.

    `palam` and `reference` are the two that are compared, `reference_fp32` the latter in fp32, and
    a switch's name is the reference with that switch alone. `cached` keeps the encoder's states,
    `encoder` is its forward pass alone, `compile` is Palam without compiled layers.

    Args:
        kind: a key of `SWITCHES`.
        fusion: its models' name.
        models: by fusion; first those that are measured, last those in fp32.
        data: the rows.
    """
    model = models[0][fusion]
    fp32_model = models[-1][fusion]
    variants = {"palam": model, "reference": Reference(model, SWITCHES[kind])}
    for switch in SWITCHES[kind]:
        variants[switch] = Reference(model, [switch])
    if kind == "training":
        variants |= _training_variants(model)
        for name in ("cached", *SWITCHES[kind]):
            variants[name]._compiled_layers = model._compiled_layers
    # One optimiser for all variants of a model.
    optimizer = torch.optim.AdamW(model.bridge.parameters(), lr=UNCHANGING_RATE)
    units = [
        Unit(kind, fusion, name, variant, optimizer, data) for name, variant in variants.items()
    ]
    if fp32_model is not model:
        reference = Reference(fp32_model, SWITCHES[kind])
        optimizer = torch.optim.AdamW(fp32_model.bridge.parameters(), lr=UNCHANGING_RATE)
        units.append(Unit(kind, fusion, "reference_fp32", reference, optimizer, data))
    return units


def _training_variants(model: PalamModel) -> dict[str, PalamModel]:
    """Palam itself with a change, in training."""
    names = ["cached", "encoder"]
    if model._compiled_layers:
        names.append("compile")
    variants = {
        name: PalamModel(model.encoder, model.bridge, model.llm, model.processor) for name in names
    }
    variants["cached"].encoding = EncoderStateCache(model, NO_LIMIT)
    return variants


# ---------------------------------------------------------------------- measuring
class Spread(NamedTuple):
    """A ratio over the repetitions."""

    median: float
    low: float
    high: float


def spread(above: Iterable[float], below: Iterable[float]) -> Spread:
    """Median, lowest and highest of the repetitions' ratios."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return Spread(statistics.median(ratios), min(ratios), max(ratios))


@dataclass(kw_only=True)
class Figures:
    """What was measured of one kind and fusion at one batch size."""

    kind: str
    batch_size: int
    fusion: str
    palam_tokens_per_second: Spread
    reference_tokens_per_second: Spread
    reference_fp32_tokens_per_second: Spread
    speedup: Spread
    """How many times as fast as the reference in the same dtype Palam is."""
    speedup_over_fp32: Spread
    switches: dict[str, Spread]
    """How many times as long as Palam one switch alone takes."""
    peak_bytes: dict[str, int | None] = field(default_factory=dict)
    """Of a run of `palam` and of `reference`; None where it cannot be read."""

    @property
    def memory_ratio(self) -> float | None:
        """Palam's peak over the reference's."""
        palam, reference = self.peak_bytes["palam"], self.peak_bytes["reference"]
        return palam / reference if palam and reference else None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: a spread has its parts by name, what was not measured is left out."""
        content = {}
        for name, value in asdict(self).items():
            if name == "switches":
                content[name] = {switch: ratio._asdict() for switch, ratio in value.items()}
            elif isinstance(value, Spread):
                content[name] = value._asdict()
            elif value is not None:
                content[name] = value
        return {**content, "memory_ratio": self.memory_ratio}


@dataclass(kw_only=True)
class TrainingFigures(Figures):
    """What training has beside it."""

    operations_per_second: Spread
    """Of Palam, see [`arithmetic`]."""
    cached_speedup: Spread
    """How many times as fast a step is with the encoder's states kept."""
    encoder_share: Spread
    """Of a step."""
    encoder_share_cached: Spread
    """The same with its states kept."""
    time_over_last: Spread | None = None
    """A step over one with the fusion `last`; None if that was not measured."""
    share_of_matrix_limit: Spread | None = None
    """The operations a second over those of a large matrix product."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    repeats: int
    """Repetitions that are counted, after one that is not."""
    steps: int
    """Batches, the same in every repetition."""
    matmuls: int
    """Matrix products that are timed after each repetition."""


class Case(NamedTuple):
    """Units that are compared with each other."""

    kind: str
    fusion: str


Times = dict[Case, dict[str, list[float]]]
"""Seconds of each repetition, by case and unit."""


class Measurement(NamedTuple):
    """What was measured at one batch size."""

    figures: list[Figures]
    matmul_seconds: list[float]


def measure(
    units: Sequence[Unit], size: int, effort: Effort, tick: Callable[[], Any]
) -> Measurement:
    """The figures of every kind and fusion at one batch size, and what matrix products took.

    Args:
        units: those to interleave; the first's dtype and device are the products'.
        size: rows of a batch.
        effort: how much is measured.
        tick: called after each step of all units, `steps * (repeats + 1)` times.
    """
    data = units[0].data
    rows = list(LengthGroupedSampler(data.dataset, size, 0))[: size * effort.steps]
    parts = {unit: unit.parts(rows, size) for unit in units}
    for unit in units:
        if isinstance(unit.model.encoding, EncoderStateCache):
            unit.model.encoding.fill([data.dataset[row]["encoder_input_ids"] for row in rows])
    llm = units[0].model.llm
    times: Times = defaultdict(lambda: defaultdict(list))
    products: list[float] = []
    for repetition in range(effort.repeats + 1):
        seconds = _repeat(parts, size, repetition, effort.steps, tick)
        if repetition == 0:  # kernels are compiled at the first sight of a batch's shape
            continue
        if effort.matmuls:
            products += matmul_seconds(llm.device, llm.dtype, times=effort.matmuls)
        for unit in units:
            times[Case(unit.kind, unit.fusion)][unit.name].append(seconds[unit])
    peaks = _measure_peaks(parts, size)
    lengths = [data.lengths[row] for row in rows]
    operations = arithmetic(units[0].model, lengths)
    figures: list[Figures] = []
    for case in times:
        if case.kind == "training":
            figures.append(_training_figures(case, size, times, peaks, lengths, operations))
        else:
            figures.append(Figures(**_common_figures(case, size, times, peaks, lengths)))
    return Measurement(figures, products)


def _repeat(
    parts: dict[Unit, list[Sequence[int]]],
    size: int,
    repetition: int,
    steps: int,
    tick: Callable[[], Any],
) -> Counter[Unit]:
    """Seconds that each unit takes for all its parts, step by step in a random order."""
    seconds: Counter[Any] = Counter()
    units = list(parts)
    for step in range(steps):
        for unit in random.Random(f"{repetition}/{step}").sample(units, len(units)):
            if step < len(parts[unit]):  # scoring has one part
                seconds[unit] += unit.seconds(parts[unit][step], size)
        tick()
    return seconds


def _measure_peaks(
    parts: dict[Unit, list[Sequence[int]]], size: int
) -> dict[Case, dict[str, int | None]]:
    """The highest memory of the two units that are compared."""
    peaks: dict[Case, dict[str, int | None]] = defaultdict(dict)
    for unit, unit_parts in parts.items():
        if unit.name in ("palam", "reference"):
            measured = [unit.peak(part, size) for part in unit_parts]
            known = [peak for peak in measured if peak is not None]
            highest = max(known) if len(known) == len(measured) else None
            peaks[Case(unit.kind, unit.fusion)][unit.name] = highest
    return peaks


def _common_figures(
    case: Case,
    size: int,
    times: Times,
    peaks: dict[Case, dict[str, int | None]],
    lengths: Sequence[RowLengths],
) -> dict[str, Any]:
    """The fields of [`Figures`]."""
    seconds = times[case]
    fp32 = seconds.get("reference_fp32", seconds["reference"])
    tokens = 0
    for text, sequence, answer in lengths:
        # In scoring the answers are no part of the text.
        tokens += text + sequence - (answer if case.kind == "scoring" else 0)
    all_tokens = [tokens] * len(seconds["palam"])
    switches = [name for name in (*SWITCHES[case.kind], "compile") if name in seconds]
    return {
        "kind": case.kind,
        "batch_size": size,
        "fusion": case.fusion,
        "palam_tokens_per_second": spread(all_tokens, seconds["palam"]),
        "reference_tokens_per_second": spread(all_tokens, seconds["reference"]),
        "reference_fp32_tokens_per_second": spread(all_tokens, fp32),
        "speedup": spread(seconds["reference"], seconds["palam"]),
        "speedup_over_fp32": spread(fp32, seconds["palam"]),
        "switches": {name: spread(seconds[name], seconds["palam"]) for name in switches},
        "peak_bytes": peaks[case],
    }


def _training_figures(
    case: Case,
    size: int,
    times: Times,
    peaks: dict[Case, dict[str, int | None]],
    lengths: Sequence[RowLengths],
    operations: int,
) -> TrainingFigures:
    """What was measured of a fusion's training."""
    seconds = times[case]
    palam, cached, encoder = seconds["palam"], seconds["cached"], seconds["encoder"]
    all_operations = [operations] * len(palam)
    # What a step with kept states takes beyond a step without the encoder.
    remaining = [
        max(0.0, with_cache - (whole - alone))
        for with_cache, whole, alone in zip(cached, palam, encoder, strict=True)
    ]
    last = times.get(Case("training", "last"))
    return TrainingFigures(
        **_common_figures(case, size, times, peaks, lengths),
        operations_per_second=spread(all_operations, palam),
        cached_speedup=spread(palam, cached),
        encoder_share=spread(encoder, palam),
        encoder_share_cached=spread(remaining, cached),
        time_over_last=spread(palam, last["palam"]) if last else None,
    )
