"""A checkpoint: the bridge alone, in a folder that appears whole or not at all.

It holds `config.json`, `model.safetensors`, `processor_config.json`, `README.md`, and `adapter/`
where the LLM has a LoRA. Nothing of a base model is in it. A training run adds its record: its
settings, its results and its log.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from palam.errors import PalamError
from palam.models.backbones.adapters import (
    StoredAdapter,
    read_adapter,
    save_adapter,
    take_adapter,
)
from palam.models.backbones.loading import load_config, readable_errors, source_options
from palam.models.bridge import PalamBridge
from palam.models.configuration import PalamConfig
from palam.models.fingerprint import ROLES, check_fingerprint
from palam.models.finite import check_finite
from palam.models.model_card import CARD, model_card
from palam.models.processing import PalamProcessor
from palam.starter.resolve import resolve

ADAPTER_FOLDER = "adapter"
SETTINGS_FILE = "settings.yaml"
RESULTS_FILE = "results.json"
LOG_FILE = "log.jsonl"
CHECKPOINT_MARKER = ("config.json", '"model_type": "palam"')
"""What a folder must hold to be replaced by a checkpoint: this file, with this text in it."""
DESIGN = (
    "fusion",
    "fusion_options",
    "mapper",
    "mapper_options",
    "encoder_hidden_size",
    "encoder_num_layers",
    "second_encoder_hidden_size",
    "second_encoder_num_layers",
    "llm_hidden_size",
)
"""In what two bridges must agree for one to take the other's weights."""


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

    Raises:
        PalamError: a weight of the bridge is not finite.
    """
    check_finite(bridge.state_dict(), "the bridge's weights, which were to be saved,")
    bridge.save_pretrained(folder)
    processor.save_pretrained(folder)
    if bridge.config.adapter:
        save_adapter(llm, folder / ADAPTER_FOLDER)
    (folder / CARD).write_text(card or bridge_card(bridge, processor), encoding="utf-8")


def bridge_card(
    bridge: PalamBridge,
    processor: PalamProcessor,
    *,
    english: bool = False,
    settings: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> str:
    """The model card of a bridge.

    Args:
        bridge, processor: what is saved.
        english, settings, results: of its training, see [`model_card`]; not given if nothing is
            known about it.
    """
    return model_card(
        bridge.config,
        parameters=bridge.num_parameters(),
        template=processor.template,
        max_length=processor.max_length,
        english=english,
        settings=settings,
        results=results,
    )


def load_bridge(path: str | os.PathLike[str], revision: str | None = None) -> PalamBridge:
    """A checkpoint's bridge, in fp32 on the CPU.

    Args:
        path: folder, hub id or `starter:bridge`.
        revision: of the checkpoint on the hub.

    Raises:
        PalamError: no bridge there, or one whose weights do not fit its configuration or are not
            finite.
    """
    name, config = load_config(str(path), "checkpoint", revision)
    if not isinstance(config, PalamConfig):
        raise PalamError(f"{name} holds a {config.model_type} model, not a Palam checkpoint")
    with readable_errors(name, "checkpoint"):
        source = source_options(name, revision)
        file = str(cached_file(name, SAFE_WEIGHTS_NAME, **source))
        weights = _fitting_weights(config, file)
        check_finite(weights, f"the bridge's weights in {SAFE_WEIGHTS_NAME}")
        bridge = PalamBridge(config)
        bridge.load_state_dict(weights)
    bridge.train(False)
    return bridge


def find_file(path: str | os.PathLike[str], name: str) -> Path | None:
    """One of a checkpoint's files on the disk, fetched from the hub if it is there; None if not.

    Args:
        path: the checkpoint's folder, hub id or `starter:bridge`.
        name: of the file, e.g. `settings.yaml`.

    Raises:
        PalamError: no such folder, nor does the hub give it.
    """
    place = resolve(str(path))
    with readable_errors(str(path), "checkpoint"):
        source = source_options(place, None)
        file = cached_file(place, name, _raise_exceptions_for_missing_entries=False, **source)
    return None if file is None else Path(file)


def _fitting_weights(config: PalamConfig, file: str) -> dict[str, Tensor]:
    """The weights in a file, in fp32, if they are those of the bridge that a configuration says.

    The bridge is sketched first, so that a configuration that says too much costs no memory.

    Raises:
        PalamError: one is missing, too many, or of another shape.
    """
    with torch.device("meta"):
        sketch = PalamBridge(config)
    expected = {name: value.shape for name, value in sketch.state_dict().items()}
    with safe_open(file, "pt") as stored:
        names = list(stored.keys())
        shapes = {name: torch.Size(stored.get_slice(name).get_shape()) for name in names}
        wrong = [name for name in expected | shapes if expected.get(name) != shapes.get(name)]
        if wrong:
            raise PalamError(
                f"the weight {min(wrong)} is missing or does not fit its configuration"
            )
        # Off the mapped file, whose alignment changes the last bits of a matmul.
        return {name: stored.get_tensor(name).float().clone() for name in names}


class Start(NamedTuple):
    """What training starts from."""

    bridge: PalamBridge
    adapter: StoredAdapter | None
    """The LLM's LoRA, where the bridge was trained beside one."""

    def tensors(self) -> dict[str, Tensor]:
        """All its weights by name."""
        weights: dict[str, Tensor] = self.bridge.state_dict()
        return weights if self.adapter is None else {**weights, **self.adapter.weights}


def load_start(path: str | os.PathLike[str]) -> Start:
    """A checkpoint's bridge and, if it has one, its LoRA.

    Args:
        path: the checkpoint's folder, hub id or `starter:bridge`.

    Raises:
        PalamError: see [`load_bridge`] and [`read_adapter`].
    """
    bridge = load_bridge(path)
    adapter = read_adapter(resolve(str(path)), ADAPTER_FOLDER) if bridge.config.adapter else None
    return Start(bridge, adapter)


def check_settings_alike(
    names: Sequence[str], one: tuple[str, PalamConfig], other: tuple[str, PalamConfig]
) -> None:
    """Refuse two bridges whose configurations differ.

    Args:
        names: of the settings that are compared.
        one, other: what to call each bridge, and its configuration.

    Raises:
        PalamError: the first setting in which they differ.
    """
    path, config = one
    other_path, other_config = other
    for name in names:
        theirs = getattr(config, name)
        ours = getattr(other_config, name)
        if theirs != ours:
            in_words = name.replace("_", " ")
            raise PalamError(
                f"{path} has {in_words} {theirs}, {other_path} {ours}; they must be the same"
            )


def check_same_bases(config: PalamConfig, other: PalamConfig) -> None:
    """Refuse two bridges that were trained between other base models.

    Args:
        config: whose base models are expected.
        other: whose base models are named where they are others.

    Raises:
        PalamError: see [`check_fingerprint`].
    """
    for part, role in ROLES.items():
        expected = config.fingerprints.get(part)
        actual = other.fingerprints.get(part)
        check_fingerprint(role, expected, actual, getattr(other, part))


def load_weights_from(bridge: PalamBridge, path: str | os.PathLike[str], llm: Any = None) -> None:
    """Take a checkpoint's weights into a bridge, and into the LLM's LoRA, to train them on.

    Args:
        bridge: it is changed in place.
        path: the checkpoint's folder, hub id or `starter:bridge`.
        llm: the LLM, whose LoRA is changed if the checkpoint has one.

    Raises:
        PalamError: no bridge there, or one of another kind or between other base models; or a LoRA
            that this run does not train.
    """
    start = load_start(path)
    adapter = start.adapter
    if adapter is not None and not bridge.config.adapter:
        raise PalamError(
            f"{path} has a LoRA, without which its bridge is of no use; "
            f"give --lora-rank {adapter.settings['r']}"
        )
    config = start.bridge.config
    if config.llm_only and not bridge.config.llm_only:
        raise PalamError(f"{path} is a LoRA on the LLM alone; its bridge was not trained")
    encoders = [len(each.bases) - 1 for each in (config, bridge.config)]
    if encoders[0] != encoders[1]:
        raise PalamError(f"{path} has encoders: {encoders[0]}, this run has {encoders[1]}")
    check_settings_alike(DESIGN, (str(path), config), ("this run", bridge.config))
    check_same_bases(config, bridge.config)
    if adapter is not None:
        take_adapter(llm, adapter, str(path))
    bridge.load_state_dict(start.bridge.state_dict())
