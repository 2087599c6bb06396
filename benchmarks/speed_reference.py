"""A plain reference after the published design of such bridges, for `speed.py` to compare with.

Each of its differences from Palam is a switch; with all of them off it is Palam's own path.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from palam import PalamModel, PalamProcessor
from palam.models.backbones.encoder import encode
from palam.models.processing import IGNORE, TEXT_SLOT
from palam.models.sequence import LLMInputs

EXACT = ("tokenise", "stack", "logits", "padding")
"""The switches that must not change the loss."""
SWITCHES = {"training": (*EXACT, "dropout"), "scoring": (*EXACT, "generate")}
"""Those of each kind of run."""


class OneByOne(PalamProcessor):
    """Tokenises for the encoder text by text."""

    @classmethod
    def like(cls, processor: PalamProcessor) -> "OneByOne":
        """With the settings of another processor."""
        names = [field.name for field in dataclasses.fields(processor) if field.init]
        return cls(**{name: getattr(processor, name) for name in names})

    def encode_texts(
        self, texts: Sequence[str], languages: Any = None, **options: Any
    ) -> list[dict[str, Any]]:
        """See [`PalamProcessor.encode_texts`]."""
        codes = languages or [None] * len(texts)
        features = []
        for text, code in zip(texts, codes, strict=True):
            features += super().encode_texts([text], [code], **options)
        return features


class PaddedEncoding:
    """A [`TextEncoding`] that fuses and maps the encoder's states with their padding.

    Args:
        model: whose encoder and bridge read.
        stacked: keep all layers in a list and in a stack beside it, until they are released.

    Attributes:
        kept: the list and the stack.
    """

    def __init__(self, model: PalamModel, *, stacked: bool) -> None:
        self.model = model
        self.stacked = stacked
        self.kept: tuple[list[Tensor], Tensor] | None = None

    def padded(self, ids: Tensor, mask: Tensor) -> Tensor:
        """All positions mapped: [batch, text tokens, d_llm].

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens].
        """
        device = self.model.encoder.device
        states = encode(self.model.encoder, ids.to(device), mask.to(device))
        layers: Sequence[Tensor] = [state.to(self.model.device) for state in states]
        if self.stacked:
            self.kept = list(layers), torch.stack(list(layers))
            layers = self.kept[1].unbind()
        mapped: Tensor = self.model.bridge(layers)[0]
        return mapped

    def mapped(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See [`TextEncoding.mapped`]."""
        return self.padded(ids, mask)[mask.to(self.model.device).bool()]


class Reference(PalamModel):
    """The parts of a [`PalamModel`], run plainly where a switch is on.

    Args:
        model: whose encoder, bridge and LLM are used.
        switches: names in `SWITCHES`. `dropout` acts in training alone; `generate` is the caller's.
    """

    switches: frozenset[str] = frozenset()

    def __init__(self, model: PalamModel, switches: Iterable[str] = ()) -> None:
        switches = frozenset(switches)
        processor = model.processor
        if "tokenise" in switches:
            processor = OneByOne.like(processor)
        super().__init__(model.encoder, model.bridge, model.llm, processor)
        self.switches = switches
        self.padded_encoding = PaddedEncoding(self, stacked="stack" in switches)
        if "stack" in switches:
            self.encoding = self.padded_encoding

    def train(self, mode: bool = True) -> "Reference":
        """The encoder's dropout with the rest's, if its switch is on."""
        super().train(mode)
        self.encoder.train(mode and "dropout" in self.switches)
        return self

    def llm_inputs(self, **batch: Any) -> LLMInputs:
        """With `padding`: prefix, padded text, boundary, suffix and answer, side by side."""
        if "padding" not in self.switches:
            return super().llm_inputs(**batch)
        text_mask = batch["encoder_attention_mask"].to(self.device)
        ids = batch["input_ids"].to(self.device)
        known = batch["attention_mask"].to(self.device)
        labels = batch.get("labels")
        # Palam pads these rows on the left; on the right, the text's slot is in the same column of
        # all of them.
        width = ids.shape[1]
        columns = torch.arange(width, device=self.device)
        order = (columns - known.sum(1, keepdim=True)) % width
        ids = ids.gather(1, order)
        known = known.gather(1, order)
        slot = int((ids[0] == TEXT_SLOT).nonzero()[0, 0])
        mapped = self.padded_encoding.padded(batch["encoder_input_ids"], text_mask)
        before = self.embed(ids[:, :slot])
        after = self.embed(ids[:, slot + 1 :])
        boundary = self.bridge.boundary.to(before.dtype).expand(len(ids), 1, -1)
        vectors = torch.cat([before, mapped.to(before.dtype), boundary, after], 1)
        mask = torch.cat([known[:, :slot], text_mask, known[:, slot:]], 1)
        if labels is not None:
            labels = labels.to(self.device).gather(1, order)
            ignored = torch.full_like(text_mask, IGNORE)
            labels = torch.cat([labels[:, :slot], ignored, labels[:, slot:]], 1)
        return LLMInputs(
            inputs_embeds=vectors,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            labels=labels,
        )

    def run_llm(self, inputs: LLMInputs, logits_to_keep: int = 0, **options: Any) -> Any:
        """With `logits`: at every position. Scoring then takes the last ones, a loss needs all."""
        if "logits" not in self.switches:
            return super().run_llm(inputs, logits_to_keep, **options)
        output = super().run_llm(inputs, 0, **options)
        if inputs.labels is None:
            output.logits = output.logits[:, -logits_to_keep:]
        return output
