"""The model and the rows of a run: built from its configuration, and prepared for training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from palam.errors import PalamError
from palam.models.backbones.encoder_pair import encoders_of
from palam.models.bases import Bases
from palam.models.model_config import ModelConfig
from palam.models.modeling import PalamModel
from palam.models.processing import PalamProcessor
from palam.models.task_record import TaskRecord
from palam.tasks.soft_labels import SoftAnswer
from palam.tasks.task import Example, Task
from palam.training.code_switching import CodeSwitching
from palam.training.config import (
    Dtype,
    OptimConfig,
    RuntimeConfig,
    TrainConfig,
    TrainRuntimeConfig,
)
from palam.training.data import TrainingData
from palam.training.datasets import AnswerDataset, TextChanges
from palam.training.noise import NO_NOISE, WordNoise
from palam.training.raw_text import RawTextDataset
from palam.utils.device import dtype_name, pick_device, pick_dtype, resolve_placement
from palam.utils.processes import num_processes, on_main

MEMORY_ROWS = 50_000
"""The tokens of at most so many rows are kept in memory."""

Runtime = TypeVar("Runtime", bound=RuntimeConfig)


def build_model(
    model: ModelConfig,
    data: TrainingData,
    runtime: RuntimeConfig,
    bases: Bases | None = None,
) -> PalamModel:
    """A new bridge, its weights random, with what it is for recorded in its configuration.

    Args:
        model: the base models, the bridge and the template; see [`with_prompt_of`].
        data: for what.
        runtime: device, dtype, and the seed of the bridge's weights.
        bases: encoder and LLM already loaded, in place of loading the configuration's.

    Raises:
        PalamError: base models that cannot be found or used.
    """
    model = with_prompt_of(model, data)
    encoder = None
    llm = None
    if bases is not None:
        encoder, llm = bases
        first, *others = [str(each.name_or_path) for each in encoders_of(encoder)]
        model = replace(
            model,
            encoder=first,
            second_encoder=others[0] if others else None,
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
        built.config.task = task_record(data.task, model.mode, data.columns).to_dict()
    return built


def with_prompt_of(model: ModelConfig, data: TrainingData) -> ModelConfig:
    """The same with the task's prompt if none is set; raw text without one has nothing around it.

    Args:
        model: as it is configured.
        data: what is trained on.
    """
    if model.prompt is not None:
        return model
    if data.task is None:
        return replace(model, mode="paper")
    return replace(model, prompt=data.task.prompt)


def resolve_dtype(runtime: Runtime) -> Runtime:
    """The same with the dtype that is taken here, measured if it is `auto`; the same for all
    processes.

    Raises:
        PalamError: no such device here.
    """
    dtype = on_main(lambda: dtype_name(pick_dtype(runtime.dtype, pick_device(runtime.device))))
    return replace(runtime, dtype=cast(Dtype, dtype))


def task_record(task: Task, mode: str, columns: Mapping[str, str] | None) -> TaskRecord:
    """What a checkpoint says of the task that it was trained for.

    Args:
        task: the task.
        mode: of the template.
        columns: of a file of one's own, see [`TaskRecord`]; None of a known task.
    """
    return TaskRecord(
        name=task.name,
        family=task.family,
        text=task.paper_text if mode == "paper" else task.text,
        words_by_label=task.labels,
        columns=columns or {},
    )


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
    model.vector_dropout = optim.drop_vectors
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


def build_dataset(
    config: TrainConfig,
    data: TrainingData,
    examples: Sequence[Example],
    processor: PalamProcessor,
    folder: Path | None = None,
) -> AnswerDataset | RawTextDataset:
    """Tokenise examples as a run's configuration wants them; noise is on those to train on alone.

    Args:
        config: of the run.
        data: what it reads.
        examples: `data.train` or `data.dev`.
        processor: the model's.
        folder: where the tokens may be kept, see [`AnswerDataset`]; they are if there are several
            processes, or more than `MEMORY_ROWS` examples.

    Raises:
        PalamError: raw text of too few lines with two words or more.
    """
    seed = config.runtime.seed
    noise = NO_NOISE
    if examples is data.train:
        noise = _noise(config.optim, data)
    if data.task is None:
        texts = data.texts(examples, config.model.mode)
        optim = config.optim
        labelled = data.labelled if examples is data.train else data.labelled_dev
        dataset = RawTextDataset(
            processor,
            texts,
            objectives=optim.objectives,
            seed=seed,
            language=data.language,
            noise=noise,
            distill=optim.distill,
            labelled=labelled,
        )
        if not dataset.texts:
            raise PalamError(
                f"{config.data.text_file} has too few lines of two words or more "
                "to train on and to validate"
            )
        return dataset
    passage_words = config.optim.passage_words
    if passage_words is None:
        passage_words = data.task.passage_words
    answers: list[str | SoftAnswer] = [data.task.answer(example.label) for example in examples]
    if examples is data.train:
        answers += [row.answer for row in data.soft]
        examples = [*examples, *(Example(0, row.fields, label="") for row in data.soft)]
    texts = data.texts(examples, config.model.mode)
    if num_processes() == 1 and len(examples) <= MEMORY_ROWS:
        folder = None
    return AnswerDataset(
        processor,
        texts,
        answers,
        [data.language] * len(texts),
        changes=TextChanges(passage_words or None, noise),
        seed=seed,
        llm_only=config.optim.llm_only,
        folder=folder,
    )


def _noise(optim: OptimConfig, data: TrainingData) -> WordNoise:
    """What changes in the texts that are trained on."""
    switching = None
    if data.lexicon is not None:
        switching = CodeSwitching(data.lexicon, optim.code_switch)
    return WordNoise(optim.swap_words, optim.drop_words, switching)
