"""Encoder states kept within a budget: a frozen encoder need not read a text twice.

What is kept is what would be computed, in the dtype in which it is computed. A fusion without
weights of its own is applied first, so that one state a token is kept and not one of each layer.
"""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from palam.models.joined_tokens import first_mask
from palam.models.modeling import PalamModel
from palam.training.checksums import tensors_sha256
from palam.utils.files import atomic_file

BATCH_SIZE = 32
SHARD_BYTES = 2**28
FORM = b"side by side, fused in fp32"
"""How states of several layers are kept; part of the name of what is kept."""
CHECKSUM = "sha256"
"""The name of the checksum of a file's states among its metadata."""


class EncoderStateCache:
    """A [`TextEncoding`] that keeps the encoder's states, by the texts' token ids.

    A run sets `model.encoding` to one, and puts `model.live_encoding` back at its end.

    Args:
        model: whose encoder reads and whose bridge maps; its fusion is applied before keeping if
            it has no weights.
        budget: most bytes to keep; further texts are read anew each time.
        folder: keep them there for later runs, memory-mapped; None is in memory. Runs with the
            same encoder, dtype and (if it is applied) fusion share what they find there. Files
            appear whole, and damaged ones are not used.

    Attributes:
        states: by a text's key, its states [tokens, d]: fused, or those of all layers side by side.
    """

    def __init__(self, model: PalamModel, budget: int, folder: Path | None = None) -> None:
        self.model = model
        self.keeps_fused = not model.bridge.fusion_weights()
        self.states: dict[str, Tensor] = {}
        self._loaded: set[Path] = set()
        self.folder: Path | None = None
        if folder is not None:
            self.folder = folder / self._identity()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.load_shards()
        self.bytes_left = budget - _bytes_of(self.states)

    def _identity(self) -> str:
        """A name for the encoder's weights and dtype, and the fusion that is applied."""
        digest = hashlib.sha256(FORM)
        if self.keeps_fused:
            config = self.model.config
            fusion = [config.fusion, config.fusion_options]
            digest.update(json.dumps(fusion, sort_keys=True).encode())
        for name, weight in self.model.encoder.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            flat = weight.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    def load_shards(self) -> None:
        """Take the states that are in the folder by now, memory-mapped."""
        assert self.folder is not None
        for path in sorted(self.folder.glob("*.safetensors")):
            if path not in self._loaded:
                self._load_shard(path)

    def fill(
        self,
        token_ids: Sequence[list[int]],
        progress: Callable[[int], Any] | None = None,
    ) -> None:
        """Read the texts that are not kept yet, as far as the budget goes.

        They are read in an order that depends on the texts alone, the longest first.

        Args:
            token_ids: each text's, as the encoder reads it.
            progress: called with the number of texts just read.

        Raises:
            PalamError: the folder cannot be written to.
        """
        row_of = self._rows_to_keep(token_ids)
        # The longest first, so that a batch has little padding.
        order = sorted(row_of, key=lambda key: (-len(token_ids[row_of[key]]), key))
        shard: dict[str, Tensor] = {}
        for start in range(0, len(order), BATCH_SIZE):
            keys = order[start : start + BATCH_SIZE]
            fitting = self._read_within_budget({key: token_ids[row_of[key]] for key in keys})
            shard.update(fitting)
            if progress:
                progress(len(keys))
            if keys[-1] not in fitting:  # the budget is used up
                break
            if _bytes_of(shard) >= SHARD_BYTES:
                self._keep(shard)
                shard = {}
        self._keep(shard)

    def _rows_to_keep(self, token_ids: Sequence[list[int]]) -> dict[str, int]:
        """By key, a row of each of the longest texts that are not kept yet.

        They are as many as the budget allows, and a batch more.
        """
        bridge = self.model.bridge
        numbers = bridge.fused_size if self.keeps_fused else sum(self.model.config.layer_widths)
        token_bytes = numbers * self.model.encoder.dtype.itemsize
        lengths = np.array([len(ids) for ids in token_ids], np.int64)
        row_of: dict[str, int] = {}
        bytes_left = self.bytes_left
        num_beyond = 0
        for row in np.argsort(-lengths, kind="stable").tolist():
            if num_beyond == BATCH_SIZE:
                break
            key = _key(token_ids[row])
            if key in self.states or key in row_of:
                continue
            row_of[key] = row
            bytes_left -= token_bytes * int(lengths[row])
            num_beyond += bytes_left < 0
        return row_of

    def _read_within_budget(self, texts: dict[str, list[int]]) -> dict[str, Tensor]:
        """The states of one batch of texts, of as many as the budget allows."""
        rows = [{"encoder_input_ids": ids} for ids in texts.values()]
        batch = self.model.processor.pad(rows)
        states = self._compute(batch["encoder_input_ids"], batch["encoder_attention_mask"])
        fitting = {}
        for key, state in zip(texts, states, strict=True):
            if state.nbytes <= self.bytes_left:
                fitting[key] = state.cpu().clone()
                self.bytes_left -= state.nbytes
        return fitting

    def _keep(self, shard: dict[str, Tensor]) -> None:
        """Keep states in memory, or in a new file of the folder."""
        if self.folder is None:
            self.states.update(shard)
        elif shard:
            path = self.folder / f"{secrets.token_hex(8)}.safetensors"
            with atomic_file(path) as file:
                file.write(save(shard, metadata={CHECKSUM: tensors_sha256(shard)}))
            self._load_shard(path)

    def _load_shard(self, path: Path) -> None:
        """Take a file's states, memory-mapped; of one damaged or deleted, none."""
        self._loaded.add(path)
        with contextlib.suppress(SafetensorError, OSError):
            with safe_open(path, framework="pt") as file:
                checksum = (file.metadata() or {}).get(CHECKSUM)
            states = load_file(path)
            if tensors_sha256(states) == checksum:
                self.states.update(states)

    @torch.no_grad()
    def _compute(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Each row's states [tokens, d]."""
        layers = self.model.encode(ids, mask)
        if self.keeps_fused:
            bridge = self.model.bridge
            with bridge.precision(layers[0].dtype):
                packed, _ = bridge.fuse(layers)
        else:
            packed = torch.cat(layers, -1)
        return list(torch.split(packed, first_mask(ids, mask).sum(1).tolist()))

    def mapped(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See [`TextEncoding.mapped`]; the encoder reads only the rows that are not kept."""
        states: dict[int, Tensor] = {}
        missing = []
        for row, real in enumerate(mask.bool()):
            key = _key(ids[row][real].tolist())
            if key in self.states:
                states[row] = self.states[key]
            else:
                missing.append(row)
        if missing:
            computed = self._compute(ids[missing], mask[missing])
            states.update(zip(missing, computed, strict=True))
        device = self.model.device
        in_order = [states[row].to(device, non_blocking=True) for row in range(len(ids))]
        return self._map(torch.cat(in_order))

    def _map(self, packed: Tensor) -> Tensor:
        """Kept states [tokens, d] as the bridge maps them: [tokens, d_llm]."""
        bridge = self.model.bridge
        mapped: Tensor
        if self.keeps_fused:
            with bridge.precision(self.model.encoder.dtype):
                mapped = bridge.mapper(packed)
        else:
            mapped, _ = bridge(torch.split(packed, self.model.config.layer_widths, -1))
        return mapped


def _key(ids: list[int]) -> str:
    text = " ".join(map(str, ids))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _bytes_of(states: dict[str, Tensor]) -> int:
    return sum(state.nbytes for state in states.values())
