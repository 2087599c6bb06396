"""LoRA adapters on the frozen LLM, through peft."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from palam.errors import PalamError


def with_lora(llm: PreTrainedModel, rank: int, alpha: int, target_modules: Any) -> Any:
    """The LLM inside a peft model with a new, trainable LoRA; see [`PalamModel.add_lora`]."""
    peft = import_peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=target_modules,
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(llm, config)


def without_adapter(llm: Any) -> PreTrainedModel:
    """The bare LLM, whether it is inside a peft model or not."""
    bare: PreTrainedModel = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
    return bare


def load_adapter(llm: PreTrainedModel, path: str, folder: str, revision: str | None) -> Any:
    """The LLM inside a peft model with the adapter of a checkpoint.

    Args:
        llm: the bare LLM.
        path: the checkpoint's folder or hub id.
        folder: where in it the adapter is.
        revision: of the checkpoint on the hub.
    """
    peft = import_peft()
    return peft.PeftModel.from_pretrained(llm, path, subfolder=folder, revision=revision)


def save_adapter(llm: Any, folder: Path) -> None:
    """Write the adapter of an LLM inside a peft model to a folder."""
    # The base's vocabulary is never extended; peft would ask the hub whether it was.
    llm.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form


def import_peft() -> Any:
    """The peft library.

    Raises:
        PalamError: it is not installed; the message says how to get it.
    """
    try:
        import peft
    except ImportError:
        raise PalamError('LoRA needs peft: pip install "palam[lora]"') from None
    return peft
