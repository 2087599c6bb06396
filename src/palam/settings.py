"""Every setting of a training run, defined once: the command's options, the YAML file and the record of a run."""
# ruff: noqa: RUF009 (`option` is a dataclass field with its help)

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml

from palam.device import DTYPES
from palam.errors import PalamError
from palam.fusion import FUSIONS
from palam.fusion.base import NORMALIZE
from palam.mapper import MAPPERS
from palam.template import MODES

CHOICES: dict[str, Iterable[str]] = {
    "fusion": FUSIONS,
    "mapper": MAPPERS,
    "normalize": NORMALIZE,
    "mode": MODES,
    "init": ("solve", "random"),
    "dtype": ("auto", *DTYPES),
}
LEAST = dict.fromkeys(("batch_size", "accumulate", "limit", "dev_limit", "eval_steps", "lora_rank", "rank"), 1)
LEAST |= {"patience": 0, "passage_words": 0, "cache_states": 0, "max_length": 8, "mixing_lr": 0, "weight_decay": 0}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}

ALIGN = (
    *("encoder", "llm", "encoder_revision", "llm_revision", "fusion", "mapper", "normalize", "rank", "faithful"),
    *("mode", "prompt", "max_length", "task", "data", "file", "text_column", "label_column", "text", "language"),
    *("limit", "seed", "device", "dtype"),
)
"""The settings that count where a bridge is solved and not trained."""
PLAN = (
    *("encoder", "llm", "encoder_revision", "llm_revision", "fusion", "mapper", "normalize", "rank", "batch_size"),
    *("epochs", "gradient_checkpointing", "device", "dtype"),
)
"""The settings that decide what a run needs."""


def option(default: Any, text: str) -> Any:
    """A field with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class TrainSettings:
    """Settings of [`palam.training.train`]; the help texts say what each is."""

    encoder: str = option("starter:encoder", "Encoder: hub id, folder or starter:encoder.")
    llm: str = option("starter:llm", "LLM: hub id, folder or starter:llm.")
    encoder_revision: str | None = option(None, "The encoder's revision on the hub.")
    llm_revision: str | None = option(None, "The LLM's revision on the hub.")
    fusion: str = option("mean", "How the encoder's layers are fused: last, mean, global_softmax, transformer_softmax.")
    mapper: str = option("linear", "How fused states are mapped: linear or mlp.")
    normalize: str = option("layer", "Per-layer normalisation before fusing: none (the paper) or layer.")
    rank: int | None = option(None, "transformer_softmax: width of its small transformer; not set is the full width.")
    faithful: bool = option(False, "global_softmax: the paper's temperature.")
    mode: str = option("prompt", "Around the text: nothing (paper), a prompt, or the LLM's chat template (chat).")
    prompt: str | None = option(None, "The prompt, with one {text} slot; not set is the task's own.")
    augment: bool = option(False, "The LLM reads the text's own tokens too, after the mapped ones (MindMerger).")
    max_length: int | None = option(None, "Most encoder tokens of a text; not set is 256 or the encoder's limit.")

    task: str | None = option(None, "Task to train on.")
    data: Path | None = option(None, "Folder of data, <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub.")
    file: Path | None = option(None, "A JSONL or CSV file of your own to train on, in place of a task.")
    text_column: str = option("text", "The file's text column, or a template over several: 'Q: {q} A: {a}'.")
    label_column: str = option("label", "The file's label column.")
    text: Path | None = option(None, "Raw English text, a text a line: train by prefix language modelling.")
    distill: bool = option(False, "With raw text: learn to continue it as the LLM does when it reads the text itself.")
    prompts: Path | None = option(None, "With distill: prompts with a {text} slot, one a line; learn its answers too.")
    passage_words: int | None = option(None, "Train on passages of so many words, other ones each epoch; 0 never.")
    language: str | None = option(None, "Language of the training text; not set is English.")
    dev_limit: int | None = option(1000, "Validate on at most so many rows, a seeded and label-stratified sample.")
    balance: bool | None = option(None, "Train on equally many rows of each label; not set is as the task has it.")
    limit: int | None = option(None, "Train on so many rows, a seeded and label-stratified sample.")

    init: str = option("solve", "Start of the mapper: solve (closed form, from text alone) or random (the paper).")
    start: str | None = option(None, "Go on from this bridge, a folder or hub id, in place of --init.")
    solve_text: Path | None = option(None, "Solve from this text, a text a line; not set is 2,000 training inputs.")
    epochs: float = option(3.0, "Passes over the training data.")
    max_steps: int = option(-1, "Stop after so many steps; -1 is no limit.")
    lr: float = option(1e-3, "Learning rate of the mapper and the boundary.")
    mixing_lr: float | None = option(None, "Learning rate of the fusion's own weights; not set is the fusion's own.")
    batch_size: int = option(16, "Rows per batch.")
    accumulate: int = option(1, "Batches per optimiser step.")
    average: float | None = option(None, "Constant lr; the weights' mean since this share of the steps, e.g. 0.25.")
    warmup: float = option(0.05, "Share of the steps in which the learning rate rises.")
    weight_decay: float = option(0.0, "Weight decay of the matrices.")
    adam_beta2: float = option(0.999, "AdamW's second beta; the paper's betas are 0.8 and 0.999.")
    adam_beta1: float = option(0.9, "AdamW's first beta.")
    max_grad_norm: float = option(1.0, "Clip the gradient to this norm.")
    eval_steps: int | None = option(None, "Validate and save every so many steps; not set is every epoch.")
    patience: int = option(3, "Stop after so many validations without a better loss; 0 never stops.")
    cache_states: float = option(1.0, "Keep at most so many GB of encoder states across epochs; 0 keeps none.")
    cache_dir: Path | None = option(None, "Keep them in this folder, for later runs too; not set is in memory.")
    lora_rank: int | None = option(None, "Train a LoRA of this rank on the LLM too.")
    direct: bool = option(False, "Train that LoRA alone on texts that the LLM reads itself: a baseline, no bridge.")
    gradient_checkpointing: bool = option(False, "Recompute the LLM's activations: less memory, more time.")
    compile: bool = option(False, "Compile the LLM's layers: less time a step and less memory, after a minute.")

    seed: int = option(0, "Seed of everything.")
    device: str = option("auto", "Device: auto, cpu, cuda, cuda:1, mps.")
    dtype: str = option("auto", "Dtype of the base models: auto (measured), fp32, bf16, fp16.")
    load_in: str | None = option(None, "Load the base models in fewer bits: 8bit or 4bit (needs bitsandbytes).")
    report_to: str = option("none", "Trackers, e.g. tensorboard or wandb; a JSON-lines log is always written.")

    def __post_init__(self) -> None:
        for name, kinds in get_type_hints(type(self)).items():
            setattr(self, name, _as(name, getattr(self, name), get_args(kinds) or (kinds,)))
        for name, known in CHOICES.items():
            if getattr(self, name) not in list(known):
                raise PalamError(f"{name} is {getattr(self, name)!r}; it must be one of: {', '.join(known)}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise PalamError(f"{name} is {value}; it must be at least {least}")
        for name in ("epochs", "lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise PalamError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("warmup", "average"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise PalamError(f"{name} is {getattr(self, name)}; it must be from 0 to below 1")
        if sum(source is not None for source in (self.task, self.file, self.text)) != 1:
            raise PalamError("give exactly one of --task, --file and --text to train on")
        if self.distill and self.text is None:
            raise PalamError("distill needs raw text to learn from; give --text")
        if self.prompts and (not self.distill or self.mode == "paper"):
            raise PalamError("prompts are for --distill, in the mode prompt or chat")
        if (self.direct or self.augment) and self.text is not None:
            raise PalamError("with raw text the LLM reads the first part by the bridge alone; give --task or --file")
        if self.direct and (not self.lora_rank or self.augment):
            raise PalamError("direct trains a LoRA and no bridge: give --lora-rank, and no --augment")
        if self.compile and self.gradient_checkpointing:
            raise PalamError("give one of compile and gradient_checkpointing")

    def to_yaml(self) -> str:
        """The settings as YAML."""
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    @classmethod
    def from_yaml(cls, path: Path) -> "TrainSettings":
        """Read settings that `to_yaml` wrote, or a part of them.

        Raises:
            PalamError: not YAML, or a setting that does not exist.
        """
        return cls(**read_settings(path, {one.name for one in fields(cls)}))


def _as(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    """A value as the setting's type; YAML takes `1e-3` for text and `no` for false."""
    if value is None and NoneType in kinds:
        return None
    kind = next(kind for kind in kinds if kind is not NoneType)
    try:
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind | str | int | float):
            raise ValueError
        return value if kind is bool else kind(str(value))
    except ValueError:
        raise PalamError(f"{name} is {value!r}; it must be {KINDS[kind]}") from None


def read_settings(path: Path, known: set[str]) -> dict[str, Any]:
    """A YAML file's settings; names may have hyphens.

    Raises:
        PalamError: unreadable, not a mapping, or a name that is not known.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise PalamError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise PalamError(f"{path} must hold settings as `name: value` lines")
    settings = {str(key).replace("-", "_"): value for key, value in content.items()}
    for name in settings:
        if name not in known:
            raise PalamError(f"{path}: there is no setting {name!r}; the settings are: {', '.join(sorted(known))}")
    return settings
