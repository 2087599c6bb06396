"""The model of a run: built from its configuration, and prepared for training."""

from dataclasses import replace
from typing import Any, TypeVar, cast

from palam.errors import PalamError
from palam.models.bases import Bases
from palam.models.model_config import ModelConfig
from palam.models.modeling import PalamModel
from palam.tasks.task import Task
from palam.training.config import Dtype, OptimConfig, RuntimeConfig, TrainRuntimeConfig
from palam.training.data import TrainingData
from palam.utils.device import dtype_name, pick_device, pick_dtype, resolve_placement
from palam.utils.processes import num_processes, on_main

Runtime = TypeVar("Runtime", bound=RuntimeConfig)


def build_model(
    model: ModelConfig,
    data: TrainingData,
    runtime: RuntimeConfig,
    bases: Bases | None = None,
) -> PalamModel:
    """A new bridge, its weights random, with what it is for recorded in its configuration.

    Args:
        model: the base models, the bridge and the template. The prompt is the task's if none is
            set; raw text has nothing around it.
        data: for what.
        runtime: device, dtype, and the seed of the bridge's weights.
        bases: encoder and LLM already loaded, in place of loading the configuration's.

    Raises:
        PalamError: base models that cannot be found or used.
    """
    if data.task is None:
        model = replace(model, mode="paper")
    elif model.prompt is None:
        model = replace(model, prompt=data.task.prompt)
    encoder = None
    llm = None
    if bases is not None:
        encoder, llm = bases
        model = replace(
            model,
            encoder=str(encoder.name_or_path),
            llm=str(llm.name_or_path),
        )
    placement = resolve_placement(runtime.device, runtime.dtype, runtime.load_in)
    placement["attention"] = on_main(lambda: placement["attention"])  # measured: the same for all
    if isinstance(runtime, TrainRuntimeConfig) and runtime.shard_llm:
        placement["device"] = "cpu"  # until the LLM's layers are spread
    built = PalamModel.from_config(
        model,
        encoder=encoder,
        llm=llm,
        seed=runtime.seed,
        **placement,
    )
    if data.task is not None:
        built.config.task = task_record(data.task, model.mode)
        if data.columns is not None:
            built.config.task["columns"] = dict(data.columns)
    return built


def resolve_dtype(runtime: Runtime) -> Runtime:
    """The same with the dtype that is taken here, measured if it is `auto`; the same for all
    processes.

    Raises:
        PalamError: no such device here.
    """
    dtype = on_main(lambda: dtype_name(pick_dtype(runtime.dtype, pick_device(runtime.device))))
    return replace(runtime, dtype=cast(Dtype, dtype))


def task_record(task: Task, mode: str) -> dict[str, Any]:
    """What a checkpoint says of the task that it was trained for; see [`PalamConfig`].

    Args:
        task: the task.
        mode: of the template.
    """
    return {
        "name": task.name,
        "family": task.family,
        "labels": [[label, words] for label, words in task.labels.items()],
        "text": task.paper_text if mode == "paper" else task.text,
    }


def prepare_for_training(
    model: PalamModel, optim: OptimConfig, runtime: TrainRuntimeConfig
) -> None:
    """Apply what a run changes in the model, in place: LoRA, checkpointing, compiled or spread
    layers.

    Args:
        model: of `build_model`.
        optim: whether the LLM has a LoRA, and whether that alone is trained.
        runtime: whether activations are recomputed, and the LLM's layers compiled or spread over
            the processes.

    Raises:
        PalamError: one of them is not possible here.
    """
    if optim.lora_rank is not None:
        model.add_lora(optim.lora_rank)
    if optim.llm_only:
        model.config.llm_only = True
        model.bridge.requires_grad_(False)
    if runtime.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if runtime.compile:
        model.compile_llm()
    if runtime.shard_llm:
        if num_processes() == 1:
            raise PalamError(
                "shard_llm spreads the LLM over several processes; start them with "
                "torchrun --nproc-per-node N -m palam train …"
            )
        model.shard_llm(pick_device(runtime.device))
