"""A checkpoint: the bridge alone, in a folder that appears whole or not at all.

It holds `config.json`, `model.safetensors`, `processor_config.json`, `README.md`, and `adapter/`
where the LLM has a LoRA. Nothing of a base model is in it.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi

from palam.errors import PalamError
from palam.models.backbones.adapters import save_adapter
from palam.models.backbones.loading import load_config, readable_errors
from palam.models.bridge import PalamBridge
from palam.models.configuration import PalamConfig
from palam.models.fingerprint import check_fingerprint
from palam.models.model_card import CARD, model_card
from palam.models.processing import PalamProcessor

ADAPTER_FOLDER = "adapter"
CHECKPOINT_MARKER = ("config.json", '"model_type": "palam"')
"""What a folder must hold to be replaced by a checkpoint: this file, with this text in it."""


def write_checkpoint(
    folder: Path,
    bridge: PalamBridge,
    processor: PalamProcessor,
    llm: Any,
    card: str | None = None,
) -> None:
    """Write a checkpoint's files into an existing folder.

    Args:
        folder: usually one of [`atomic_directory`].
        bridge, processor: what is saved.
        llm: the LLM; only its adapter is saved, if the configuration says that it has one.
        card: the model card's text; None is one written from the configuration.
    """
    bridge.save_pretrained(folder)
    processor.save_pretrained(folder)
    if bridge.config.adapter:
        save_adapter(llm, folder / ADAPTER_FOLDER)
    (folder / CARD).write_text(card or untrained_card(bridge, processor), encoding="utf-8")


def untrained_card(bridge: PalamBridge, processor: PalamProcessor) -> str:
    """The model card of a bridge about whose training nothing is known."""
    return model_card(
        bridge.config,
        parameters=bridge.num_parameters(),
        template=processor.template,
        max_length=processor.max_length,
    )


def push_checkpoint(
    repo_id: str,
    bridge: PalamBridge,
    processor: PalamProcessor,
    llm: Any,
    card: str | None = None,
    *,
    private: bool | None = None,
    token: str | None = None,
    **options: Any,
) -> str:
    """Upload a checkpoint to the hub; see [`PalamModel.push_to_hub`]."""
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), bridge, processor, llm, card)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))


def load_bridge(path: str | os.PathLike[str], revision: str | None = None) -> PalamBridge:
    """A checkpoint's bridge, in fp32 on the CPU.

    Args:
        path: folder or hub id.
        revision: of the checkpoint on the hub.

    Raises:
        PalamError: no bridge there, or one whose weights do not fit its configuration.
    """
    name, config = load_config(str(path), "checkpoint", revision)
    if not isinstance(config, PalamConfig):
        raise PalamError(f"{name} holds a {config.model_type} model, not a Palam checkpoint")
    load: Any = PalamBridge.from_pretrained
    with readable_errors(name, "checkpoint"):
        bridge, loading_info = load(
            name,
            config=config,
            revision=revision or "main",
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        mismatched = [key for key, *_ in loading_info["mismatched_keys"]]
        wrong = [*loading_info["missing_keys"], *loading_info["unexpected_keys"], *mismatched]
        if wrong:
            raise PalamError(
                f"the weight {min(wrong)} is missing or does not fit its configuration"
            )
    for parameter in bridge.parameters():
        # Off the mapped file, whose alignment changes the last bits of a matmul.
        parameter.data = parameter.data.clone()
    return bridge  # type: ignore[no-any-return]


def load_weights_from(bridge: PalamBridge, path: str | os.PathLike[str]) -> None:
    """Take a checkpoint's weights into a bridge, to start training from them.

    Raises:
        PalamError: no bridge there, or one of another kind or between other base models.
    """
    other = load_bridge(path)
    if other.config.adapter:
        raise PalamError(f"{path} has a LoRA, without which its bridge is of no use")
    for name in (
        "fusion",
        "fusion_options",
        "mapper",
        "mapper_options",
        "encoder_hidden_size",
        "encoder_num_layers",
        "llm_hidden_size",
    ):
        theirs = getattr(other.config, name)
        ours = getattr(bridge.config, name)
        if theirs != ours:
            spoken = name.replace("_", " ")
            raise PalamError(
                f"{path} has {spoken} {theirs}, this run {ours}; they must be the same"
            )
    for role in ("encoder", "LLM"):
        part = role.lower()
        expected = other.config.fingerprints.get(part)
        found = bridge.config.fingerprints.get(part)
        check_fingerprint(role, expected, found, getattr(bridge.config, part))
    bridge.load_state_dict(other.state_dict())
