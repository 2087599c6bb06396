"""`palam pretrain`."""

import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from palam.cli._options import (
    DATA,
    MODEL_DEFAULTS,
    OPTIMISATION,
    TRAIN_RUNTIME_DEFAULTS,
    ConfigFile,
    ModelOptions,
    NameList,
    TrainRuntimeOptions,
    silence_libraries,
)
from palam.cli._output import print_values
from palam.cli._training import run_training
from palam.training.config import DataConfig, TrainConfig
from palam.training.pretraining import (
    PRETRAIN_OPTIM,
    VALIDATION_LINES,
    PretrainOptimConfig,
    with_general_prompt,
)

OptimOptions = Annotated[PretrainOptimConfig, Parameter(name="*", group=OPTIMISATION)]


@dataclass(frozen=True, kw_only=True)
class RawTextConfig:
    """The text, and how much of it is read."""

    text_file: Path
    """English, a sentence or a short paragraph a line, in any order; a twentieth of them is for
    validation."""
    text_column: str = "text"
    """The text's column, or a template over several, where the file is a table."""
    label_tasks: NameList = None
    """With the objective label: tasks whose English rows are learned too."""
    soft_label_file: Path | None = None
    """With the objective label: texts that `palam classify` labelled, as JSON lines, are learned
    too."""
    lexicon: Path | None = None
    """English words and what other languages say for them, as `palam lexicon` writes them; the
    encoder reads some of a text's words so."""
    data: Path | None = None
    """Folder of these tasks, <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub."""
    max_train_samples: PositiveInt | None = None
    """Train on so many lines, a seeded sample."""
    max_eval_samples: PositiveInt = VALIDATION_LINES
    """Validate on at most so many lines."""


RawTextOptions = Annotated[RawTextConfig, Parameter(name="*", group=DATA)]


def pretrain(
    *,
    data: RawTextOptions,
    out: Path,
    resume: bool = False,
    dry_run: bool = False,
    config: ConfigFile = None,
    model: ModelOptions = MODEL_DEFAULTS,
    optim: OptimOptions = PRETRAIN_OPTIM,
    runtime: TrainRuntimeOptions = TRAIN_RUNTIME_DEFAULTS,
) -> None:
    """Train a general bridge on raw English text.

    It reads any text and says in English what it says, or answers a question about it; tasks are
    trained from it with `palam train --init-from`.

    Args:
        out: The checkpoint's folder; <out>.partial until the run is complete.
        resume: Resume an interrupted run.
        dry_run: Only show what the run will need: memory, steps and hours.
    """
    settings = TrainConfig(
        model=with_general_prompt(model),
        data=DataConfig(**asdict(data)),
        optim=optim,
        runtime=runtime,
    )
    if dry_run:
        from palam.bench.pretraining_plan import plan_pretraining

        silence_libraries()
        print_values(plan_pretraining(settings).lines())
        return
    if run_training(settings, out, resume=resume):
        question = "{text} What is this about?"
        command = ["palam", "generate", str(out), "--mode", "chat", "--prompt", question]
        print(f"next: {shlex.join(command)} --text ...", file=sys.stderr)
