"""`palam generate`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeFloat, PositiveInt

from palam.cli._languages import check_given_language
from palam.cli._options import (
    SEEDED_LOADING_DEFAULTS,
    Checkpoint,
    ConfigFile,
    SeededLoadingOptions,
    load_model,
)
from palam.cli._rows import Progress, RowJob, loading_as_begun, process_rows, reserved_output
from palam.cli._source import Chunk, SourceConfig, SourceOptions, TextForm, one_text
from palam.cli._text_notes import EncodingWatch, tell_what_was_lost
from palam.errors import PalamError
from palam.tasks.formats import Row

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel


@dataclass(frozen=True, kw_only=True)
class AnswerConfig:
    """What is asked, and how the answer is decoded.

    Raises:
        PalamError: a prompt for the mode that has none.
    """

    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """What to ask, with one {text} slot; not set is as the bridge was trained."""
    mode: Literal["paper", "prompt", "chat"] | None = None
    """What stands around the text; not set is as the bridge was trained."""
    max_new_tokens: PositiveInt = 64
    """Most tokens of an answer."""
    temperature: NonNegativeFloat = 0.0
    """0 is greedy; above, the answer is sampled."""
    llm_only: bool = False
    """The LLM reads the text itself, without the bridge."""

    def __post_init__(self) -> None:
        if self.mode == "paper" and self.prompt is not None:
            raise PalamError("the mode paper has no prompt; give --mode prompt or --mode chat")

    def generate_kwargs(self) -> dict[str, Any]:
        """The decoding settings as transformers names them."""
        if self.temperature == 0:
            return {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        return {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": True,
            "temperature": self.temperature,
        }


AnswerOptions = Annotated[AnswerConfig, Parameter(name="*", group=Group("Answers", sort_key=2))]
ANSWER_DEFAULTS = AnswerConfig()


def generate(
    checkpoint: Checkpoint,
    /,
    *,
    source: SourceOptions = None,
    answer: AnswerOptions = ANSWER_DEFAULTS,
    batch_size: PositiveInt = 16,
    config: ConfigFile = None,
    loading: SeededLoadingOptions = SEEDED_LOADING_DEFAULTS,
) -> None:
    """Let the LLM answer freely about texts.

    The answer to one text is streamed; rows of a file come out, in input order, with their answers.

    Args:
        batch_size: Texts at a time.
    """
    source = source or SourceConfig()
    with reserved_output(source):
        model = load_model(checkpoint, loading_as_begun(loading, source))
        _set_template(model, answer)
        if source.text is not None and source.out is None:
            _stream_answer(model, source, answer, loading.seed)
        else:
            job = _job(model, answer, batch_size, loading.seed)
            process_rows(model, source, job, batch_size=batch_size)


def _set_template(model: "PalamModel", answer: AnswerConfig) -> None:
    """Ask as the user wants to, where that is not as the bridge was trained."""
    if answer.prompt is None and answer.mode is None:
        return
    processor = model.processor
    trained_mode = processor.template.mode
    mode = answer.mode or ("prompt" if trained_mode == "paper" else trained_mode)
    template = processor.template
    processor.template = template.with_prompt(mode, answer.prompt, processor.llm_tokenizer)


def _stream_answer(
    model: "PalamModel", source: SourceConfig, answer: AnswerConfig, seed: int
) -> None:
    """Print the answer to one text while it is made."""
    from transformers import set_seed

    from palam.cli._streamer import AnswerStreamer

    llm_only = answer.llm_only or model.config.llm_only
    check_given_language(model, source, uses_encoder=not llm_only)
    chunk = one_text(source, TextForm.of(model.config.task, source))
    EncodingWatch().look_at(chunk)
    inputs = model.processor(chunk.texts, languages=chunk.languages, llm_only=llm_only)
    streamer = AnswerStreamer(model.processor.llm_tokenizer, skip_special_tokens=True)
    set_seed(seed)
    model.generate(**inputs, streamer=streamer, **answer.generate_kwargs())
    tell_what_was_lost(model)


def _job(model: "PalamModel", answer: AnswerConfig, batch_size: int, seed: int) -> RowJob:
    """Answering in this way."""
    from transformers import set_seed

    from palam.inference.generation import generate as generate_answers

    decoding = answer.generate_kwargs()
    sampling = {"seed": seed, "batch size": batch_size}
    llm_only = answer.llm_only or model.config.llm_only

    def answer_chunk(chunk: Chunk, progress: Progress | None) -> list[Row]:
        set_seed(seed + chunk.start)  # a run that goes on there draws the same numbers
        answers = generate_answers(
            model,
            chunk.texts,
            chunk.languages,
            llm_only=llm_only,
            batch_size=batch_size,
            progress=progress,
            **decoding,
        )
        return [{"answer": text} for text in answers]

    return RowJob(
        description="answering",
        results=("answer",),
        run=answer_chunk,
        identity={
            "command": "generate",
            "llm_only": llm_only,
            **decoding,
            **(sampling if answer.temperature else {}),
        },
        uses_encoder=not llm_only,
    )
