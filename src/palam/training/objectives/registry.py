"""Objectives by name. A new one is a file of its own and one line here."""

from typing import TYPE_CHECKING

from palam.utils.registry import Registry

if TYPE_CHECKING:
    from palam.training.objectives.base import Objective

OBJECTIVES: "Registry[Objective]" = Registry(
    "objective",
    {
        "continue": "palam.training.objectives.continuation:Continuation",
        "answer": "palam.training.objectives.answers:Answers",
        "repeat": "palam.training.objectives.repetition:Repetition",
        "label": "palam.training.objectives.labels:Labels",
    },
)
"""The objectives of raw text by name."""
DEFAULT_WEIGHTS = {"continue": 1.0, "answer": 2.0}
"""Where none are set; there are answers to prompts if there are prompts."""
