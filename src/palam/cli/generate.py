"""`palam generate`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeFloat, PositiveInt

from palam.cli._options import (
    LOADING_DEFAULTS,
    Checkpoint,
    ConfigFile,
    LoadingOptions,
    check_language,
    load_model,
)
from palam.cli._output import RowWriter, open_rows
from palam.cli._source import (
    SourceConfig,
    SourceOptions,
    check_columns_free,
    read_chunks,
    row_progress,
)
from palam.errors import PalamError

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
    loading: LoadingOptions = LOADING_DEFAULTS,
) -> None:
    """Let the LLM answer freely about texts.

    The answer to one text is streamed; rows of a file come out, in input order, with their answers.

    Args:
        batch_size: Texts at a time.
    """
    source = source or SourceConfig()
    with open_rows(source.out, source.resume) as output:
        from transformers import set_seed

        model = load_model(checkpoint, loading)
        check_language(model, source.language)
        _set_template(model, answer)
        set_seed(loading.seed)
        if source.text is not None and source.out is None:
            _stream_answer(model, source, answer, output)
        else:
            _write_answers(model, source, answer, batch_size, output)


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
    model: "PalamModel", source: SourceConfig, answer: AnswerConfig, output: RowWriter
) -> None:
    """Print the answer to one text while it is made."""
    from palam.cli._streamer import AnswerStreamer

    (chunk,) = read_chunks(source, model.config.task, output)
    llm_only = answer.llm_only or model.config.llm_only
    inputs = model.processor(chunk.texts, languages=[source.language], llm_only=llm_only)
    streamer = AnswerStreamer(model.processor.llm_tokenizer, skip_special_tokens=True)
    model.generate(**inputs, streamer=streamer, **answer.generate_kwargs())


def _write_answers(
    model: "PalamModel",
    source: SourceConfig,
    answer: AnswerConfig,
    batch_size: int,
    output: RowWriter,
) -> None:
    from palam.inference.generation import generate as generate_answers

    with row_progress(source, "answering") as advance:
        for chunk in read_chunks(source, model.config.task, output):
            check_columns_free(chunk.rows, ("answer",))
            answers = generate_answers(
                model,
                chunk.texts,
                [source.language] * len(chunk.texts),
                llm_only=answer.llm_only,
                batch_size=batch_size,
                progress=advance,
                **answer.generate_kwargs(),
            )
            for row, text in zip(chunk.rows, answers, strict=True):
                output.write({**row, "answer": text})
