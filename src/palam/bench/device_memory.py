"""Whether a run fits a device, and what makes it fit: fewer bits, or layers spread over several."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from palam.bench.sketches import size_in_bytes
from palam.models.backbones.llm import decoder_layers

BYTES_IN_8_BITS = 1 + 4 / 4096
"""Of a weight, with the scale of each row; rows have some thousands."""
BYTES_IN_4_BITS = 0.5 + 4 / 64
"""Of a weight, with the scale of each 64."""
GIB = 2**30


@dataclass(frozen=True)
class WeightSizes:
    """Bytes of an LLM's weights on a device, by how they are held."""

    whole: int
    in_8_bits: int
    in_4_bits: int
    layers: int
    """Of `whole`, those of all layers, which `--shard-llm` spreads."""
    largest_layer: int

    @classmethod
    def of(cls, llm: Any) -> "WeightSizes":
        """Of a model, which may be on fake tensors."""
        layers = decoder_layers(llm)
        layer_sizes = [size_in_bytes(layer.parameters()) for layer in layers]
        matrices = 0
        num_weights = 0
        for layer in layers:
            for module in layer.modules():
                if isinstance(module, nn.Linear):
                    matrices += module.weight.numel() * module.weight.element_size()
                    num_weights += module.weight.numel()
        whole = size_in_bytes(llm.parameters())
        return cls(
            whole=whole,
            in_8_bits=whole - matrices + round(num_weights * BYTES_IN_8_BITS),
            in_4_bits=whole - matrices + round(num_weights * BYTES_IN_4_BITS),
            layers=sum(layer_sizes),
            largest_layer=max(layer_sizes, default=0),
        )

    def held(self, load_in: str | None = None, *, shards: int = 1) -> int:
        """Bytes on one device.

        Args:
            load_in: `8bit`, `4bit` or None.
            shards: over so many devices the layers are spread; a layer is whole while it computes.
        """
        if load_in == "8bit":
            return self.in_8_bits
        if load_in == "4bit":
            return self.in_4_bits
        if shards > 1:
            return self.whole - self.layers + self.layers // shards + self.largest_layer
        return self.whole


@dataclass(frozen=True)
class Device:
    """What a run is planned for."""

    memory: int | None = None
    """Bytes of each device; None asks a CUDA device, of others it is not known."""
    processes: int = 1
    """That share each batch, each on a device of its own."""
    rate: float | None = None
    """Operations a second of its matrix multiplication; None measures it."""

    def with_memory_of(self, device: torch.device) -> "Device":
        """The same, with the memory of a device of this machine if it is not given."""
        if self.memory is not None or device.type != "cuda":
            return self
        return replace(self, memory=torch.cuda.get_device_properties(device).total_memory)


def ways_that_fit(
    weights: WeightSizes, other_bytes: int, memory: int, processes: int
) -> dict[str, int]:
    """Which options make a run fit a device, and the bytes that it then takes.

    Args:
        weights: of the LLM.
        other_bytes: of all else that is on the device.
        memory: of each device, in bytes.
        processes: each of them has one.

    Returns:
        By options (empty: none are needed), the simplest first.
    """
    ways = {
        "": weights.held(),
        "--load-in 8bit": weights.held("8bit"),
        "--load-in 4bit": weights.held("4bit"),
    }
    if processes > 1:
        ways["--shard-llm"] = weights.held(shards=processes)
    totals = {options: size + other_bytes for options, size in ways.items()}
    return {options: total for options, total in totals.items() if total <= memory}
