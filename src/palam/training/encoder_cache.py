"""Encoder states kept within a budget: a frozen encoder need not read a text again in the next epoch.

What is kept is exactly what would be computed, in the dtype in which it is computed. A fusion without weights of its
own is applied first, so that one state a token is kept and not all layers.
"""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from palam.models.modeling import PalamModel
from palam.utils.files import atomic_file

SHARD = 2**28  # bytes


class EncoderStateCache:
    """The states of texts by their token ids; `PalamModel.cache` takes one.

    Args:
        model: whose encoder reads; its fusion is applied before keeping if it has no weights.
        budget: most bytes to keep; further texts are read anew each time.
        folder: keep them there for later runs, memory-mapped; None is in memory. Runs with the same encoder, dtype and
            (if it is applied) fusion share what they find there. Files appear whole.
    """

    def __init__(self, model: PalamModel, budget: int, folder: Path | None = None) -> None:
        self.fused = not list(model.bridge.fusion.parameters())
        self.kept: dict[str, Tensor] = {}
        self.left = budget
        self.folder = None if folder is None else folder / self._identity(model)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.folder.glob("*.safetensors")):
                self._take(path)
        self.left -= sum(state.nbytes for state in self.kept.values())

    def _identity(self, model: PalamModel) -> str:
        """A name for the encoder's weights and dtype, and the fusion that is applied."""
        config: Any = model.config
        digest = hashlib.sha256()
        if self.fused:
            digest.update(
                json.dumps([config.fusion, config.fusion_options], sort_keys=True).encode()
            )
        for name, weight in model.encoder.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    def _take(self, path: Path) -> None:
        with contextlib.suppress(
            SafetensorError, OSError
        ):  # damaged, or deleted meanwhile: its texts are read again
            self.kept |= load_file(path)  # mapped, not read

    def fill(
        self,
        model: PalamModel,
        texts: Iterable[list[int]],
        progress: Callable[[int], Any] | None = None,
    ) -> None:
        """Read texts that are not kept yet, as far as the budget goes, in an order that depends on the texts alone.

        Args:
            model: the encoder's.
            texts: the encoder's token ids.
            progress: called with the number of texts just read.

        Raises:
            PalamError: the folder cannot be written to.
        """
        missing = {key: ids for ids in texts if (key := _key(ids)) not in self.kept}
        order = sorted(missing, key=lambda key: (-len(missing[key]), key))
        shard: dict[str, Tensor] = {}
        for first in range(0, len(order), 32):
            keys = order[first : first + 32]
            batch = model.processor.pad([{"encoder_input_ids": missing[key]} for key in keys])
            parts = self._compute(
                model, batch["encoder_input_ids"], batch["encoder_attention_mask"]
            )
            for key, part in zip(keys, parts, strict=True):
                if part.nbytes <= self.left:
                    shard[key] = part.cpu().clone()
                    self.left -= part.nbytes
            if progress:
                progress(len(keys))
            last = first + 32 >= len(order) or keys[-1] not in shard
            if last or sum(state.nbytes for state in shard.values()) >= SHARD:
                if self.folder is None or not shard:
                    self.kept |= shard
                else:
                    path = self.folder / f"{secrets.token_hex(8)}.safetensors"
                    with atomic_file(path) as file:
                        file.write(save(shard))
                    self._take(path)
                shard = {}
            if last:
                break

    @torch.no_grad()
    def _compute(self, model: PalamModel, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Each row's states [tokens, 1 or L, width]."""
        states = model.encode(ids, mask)
        with model.bridge.precision(states[0].dtype):
            packed = (
                model.bridge.fusion(states)[0][:, None] if self.fused else torch.stack(states, 1)
            )
        return list(packed.split(mask.sum(1).tolist()))

    def mapped(self, model: PalamModel, ids: Tensor, mask: Tensor) -> Tensor:
        """The bridge's output [real tokens of all rows, d_llm]; the encoder reads only the rows that are not kept.

        Args:
            model: whose bridge maps.
            ids, mask: the encoder's tokens and attention mask [batch, text tokens], on any device.
        """
        keys = [_key(row[real].tolist()) for row, real in zip(ids, mask.bool(), strict=True)]
        found = [self.kept.get(key) for key in keys]
        new = [row for row, state in enumerate(found) if state is None]
        if new:
            for row, state in zip(new, self._compute(model, ids[new], mask[new]), strict=True):
                found[row] = state
        packed = torch.cat(
            [state.to(model.device, non_blocking=True) for state in found if state is not None]
        )
        if not self.fused:
            mapped: Tensor = model.bridge(list(packed.unbind(1)))[0]
            return mapped
        with model.bridge.precision(model.encoder.dtype):
            mapped = model.bridge.mapper(packed[:, 0])
        return mapped


def _key(ids: list[int]) -> str:
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:40]
