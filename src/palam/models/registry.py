"""Fusions and mappers by name. A new one is a file of its own and one line here."""

from typing import TYPE_CHECKING

from palam.utils.registry import Registry

if TYPE_CHECKING:
    from palam.models.fusion.base import Fusion
    from palam.models.mapper import LinearMapper

FUSIONS: "Registry[Fusion]" = Registry(
    "fusion",
    {
        "last": "palam.models.fusion.last:LastLayer",
        "mean": "palam.models.fusion.mean:Mean",
        "global_softmax": "palam.models.fusion.global_softmax:GlobalSoftmax",
        "transformer_softmax": "palam.models.fusion.transformer_softmax:TransformerSoftmax",
    },
)
"""The fusions by name; [`register_fusion`] adds one."""
MAPPERS: "Registry[LinearMapper]" = Registry(
    "mapper",
    {
        "linear": "palam.models.mapper:LinearMapper",
        "mlp": "palam.models.mapper:MLPMapper",
    },
)
"""The mappers by name; [`register_mapper`] adds one."""


def register_fusion(name: str, fusion: "type[Fusion]") -> None:
    """Make a fusion known by a name, in this process.

    Its constructor takes `hidden_size`, `num_layers` and `normalize`, as that of [`Fusion`] does.
    The parameters after these, each with a default, are its own options, which are taken wherever a
    fusion is named.

    Args:
        name: as settings and checkpoints have it.
        fusion: a subclass of [`Fusion`].
    """
    FUSIONS.register(name, fusion)


def register_mapper(name: str, mapper: "type[LinearMapper]") -> None:
    """Make a mapper known by a name, in this process.

    Its constructor takes `input_size` and `output_size`, as that of [`LinearMapper`] does. The
    parameters after these, each with a default, are its own options, which are taken wherever a
    mapper is named.

    Args:
        name: as settings and checkpoints have it.
        mapper: [`LinearMapper`] or a subclass of it.
    """
    MAPPERS.register(name, mapper)
