"""What requests and replies hold.

The names are those of OpenAI's API. What this server does not know is refused, so that nothing is
ignored that a client asks for; settings that clients send though they change nothing are accepted
at that value.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from palam.inference.best_of_number import MOST_ANSWERS
from palam.models.guidance_scale import MOST_GUIDANCE, NO_GUIDANCE

NEUTRAL_VALUES = {
    "n": ("1",),
    "echo": ("false",),
    "suffix": ('""',),
    "logprobs": ("false", "0"),
    "top_logprobs": ("0",),
    "logit_bias": ("{}",),
    "presence_penalty": ("0", "0.0"),
    "frequency_penalty": ("0", "0.0"),
    "tools": ("[]",),
    "functions": ("[]",),
    "tool_choice": ('"none"', '"auto"'),
    "parallel_tool_calls": ("true", "false"),
    "response_format": ('{"type": "text"}',),
    "modalities": ('["text"]',),
    "store": ("false",),
    "service_tier": ('"auto"', '"default"'),
}
"""Settings of the API that are not supported, and the JSON of what they may be all the same."""
MAX_STOPS = 4
MAX_STOP_LENGTH = 256
MAX_TEMPERATURE = 2
MAX_SEED = 2**63 - 1


def _checked_text(text: str) -> str:
    """A text that is one: JSON may hold what no text does."""
    if "\0" in text:
        raise PydanticCustomError("nul", "holds a NUL character, which is no text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError(
            "surrogate", "holds an unpaired surrogate, which is no text"
        ) from None
    return text


Text = Annotated[str, AfterValidator(_checked_text)]
ModelName = Annotated[
    str | None, Field(description="A bridge's name. Not needed where the server has one.")
]
LanguageCode = Annotated[
    str | None,
    Field(description="A code such as si or sin_Sinh. Encoders of NLLB's kind need it."),
]


class Strict(BaseModel):
    """Refuses what it does not know, and values of other types."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


# ------------------------------------------------------------------ free answers
class StreamOptions(Strict):
    """What a stream holds beside the answer."""

    include_usage: bool = Field(False, description="A last chunk with the usage.")
    include_obfuscation: Literal[False] = False


class AnswerRequest(Strict):
    """What both forms of a request for an answer share."""

    model: ModelName = None
    language: LanguageCode = None
    max_tokens: int | None = Field(
        None, ge=1, description="Most tokens of the answer; not set is the server's own limit."
    )
    temperature: float | None = Field(
        0.0,
        ge=0,
        le=MAX_TEMPERATURE,
        allow_inf_nan=False,
        description="0, the default, is the likeliest token each time, as in `palam generate`.",
    )
    top_p: float | None = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-MAX_SEED, le=MAX_SEED)
    guidance_scale: float | None = Field(
        None,
        ge=NO_GUIDANCE,
        le=MOST_GUIDANCE,
        allow_inf_nan=False,
        description="How far the answer keeps to the text, away from what the LLM would say "
        "without it; 1 is as it comes. Not set is 1.5 where the text is wanted in English, else 1, "
        "as in `palam generate`.",
    )
    best_of: int | None = Field(
        None,
        ge=1,
        le=MOST_ANSWERS,
        description="So many answers are made to a text, the greedy one among them, and the one is "
        "given that says most of the text for the encoder; not set is 1. For answers that are to "
        "say what the text says, whole and at temperature 0.",
    )
    stop: Text | list[Text] | None = Field(None, description=f"At most {MAX_STOPS} texts.")
    stream: bool | None = Field(False, description="The answer as server-sent events.")
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="Not used.")
    metadata: dict[str, str] | None = Field(None, description="Not used.")

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, content: Any) -> Any:
        """Accept unsupported settings at values that change nothing."""
        if not isinstance(content, dict):
            return content
        remaining = {}
        for name, value in content.items():
            if name not in NEUTRAL_VALUES:
                remaining[name] = value
            elif json.dumps(value) not in ("null", *NEUTRAL_VALUES[name]):
                raise _unsupported(name)
        return remaining

    @model_validator(mode="after")
    def _check_best_of(self) -> "AnswerRequest":
        if self.best_of not in (None, 1) and self.stream:
            raise PydanticCustomError(
                "best_of",
                "the best of several answers comes whole; leave stream out",
                {"field": "best_of"},
            )
        return self

    @model_validator(mode="after")
    def _check_stops(self) -> "AnswerRequest":
        stops = self.stops
        if len(stops) > MAX_STOPS or any(len(stop) > MAX_STOP_LENGTH for stop in stops):
            raise PydanticCustomError(
                "stop",
                f"stop takes at most {MAX_STOPS} texts of {MAX_STOP_LENGTH} characters",
                {"field": "stop"},
            )
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings, of which none is empty."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops if stop]

    @property
    def wanted_tokens(self) -> int | None:
        """Most tokens of the answer, if the request says."""
        return self.max_tokens


def _unsupported(name: str) -> PydanticCustomError:
    return PydanticCustomError(
        "unsupported", f"{name} is not supported by this server; leave it out", {"field": name}
    )


class TextPart(Strict):
    """English that the LLM reads itself: an instruction, a question."""

    type: Literal["text"]
    text: Text


class ForeignTextPart(Strict):
    """A text in any language, read through the bridge."""

    type: Literal["foreign_text"]
    text: Text
    language: LanguageCode = None


ContentParts = Annotated[
    list[Annotated[TextPart | ForeignTextPart, Field(discriminator="type")]], Field(min_length=1)
]


class ChatMessage(Strict):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | ContentParts = Field(
        description="A user's plain string is read through the bridge, in its own template. Of "
        "parts, the LLM reads `text` itself, and `foreign_text` is read through the bridge, at its "
        "place. What system, developer and assistant say is read by the LLM itself."
    )
    name: str | None = Field(None, description="Not used.")
    refusal: None = None


class ChatRequest(AnswerRequest):
    """A conversation that is to be answered."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(
        None, ge=1, description="The newer name of max_tokens."
    )

    @property
    def wanted_tokens(self) -> int | None:
        """Most tokens of the answer, if the request says."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(AnswerRequest):
    """A text that is read through the bridge, in its own template."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=1)]

    @property
    def text(self) -> str:
        """The one text."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class Usage(BaseModel):
    """How many positions of the LLM a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class PalamNotes(BaseModel):
    """What Palam adds to the API's replies."""

    cut_texts: int = Field(description="Texts that were longer than the bridge reads.")


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The one answer of a chat."""

    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: str


class ChatReply(BaseModel):
    """The whole answer to a chat."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    palam: PalamNotes


class CompletionChoice(BaseModel):
    """The one answer to a text."""

    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: str


class CompletionReply(BaseModel):
    """The whole answer to a text."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    palam: PalamNotes


# ------------------------------------------------------------------ classification
class ClassifyRequest(Strict):
    """Texts that are to be labelled."""

    model: ModelName = None
    texts: list[Text] = Field(min_length=1)
    labels: list[Text] | None = Field(
        None, min_length=2, description="Not set: those the bridge was trained on."
    )
    language: LanguageCode = None
    languages: list[str | None] | None = Field(None, description="One for each text.")


class LabelScore(BaseModel):
    """How likely one label is."""

    label: str
    probability: float = Field(description="Among these labels.")
    log_probability: float = Field(
        description="Of the label's words as the LLM's answer, less its prior if the bridge was "
        "calibrated."
    )


class ClassifiedText(BaseModel):
    """One text's label."""

    index: int
    label: str = Field(description="The likeliest.")
    cut: bool = Field(description="Whether the text is longer than the bridge reads.")
    scores: list[LabelScore] = Field(description="In the order of the labels.")


class ClassifyReply(BaseModel):
    """All texts' labels, in order."""

    object: Literal["list"] = "list"
    model: str
    data: list[ClassifiedText]


# ------------------------------------------------------------------ layers
class LayersRequest(Strict):
    """A text of which is asked how the bridge reads it."""

    model: ModelName = None
    text: Text
    language: LanguageCode = None


class LayersReply(BaseModel):
    """How much each of the encoder's layers counts for each token."""

    object: Literal["layers"] = "layers"
    model: str
    tokens: list[str] = Field(description="The encoder's.")
    shares: list[list[float]] = Field(
        description="For each token, of each layer from the first: its weight times its norm, as a "
        "share of the token's sum."
    )
    cut: bool = Field(description="Whether the text is longer than the bridge reads.")


# ------------------------------------------------------------------ the rest
class BridgeNotes(BaseModel):
    """What a bridge is made of."""

    encoder: str
    second_encoder: str | None = Field(None, description="Of a bridge that has two.")
    llm: str
    labels: list[str] = Field(description="Those it was trained on.")
    max_length: int = Field(description="Most encoder tokens of a text; more are cut.")


class ServedModel(BaseModel):
    """A bridge that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "palam"
    palam: BridgeNotes


class ModelList(BaseModel):
    """All bridges of the server."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


class ErrorDetails(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """The one form of every error."""

    error: ErrorDetails


class Status(BaseModel):
    """How the server is."""

    status: str
