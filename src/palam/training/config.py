"""Every setting of a run, defined once: one class a concern, and a run's configuration of the four.

A setting has one name everywhere: as a field here, as an option of the command, in a YAML file
and in a recipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter

from palam.errors import PalamError
from palam.models.model_config import ModelConfig
from palam.tasks.readers import RowSource
from palam.tasks.registry import get_task
from palam.training.objectives.registry import OBJECTIVES
from palam.utils.languages import find_language
from palam.utils.names import NameList
from palam.utils.settings import (
    check_least,
    check_range,
    convert_fields,
    dump_yaml,
    plain,
    read_settings,
)
from palam.utils.text_template import slots

Dtype = Literal["auto", "fp32", "bf16", "fp16"]
FileFormat = Literal["json", "csv", "tsv", "text", "xlsx", "parquet", "dataset"]
"""The formats that [`RowSource`] reads."""
ENGLISH = "en"
MAX_COUNT = 2**40
"""Of rows, words and steps."""
MAX_BATCH = 2**20
MAX_RANK = 2**14
MAX_SEED = 2**32 - 1
"""The greatest seed that numpy takes."""
MAX_CACHE = 1e6
"""In GB."""
SHARES = (
    "warmup",
    "average_weights_from",
    "adam_beta1",
    "adam_beta2",
    "swap_words",
    "drop_words",
    "drop_vectors",
)
"""The settings that are from 0 to below 1."""
PROMPTS_NEED = "prompts are for --distill, in the mode prompt or chat"
LLM_ONLY_NEEDS = (
    "--llm-only trains a LoRA and no bridge: give --lora-rank, and no --append-source-tokens"
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read: exactly one of a task, a labelled file, and raw text.

    Raises:
        PalamError: a value that is not right; none or several of the three.
    """

    task: str | None = None
    """Task to train on, with its own settings where none are given."""
    file: Path | None = None
    """A labelled file of your own to train on, in place of a task: .csv, .tsv, .xlsx, .parquet,
    .jsonl, .json."""
    text_column: str = "text"
    """The file's text column, or a template over several: 'Q: {q} A: {a}'; of raw text in a table
    too."""
    label_column: str = "label"
    """The file's label column."""
    file_format: Annotated[FileFormat | None, Parameter(alias="--format")] = None
    """The file's format; not set is as its name ends."""
    sheet: str | None = None
    """The workbook's sheet; not set is the first."""
    merge_labels: Annotated[bool, Parameter(negative="")] = False
    """Of labels that differ only in case or space, make one."""
    text_file: Path | None = None
    """Raw English text, a text a line, in place of labelled data."""
    label_tasks: NameList = None
    """With raw text and the objective label: tasks whose English rows are learned too."""
    soft_label_file: Path | None = None
    """Texts that `palam classify` labelled, learned too: in each epoch one of the labels, drawn by
    its probability. With raw text they need the objective label."""
    lexicon: Path | None = None
    """Words and what other languages say for them, as `palam lexicon` writes them; the encoder
    reads some of a text's words so, and with append_source_tokens the LLM too."""
    data: Path | None = None
    """Folder of data, <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub."""
    language: str | None = None
    """Language of the training text; not set is English."""
    max_train_samples: int | None = None
    """Train on so many rows, a seeded and label-stratified sample."""
    max_eval_samples: int | None = 1000
    """Validate on at most so many rows, a seeded and label-stratified sample."""
    balance: bool | None = None
    """Train on equally many rows of each label; not set is as the task has it."""

    def __post_init__(self) -> None:
        convert_fields(self)
        check_least(self, max_train_samples=1, max_eval_samples=1)
        sources = [self.task, self.file, self.text_file]
        if sources.count(None) != len(sources) - 1:
            raise PalamError("give exactly one of --task, --file and --text-file")
        for name in self.label_tasks or ():
            if not get_task(name).labels:
                raise PalamError(f"label_tasks has {name}, a task without labels")
        self._refuse_other_options()

    def _refuse_other_options(self) -> None:
        """Refuse options of a file where none is read, and of labels where there are none."""
        if self.merge_labels and self.file is None:
            raise PalamError("merge_labels is for the labels of a file of your own; give --file")
        for name in ("file_format", "sheet"):
            if self.task is not None and getattr(self, name) is not None:
                raise PalamError(f"{name} is for a file of your own; give --file, not --task")

    def source(self) -> RowSource:
        """The rows of the file or the raw text; a pipe is opened once.

        Raises:
            PalamError: it cannot be read.
        """
        path = self.file or self.text_file
        assert path is not None  # the data are no task
        return RowSource(path, file_format=self.file_format, sheet=self.sheet)

    @property
    def columns(self) -> dict[str, str]:
        """The file's columns by the fields of the task that it makes, and by `label`."""
        columns = {"text": self.text_column}
        if "{" in self.text_column:
            columns = {slot: slot for slot in sorted(slots(self.text_column))}
        return {**columns, "label": self.label_column}

    @property
    def text_language(self) -> str:
        """The code of the training text's language."""
        return self.language or ENGLISH

    @property
    def is_english(self) -> bool:
        """Whether the training text is English."""
        return find_language(self.text_language) == find_language(ENGLISH)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """What is learned, from which start, and how the weights are moved.

    Raises:
        PalamError: a value that is not right, or two that exclude each other.
    """

    epochs: float = 3.0
    """Passes over the training data."""
    lr: float = 1e-3
    """Learning rate. That of the mapper's readout and the boundary is in units of the LLM's
    embeddings: with embeddings twice as large as the starter LLM's it is twice as high."""
    batch_size: int = 16
    """Rows per batch, of all processes together."""
    max_steps: int = -1
    """Train for so many steps, whatever the epochs; -1 is as many as the epochs have."""
    patience: int = 3
    """Stop after so many validations without a better loss; 0 never stops."""
    eval_steps: int | None = None
    """Validate and save every so many steps; not set is every epoch."""
    init: Literal["solve", "random"] = "solve"
    """Start of the mapper: solve (closed form, from text alone) or random (the paper)."""
    init_from: str | None = None
    """Start from this bridge, a folder or hub id, in place of --init."""
    solve_text_file: Path | None = None
    """Solve from this text, a text a line; not set is 2,000 training inputs."""
    passage_words: int | None = None
    """Train on passages of so many words, other ones each epoch; 0 never; not set is as the task
    has it."""
    objectives: dict[str, float] = field(default_factory=dict)
    """With raw text: what is learned from it, by weight: repeat (say the text again, in English),
    continue, answer (needs prompts_file), label (needs label_tasks or soft_label_file); not set is
    continue 1 and, with prompts, answer 2."""
    distill: bool = False
    """With raw text: learn to continue it as the LLM does when it reads the text itself."""
    hidden_weight: float = 0.0
    """With distill: weight in the loss of how far the LLM's last hidden states are from those where
    it reads the text itself; 0 is the distance of its predictions alone."""
    prompts_file: Path | None = None
    """With distill: prompts with a {text} slot, one a line; learn the LLM's answers too."""
    swap_words: float = 0.0
    """With raw text: probability of each word to change places with the next on the encoder's side,
    unless it has just changed places."""
    drop_words: float = 0.0
    """With raw text: share of the words that the encoder does not read."""
    code_switch: float = 0.9
    """With a lexicon: share of the texts of which the encoder reads words in other languages,
    other ones each epoch."""
    drop_vectors: float = 0.0
    """Share of the mapped vectors that are zero, other ones in each step."""
    lora_rank: int | None = None
    """Train a LoRA of this rank on the LLM too."""
    llm_only: bool = False
    """Train that LoRA alone on texts that the LLM reads itself: a baseline, no bridge."""
    fusion_lr: float | None = None
    """Learning rate of the fusion's own weights; not set is the fusion's own."""
    gradient_accumulation_steps: int = 1
    """Batches per optimiser step."""
    average_weights_from: float | None = None
    """Constant learning rate; the weights' mean since this share of the steps, e.g. 0.25."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.0
    """Weight decay of the matrices."""
    adam_beta1: float = 0.9
    """AdamW's first beta."""
    adam_beta2: float = 0.999
    """AdamW's second beta; the paper's betas are 0.8 and 0.999."""
    max_grad_norm: float = 1.0
    """Clip the gradient to this norm."""

    def __post_init__(self) -> None:
        convert_fields(self)
        check_range(
            self,
            batch_size=(1, MAX_BATCH),
            gradient_accumulation_steps=(1, MAX_BATCH),
            eval_steps=(1, MAX_COUNT),
            max_steps=(-1, MAX_COUNT),
            lora_rank=(1, MAX_RANK),
            patience=(0, MAX_COUNT),
            passage_words=(0, MAX_COUNT),
            code_switch=(0, 1),
        )
        check_least(self, fusion_lr=0, weight_decay=0, max_grad_norm=0, hidden_weight=0)
        for name in ("fusion_lr", "weight_decay", "hidden_weight"):
            if getattr(self, name) == float("inf"):
                raise PalamError(f"{name} is inf; it must be finite")
        self._check_length()
        for name in SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise PalamError(f"{name} is {value}; it must be from 0 to below 1")
        if self.prompts_file and not self.distill:
            raise PalamError(PROMPTS_NEED)
        if self.hidden_weight and not self.distill:
            raise PalamError("hidden_weight is for --distill, which has an LLM to be close to")
        self._check_objectives()
        if self.llm_only and not self.lora_rank:
            raise PalamError(LLM_ONLY_NEEDS)

    def _check_length(self) -> None:
        """Refuse what trains nothing."""
        for name in ("epochs", "lr"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise PalamError(f"{name} is {value}; it must be above 0")
        if self.max_steps == 0:
            raise PalamError("max_steps is 0; it must be -1, for the epochs, or 1 at least")

    def _check_objectives(self) -> None:
        """Refuse objectives that are not known, weigh nothing, or lack what they need."""
        for name, weight in self.objectives.items():
            OBJECTIVES.check(name)
            if not 0 < weight < float("inf"):
                raise PalamError(f"the objective {name} has the weight {weight}; give one above 0")
        if self.objectives and ("answer" in self.objectives) != bool(self.prompts_file):
            raise PalamError("the objective answer and prompts_file need each other")

    @property
    def raw_text_settings(self) -> list[str]:
        """The settings that only raw text has and that are set."""
        names = ("objectives", "distill", "swap_words", "drop_words")
        return [name for name in names if getattr(self, name)]


@dataclass(frozen=True, kw_only=True)
class PlacementConfig:
    """Where and in which precision a model is.

    Raises:
        PalamError: a value that is not right.
    """

    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:1, mps."""
    dtype: Dtype = "auto"
    """Dtype of the base models: auto (measured), fp32, bf16, fp16."""
    load_in: Literal["8bit", "4bit"] | None = None
    """Load the base models in fewer bits (needs bitsandbytes)."""

    def __post_init__(self) -> None:
        convert_fields(self)


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig(PlacementConfig):
    """Where and in which precision a model is, and the seed of what is drawn.

    Raises:
        PalamError: a value that is not right.
    """

    seed: int = 0
    """Seed of everything."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, seed=(0, MAX_SEED))


@dataclass(frozen=True, kw_only=True)
class TrainRuntimeConfig(RuntimeConfig):
    """Device, precision and seed of a training run, what trades memory for time in it, and who is
    told of it.

    Raises:
        PalamError: a value that is not right, or two that exclude each other.
    """

    gradient_checkpointing: bool = False
    """Recompute the LLM's activations: less memory, more time."""
    compile: bool = False
    """Compile the LLM's layers: less time a step and less memory, after a minute."""
    shard_llm: bool = False
    """Spread the LLM's layers over the processes of the run, for one that does not fit a
    device."""
    cache_states: float = 1.0
    """Keep at most so many GB of encoder states across epochs; 0 keeps none."""
    cache_dir: Path | None = None
    """Keep them in this folder, for later runs too; not set is in memory."""
    report_to: str = "none"
    """Trackers, e.g. tensorboard or wandb; a JSON-lines log is always written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, cache_states=(0, MAX_CACHE))
        if self.compile and self.gradient_checkpointing:
            raise PalamError("give one of compile and gradient_checkpointing")
        if self.shard_llm and (self.compile or self.load_in):
            raise PalamError("give shard_llm without compile and load_in")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run's configuration.

    Its settings also have a flat form, by name: that of YAML files and recipes. There a task's own
    settings take the place of the defaults ([`TrainConfig.from_settings`]); parts that are given
    here stay as they are.

    Raises:
        PalamError: settings of different concerns that exclude each other.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    runtime: TrainRuntimeConfig = field(default_factory=TrainRuntimeConfig)

    def __post_init__(self) -> None:
        raw_text = self.data.text_file is not None
        if self.optim.raw_text_settings and not raw_text:
            name = self.optim.raw_text_settings[0].replace("_", "-")
            raise PalamError(f"--{name} needs raw text to learn from; give --text-file")
        self._check_labels(raw_text)
        if self.optim.code_switch != OptimConfig.code_switch and self.data.lexicon is None:
            raise PalamError("code_switch needs words of other languages; give --lexicon")
        if self.runtime.shard_llm and self.optim.lora_rank:
            raise PalamError("shard_llm spreads the LLM as it is; give no lora_rank")
        if self.optim.prompts_file and self.model.mode == "paper":
            raise PalamError(PROMPTS_NEED)
        if raw_text and (self.optim.llm_only or self.model.append_source_tokens):
            raise PalamError(
                "with raw text the LLM reads the first part by the bridge alone; "
                "give --task or --file"
            )
        if self.optim.llm_only and self.model.append_source_tokens:
            raise PalamError(LLM_ONLY_NEEDS)
        if self.optim.llm_only and self.data.lexicon is not None:
            raise PalamError(
                "a lexicon is for what the encoder reads, and --llm-only has none; "
                "leave one of them out"
            )

    def _check_labels(self, raw_text: bool) -> None:
        """Refuse labels beside raw text that nothing learns, and the objective without labels."""
        learns_labels = "label" in self.optim.objectives
        given = []
        if self.data.label_tasks:
            given.append("label_tasks")
        if self.data.soft_label_file and raw_text:
            given.append("soft_label_file")
        if given and not learns_labels:
            raise PalamError(f"{given[0]} needs the objective label: give --objectives.label 1")
        if learns_labels and not given:
            raise PalamError("the objective label needs label_tasks or soft_label_file")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """A configuration from settings by name.

        Those that are missing are as the task has them, see [`task_settings`], or else have their
        defaults.

        Raises:
            PalamError: a setting that does not exist, or whose value is not right.
        """
        for name in settings:
            if name not in TRAIN_SETTINGS:
                listed = ", ".join(sorted(TRAIN_SETTINGS))
                raise PalamError(f"there is no setting {name!r}; the settings are: {listed}")
        settings = task_settings(settings) | dict(settings)
        parts = {}
        for part, part_class in PARTS.items():
            names = settings.keys() & setting_names(part_class)
            parts[part] = part_class(**{name: settings[name] for name in names})
        return cls(**parts)

    @classmethod
    def from_yaml(cls, path: Path) -> "TrainConfig":
        """Read settings that `to_yaml` wrote, or a part of them.

        Raises:
            PalamError: not YAML, or a setting that does not exist or whose value is not right.
        """
        return cls.from_settings(read_settings(path, TRAIN_SETTINGS))

    def settings(self) -> dict[str, Any]:
        """All settings by name, as plain values."""
        return flat_settings(self.model, self.data, self.optim, self.runtime)

    def with_settings(self, **changes: Any) -> "TrainConfig":
        """This configuration with other values of some settings."""
        return self.from_settings(self.settings() | changes)

    def to_yaml(self) -> str:
        """All settings as YAML."""
        return settings_to_yaml(self.settings())


def setting_names(part_class: type[Any]) -> list[str]:
    """The names of one settings class's fields, in their order."""
    return [setting.name for setting in fields(part_class)]


def flat_settings(*parts: Any) -> dict[str, Any]:
    """The settings of several parts by name, as plain values.

    Args:
        *parts: instances of the settings classes, e.g. a [`ModelConfig`] and a [`DataConfig`].
    """
    settings = {}
    for part in parts:
        for name in setting_names(type(part)):
            settings[name] = plain(getattr(part, name))
    return settings


def settings_to_yaml(settings: Mapping[str, Any]) -> str:
    """Settings by name as YAML, in their order."""
    return dump_yaml(dict(settings))


PARTS: dict[str, type[Any]] = get_type_hints(TrainConfig)
"""The settings class of each concern, by its name in a [`TrainConfig`]."""
TRAIN_SETTINGS = frozenset(
    name for part_class in PARTS.values() for name in setting_names(part_class)
)
"""The names of all settings of a training run."""


# ---------------------------------------------------------------------- what a task has of its own
TASK_SETTINGS = frozenset(
    name for part_class in (ModelConfig, OptimConfig) for name in setting_names(part_class)
) - {"passage_words"}
"""The names of the settings that a task may have; its `passage_words` are a field of their own."""
METHOD_SETTINGS = frozenset(
    {
        "fusion",
        "fusion_options",
        "fusion_lr",
        "normalize",
        "mapper",
        "mapper_options",
        "init",
        "lr",
        "average_weights_from",
        "lora_rank",
    }
)
"""Those that belong together: a learning rate is that of one fusion from one start."""
METHOD_CHOICES = frozenset(
    {
        "fusion",
        "normalize",
        "mapper",
        "init",
        "init_from",
        "lora_rank",
        "llm_only",
        "append_source_tokens",
    }
)
"""Who gives one of these chooses a method, and has none of the task's."""


def task_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a task has of its own, where none are given.

    Its fusion, start and learning rate were measured together. Where another method is chosen
    (`METHOD_CHOICES`), the task's are left out (`METHOD_SETTINGS`).

    Args:
        given: settings by name, as far as somebody gives them; the task is `given["task"]`.

    Raises:
        PalamError: the task has a setting that does not exist, or that is not for a task.
    """
    task_name = given.get("task")
    try:
        settings = get_task(task_name).settings if isinstance(task_name, str) else {}
    except PalamError:  # an unknown task is told of where its data are read
        return {}
    for name in settings:
        if name not in TASK_SETTINGS:
            listed = ", ".join(sorted(TASK_SETTINGS))
            raise PalamError(
                f'task "{task_name}": there is no setting {name!r} for a task; '
                f"the settings are: {listed}"
            )
    left_out = set(given)
    if METHOD_CHOICES & left_out:
        left_out |= METHOD_SETTINGS
    return {name: value for name, value in settings.items() if name not in left_out}


def settings_of_task(task: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's settings that are as its task has them.

    Args:
        task: that is trained on; None is none.
        settings: of the run, by name.
    """
    own = task_settings({"task": task})
    return {name: value for name, value in own.items() if settings[name] == value}
