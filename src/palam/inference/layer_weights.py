"""How much each encoder layer counts for each token: by weight, and by weight × norm.

Norms differ by layer, so a weight alone misleads: what a layer contributes is weight × norm.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from tokenizers.decoders import ByteLevel
from torch import Tensor

from palam.models.modeling import PalamModel
from palam.models.template import clean


class LayerWeights(NamedTuple):
    """How a fusion weights the layers of one text's tokens."""

    tokens: list[str]
    """The (first) encoder's tokens, as its vocabulary has them."""
    weights: Tensor
    """[tokens, L], each row summing to 1; one-hot on the last layer where the fusion has none. Of
    two encoders, the layers of the second follow, and the weights of each sum to 1."""
    norms: Tensor
    """[tokens, L], of the states that are weighted."""


@torch.no_grad()
def layer_weights(
    model: PalamModel,
    text: str,
    language: str | None = None,
) -> LayerWeights:
    """How much each layer counts for each token of a text; fp32 on the CPU.

    Args:
        model: whose encoder reads the text, and whose fusion weights the layers.
        text: any string.
        language: its code, for encoders that must be told.
    """
    batch = model.processor([text], languages=[language])
    states = model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
    with model.evaluating():
        _, weights = model.bridge(states)
    layer_norms = []
    last_layers = []
    for fusion, own in model.bridge.fusions(states):
        layer_norms += [fusion.prepare(state).float().norm(dim=-1) for state in own]
        last_layers.append(len(layer_norms) - 1)
    norms = torch.stack(layer_norms, -1)
    if weights is None:
        weights = torch.zeros_like(norms)
        weights[:, last_layers] = 1
    ids = [token_id for token_id in batch["encoder_input_ids"][0].tolist() if token_id >= 0]
    tokens = model.processor.encoder_tokenizer.convert_ids_to_tokens(ids)
    return LayerWeights(tokens, weights.float().cpu(), norms.cpu())


@dataclass(frozen=True, eq=False)
class LayerView:
    """The layer weights of one text, to be shown or saved."""

    text: str
    tokens: list[str]
    """The encoder's tokens, readable."""
    weights: Tensor
    """[tokens, L]"""
    norms: Tensor
    """[tokens, L], of the states that are weighted."""
    language: str | None = None
    """Its code, or None if it is not known."""

    @classmethod
    def of(
        cls,
        model: PalamModel,
        text: str,
        language: str | None = None,
    ) -> "LayerView":
        """Read a text with a model; see [`layer_weights`]."""
        tokens, weights, norms = layer_weights(model, text, language)
        readable = _readable_tokens(model.processor.encoder_tokenizer, tokens)
        return cls(clean(text), readable, weights, norms, language)

    @property
    def shares(self) -> Tensor:
        """Weight × norm, as a share of the token's sum [tokens, L]."""
        product = self.weights * self.norms
        total = product.sum(-1, keepdim=True)
        return product / total.clamp(min=1e-12)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "text": self.text,
            "language": self.language,
            "tokens": self.tokens,
            "weights": self.weights.tolist(),
            "norms": self.norms.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "LayerView":
        """From the JSON form."""
        return cls(
            text=data["text"],
            tokens=data["tokens"],
            weights=torch.tensor(data["weights"], dtype=torch.float32),
            norms=torch.tensor(data["norms"], dtype=torch.float32),
            language=data.get("language"),
        )


def _readable_tokens(tokenizer: Any, tokens: list[str]) -> list[str]:
    """Tokens as text; a byte-level tokenizer's vocabulary has other characters for its bytes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(getattr(backend, "decoder", None), ByteLevel):
        return tokens
    texts = [tokenizer.convert_tokens_to_string([token]) for token in tokens]
    return [text.replace(" ", "▁") for text in texts]
