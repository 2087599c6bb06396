"""TODO palam.training.build."""

from transformers import PreTrainedModel

from palam.models.modeling import PalamModel
from palam.training.config import TrainConfig
from palam.training.data import TrainingData
from palam.utils.device import resolve_placement

Bases = tuple[PreTrainedModel, PreTrainedModel]


def build_model(
    settings: TrainConfig, data: TrainingData, bases: Bases | None = None
) -> PalamModel:
    """The model before training, on the settings' device, its start random."""
    names = [
        "fusion",
        "mapper",
        "max_length",
        "seed",
        "encoder_revision",
        "llm_revision",
        "normalize",
        "load_in",
    ]
    names += [
        "augment",
        *(name for name in ("rank", "faithful") if getattr(settings, name)),
    ]  # not all fusions' own
    options = resolve_placement(settings.device, settings.dtype) | {
        name: getattr(settings, name) for name in names
    }
    model = PalamModel.from_bases(
        *(bases or (settings.encoder, settings.llm)),
        mode=settings.mode if data.task else "paper",  # a raw text has nothing around it
        prompt=settings.prompt or (data.task.prompt if data.task else None),
        **options,
    )
    if data.task:
        model.config.task = {
            "name": data.task.name,
            "family": data.task.family,
            "labels": [list(pair) for pair in data.task.labels.items()],
            "text": data.task.paper_text if settings.mode == "paper" else data.task.text,
        }
    if settings.lora_rank:
        model.add_lora(settings.lora_rank)
    if settings.llm_only:
        model.config.llm_only = True
        model.bridge.requires_grad_(False)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if settings.compile:
        model.compile_llm()
    return model
