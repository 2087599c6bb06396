"""Palam: a bridge from a multilingual encoder to an English LLM.

A frozen encoder reads the language, a small trained bridge carries its states over, a frozen LLM answers.
"""

from transformers import AutoConfig, AutoModel, AutoProcessor

from palam.bridge import PalamBridge
from palam.configuration import PalamConfig
from palam.errors import PalamError
from palam.model import PalamModel
from palam.processor import PalamProcessor
from palam.template import Template

__version__ = "0.1.0"
__all__ = ["PalamBridge", "PalamConfig", "PalamError", "PalamModel", "PalamProcessor", "Template"]

AutoConfig.register("palam", PalamConfig, exist_ok=True)
AutoModel.register(PalamConfig, PalamBridge, exist_ok=True)
AutoProcessor.register(PalamConfig, PalamProcessor, exist_ok=True)  # type: ignore[no-untyped-call]
