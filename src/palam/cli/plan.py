"""`palam plan`."""

from dataclasses import asdict, dataclass
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeInt, PositiveFloat, PositiveInt

from palam.cli._options import (
    MODEL_DEFAULTS,
    OPTIM_DEFAULTS,
    TRAIN_RUNTIME_DEFAULTS,
    ConfigFile,
    ModelOptions,
    OptimOptions,
    TrainRuntimeOptions,
    silence_libraries,
)
from palam.cli._output import print_values
from palam.cli._training import tell_task_settings
from palam.tasks.registry import get_task
from palam.training.config import flat_settings


@dataclass(frozen=True, kw_only=True)
class DataSize:
    """What there is to read, and how much."""

    task: str | None = None
    """Task that is trained on, whose own settings count where none are given."""
    rows: PositiveInt = 10_000
    """Rows of the training data."""
    text_tokens: PositiveInt = 64
    """Encoder tokens of a text."""
    prompt_tokens: NonNegativeInt = 8
    """LLM tokens around the text."""
    answer_tokens: PositiveInt = 4
    """LLM tokens of the answer, with its end."""


SizeOptions = Annotated[DataSize, Parameter(name="*", group=Group("Data", sort_key=1))]
SIZE_DEFAULTS = DataSize()


def plan(
    *,
    tflops: PositiveFloat | None = None,
    processes: PositiveInt = 1,
    device_memory: PositiveFloat | None = None,
    config: ConfigFile = None,
    size: SizeOptions = SIZE_DEFAULTS,
    model: ModelOptions = MODEL_DEFAULTS,
    optim: OptimOptions = OPTIM_DEFAULTS,
    runtime: TrainRuntimeOptions = TRAIN_RUNTIME_DEFAULTS,
) -> None:
    """Show what a training run will need.

    Memory, arithmetic and time. Loads no weights; of a model, only its config.

    Args:
        tflops: The device's matrix rate, 10¹² operations a second; not set measures it.
        processes: Processes that share each batch, each on a device of its own.
        device_memory: GiB of each device; says whether the run fits, and with which options. Not
            set asks the GPU, if there is one.
    """
    from palam.bench.device_memory import GIB, Device
    from palam.bench.plan import plan as plan_run

    silence_libraries()
    lengths = asdict(size)
    task = lengths.pop("task")
    if task is not None:
        get_task(task)  # refuses one that is not known
        tell_task_settings(task, flat_settings(model, optim))
    device = Device(
        memory=None if device_memory is None else round(device_memory * GIB),
        processes=processes,
        rate=None if tflops is None else tflops * 1e12,
    )
    planned = plan_run(
        model,
        optim,
        runtime,
        hardware=device,
        **lengths,
    )
    print_values(planned.lines())
