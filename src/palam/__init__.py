"""Palam: a bridge from a multilingual encoder to an English LLM.

A frozen encoder reads the language, a small trained bridge carries its states over, a frozen LLM
answers. The names below are the public ones; each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palam.alignment.solve import AlignmentResult, align
    from palam.errors import PalamError
    from palam.inference.evaluation import Evaluation, evaluate
    from palam.inference.generation import generate
    from palam.inference.scoring import LabelScorer, score_labels
    from palam.integrations.sklearn import PalamClassifier as PalamClassifier
    from palam.models.backbones.encoder_pair import EncoderPair
    from palam.models.bridge import PalamBridge
    from palam.models.configuration import PalamConfig
    from palam.models.fusion.base import Fusion
    from palam.models.mapper import LinearMapper
    from palam.models.model_config import ModelConfig
    from palam.models.modeling import PalamModel
    from palam.models.processing import PalamProcessor
    from palam.models.registry import register_fusion, register_mapper
    from palam.models.template import Template
    from palam.tasks.registry import register_task
    from palam.tasks.task import Task
    from palam.training.config import (
        DataConfig,
        OptimConfig,
        RuntimeConfig,
        TrainConfig,
        TrainRuntimeConfig,
    )
    from palam.training.run import train

__version__ = "0.1.0"
_HOMES = {
    "AlignmentResult": "palam.alignment.solve",
    "DataConfig": "palam.training.config",
    "EncoderPair": "palam.models.backbones.encoder_pair",
    "Evaluation": "palam.inference.evaluation",
    "Fusion": "palam.models.fusion.base",
    "LabelScorer": "palam.inference.scoring",
    "LinearMapper": "palam.models.mapper",
    "ModelConfig": "palam.models.model_config",
    "OptimConfig": "palam.training.config",
    "PalamBridge": "palam.models.bridge",
    "PalamClassifier": "palam.integrations.sklearn",
    "PalamConfig": "palam.models.configuration",
    "PalamError": "palam.errors",
    "PalamModel": "palam.models.modeling",
    "PalamProcessor": "palam.models.processing",
    "RuntimeConfig": "palam.training.config",
    "Task": "palam.tasks.task",
    "Template": "palam.models.template",
    "TrainConfig": "palam.training.config",
    "TrainRuntimeConfig": "palam.training.config",
    "align": "palam.alignment.solve",
    "evaluate": "palam.inference.evaluation",
    "generate": "palam.inference.generation",
    "register_fusion": "palam.models.registry",
    "register_mapper": "palam.models.registry",
    "register_task": "palam.tasks.registry",
    "score_labels": "palam.inference.scoring",
    "train": "palam.training.run",
}
# Without PalamClassifier, so that `from palam import *` needs no scikit-learn.
__all__ = [  # noqa: RUF022 (what is used most comes first)
    "PalamModel",
    "PalamConfig",
    "PalamBridge",
    "PalamProcessor",
    "EncoderPair",
    "Template",
    "PalamError",
    "score_labels",
    "LabelScorer",
    "generate",
    "evaluate",
    "Evaluation",
    "align",
    "AlignmentResult",
    "train",
    "TrainConfig",
    "ModelConfig",
    "DataConfig",
    "OptimConfig",
    "RuntimeConfig",
    "TrainRuntimeConfig",
    "Fusion",
    "register_fusion",
    "LinearMapper",
    "register_mapper",
    "Task",
    "register_task",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'palam' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
