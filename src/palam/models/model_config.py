"""Which models are joined, by which bridge, and what stands around the text: a user's choice."""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from palam.errors import PalamError
from palam.models.registry import FUSIONS, MAPPERS
from palam.utils.registry import Registry
from palam.utils.settings import check_least, convert, convert_fields

if TYPE_CHECKING:
    FusionName = str
    MapperName = str
else:  # for help and completion; evaluated at each use, so that what is registered later counts
    FusionName = "Literal[tuple(FUSIONS)]"
    MapperName = "Literal[tuple(MAPPERS)]"

DEFAULT_MAX_LENGTH = 256
"""Encoder tokens of a text, unless the encoder takes fewer."""
LEAST_MAX_LENGTH = 8
"""Fewer would leave no room for text beside the special tokens."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The two base models, the bridge between them, and the template.

    Raises:
        PalamError: a value that is not right, or an option that the fusion or mapper does not have.
    """

    encoder: str = "starter:encoder"
    """Encoder: hub id, folder or starter:encoder."""
    llm: str = "starter:llm"
    """LLM: hub id, folder or starter:llm."""
    fusion: FusionName = field(default="mean", metadata={"names": FUSIONS})
    """How the encoder's layers are fused."""
    fusion_options: dict[str, Any] = field(default_factory=dict)
    """The fusion's own options, e.g. `rank` of transformer_softmax: see `palam info`."""
    normalize: Literal["none", "layer"] = "layer"
    """Per-layer normalisation before fusing: none (the paper) or layer."""
    mapper: MapperName = field(default="linear", metadata={"names": MAPPERS})
    """How fused states are mapped to the LLM's embedding space."""
    mapper_options: dict[str, Any] = field(default_factory=dict)
    """The mapper's own options, e.g. `hidden_size` of mlp."""
    mode: Literal["paper", "prompt", "chat"] = "prompt"
    """Around the text: nothing (paper), a prompt, or the LLM's chat template (chat)."""
    prompt: str | None = None
    """The prompt, with one {text} slot; not set is the task's own."""
    system_prompt: str | None = None
    """System prompt of a chat; not set is the chat template's own."""
    chat_template_options: dict[str, Any] = field(default_factory=dict)
    """Variables of the chat template; enable_thinking is false unless set."""
    append_source_tokens: bool = False
    """The LLM reads the text's own tokens too, after the mapped ones (MindMerger)."""
    max_length: int | None = None
    """Most encoder tokens of a text; not set is 256 or the encoder's limit."""
    encoder_revision: str | None = None
    """The encoder's revision on the hub."""
    llm_revision: str | None = None
    """The LLM's revision on the hub."""
    second_encoder: str | None = None
    """A second encoder, which reads the same text: hub id or folder. Its fused states stand beside
    the first one's before the mapper."""
    second_encoder_revision: str | None = None
    """The second encoder's revision on the hub."""

    def __post_init__(self) -> None:
        convert_fields(self)
        check_least(self, max_length=LEAST_MAX_LENGTH)
        if "normalize" in self.fusion_options:
            raise PalamError("normalize is a setting of its own, not one of the fusion's options")
        fusion_options = converted_options(FUSIONS, self.fusion, self.fusion_options)
        object.__setattr__(self, "fusion_options", fusion_options)
        mapper_options = converted_options(MAPPERS, self.mapper, self.mapper_options)
        object.__setattr__(self, "mapper_options", mapper_options)

    @classmethod
    def from_options(cls, **options: Any) -> "ModelConfig":
        """A configuration from settings and, beside them, options of the fusion and the mapper.

        Args:
            **options: fields of this class, and e.g. `rank=32`, which goes to the fusion or the
                mapper, whichever has it.

        Raises:
            PalamError: a value that is not right, or an option that neither has (lists those that
                there are).
        """
        fields = {item.name for item in dataclasses.fields(cls)}
        settings = {name: value for name, value in options.items() if name in fields}
        bridge_options = {name: value for name, value in options.items() if name not in fields}
        config = cls(**settings)
        of_fusion = option_defaults(FUSIONS, config.fusion)
        of_mapper = option_defaults(MAPPERS, config.mapper)
        fusion_options = dict(config.fusion_options)
        mapper_options = dict(config.mapper_options)
        for name, value in sorted(bridge_options.items()):
            if name in of_fusion:
                fusion_options[name] = value
            elif name in of_mapper:
                mapper_options[name] = value
            else:
                listed = ", ".join(sorted({*of_fusion, *of_mapper})) or "none"
                raise PalamError(
                    f"{name!r} is no option of {config.fusion} and {config.mapper}; "
                    f"their options are: {listed}"
                )
        return dataclasses.replace(
            config, fusion_options=fusion_options, mapper_options=mapper_options
        )

    @property
    def all_fusion_options(self) -> dict[str, Any]:
        """The fusion's own options, and the normalisation that all fusions have."""
        return {"normalize": self.normalize, **self.fusion_options}


def option_defaults(registry: Registry[Any], name: str) -> dict[str, Any]:
    """The options of a fusion or mapper, each with its default.

    Args:
        registry: [`FUSIONS`] or [`MAPPERS`].
        name: one of its names.

    Raises:
        PalamError: a name that is not known.
    """
    parameters = inspect.signature(registry.lookup(name)).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is not inspect.Parameter.empty
    }


def converted_options(
    registry: Registry[Any], name: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of a fusion or mapper, each as the type that its constructor declares.

    Args:
        registry: [`FUSIONS`] or [`MAPPERS`].
        name: one of its names.
        options: by name, which may have hyphens; a value may be text, as files and command lines
            have it.

    Raises:
        PalamError: an option that it does not have (lists those that it has), or of another type.
    """
    if not options:
        return {}
    known = option_defaults(registry, name)
    annotations = inspect.get_annotations(registry[name].__init__, eval_str=True)
    converted = {}
    for written_name, value in options.items():
        option = written_name.replace("-", "_")  # as on a command line
        if option not in known:
            listed = ", ".join(known) or "none"
            raise PalamError(f"{option!r} is no option of {name}; its options are: {listed}")
        converted[option] = convert(f"{name}'s {option}", value, annotations.get(option, Any))
    return converted
