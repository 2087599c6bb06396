"""`palam generate`."""

from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeFloat, NonNegativeInt, PositiveInt

from palam.cli._engine import check_engine
from palam.cli._languages import check_given_language
from palam.cli._options import (
    SEEDED_ENGINE_LOADING_DEFAULTS,
    BestOf,
    Checkpoint,
    ConfigFile,
    GuidanceScale,
    SeededEngineLoadingOptions,
    load_model,
)
from palam.cli._scale import SCALE_DEFAULTS, ScaleOptions, read_source
from palam.cli._source import SourceConfig, SourceOptions, one_text
from palam.cli._text_notes import EncodingWatch, tell_what_was_lost
from palam.errors import PalamError
from palam.scale.work import Answering


@dataclass(frozen=True, kw_only=True)
class AnswerConfig:
    """What is asked, and how the answer is decoded.

    Raises:
        PalamError: a prompt for the mode that has none.
    """

    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """What to ask, with one {text} slot; not set is as the bridge was trained."""
    mode: Literal["paper", "prompt", "chat"] | None = None
    """What stands around the text; not set is as the bridge was trained, but chat for --prompt of a
    bridge that was trained on no task."""
    max_new_tokens: PositiveInt = 64
    """Most tokens of an answer."""
    temperature: NonNegativeFloat = 0.0
    """0 is greedy, as is what is below 1e-6; above, the answer is sampled."""
    no_repeat_ngram_size: NonNegativeInt = 0
    """No so many tokens in a row are said twice in an answer, for small models, which go round in
    circles; 0 is no limit."""
    guidance_scale: GuidanceScale | None = None
    """How far an answer keeps to the text, away from what the LLM would say without it; 1 is as it
    comes, in less time; not set is 1.5 where the text itself is wanted in English, as a general
    bridge does without --prompt, and 1 elsewhere."""
    best_of: BestOf = 1
    """Make so many answers to each text, and give the one that says most of it, as the encoder
    judges: for answers that say what the text says. With 8 it takes about four times as long. The
    answers are always the same, whatever the seed."""
    llm_only: bool = False
    """The LLM reads the text itself, without the bridge."""

    def __post_init__(self) -> None:
        self.work()

    def work(self, *, batch_size: int = 16, seed: int = 0) -> Answering:
        """What is done with each text.

        Args:
            batch_size: texts at a time.
            seed: of sampling.
        """
        return Answering(**asdict(self), batch_size=batch_size, seed=seed)


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
    loading: SeededEngineLoadingOptions = SEEDED_ENGINE_LOADING_DEFAULTS,
    scale: ScaleOptions = SCALE_DEFAULTS,
) -> None:
    """Let the LLM answer freely about texts.

    The answer to one text is streamed, but for the best of several; rows of a file come out, in
    input order, with their answers.
    Of many files, each becomes one of the folder --out; what is done there is not done again.

    Args:
        batch_size: Texts at a time; with --best-of, answers at a time.
    """
    source = source or SourceConfig()
    check_engine(loading.engine, loading.load_in)
    if loading.engine != "palam" and scale.workers != 1:
        raise PalamError("--engine vllm uses all cores in one process; leave --workers out")
    if loading.engine != "palam" and answer.best_of != 1:
        raise PalamError("--engine vllm gives one answer to a text; leave --best-of out")
    work = answer.work(batch_size=batch_size, seed=loading.seed)
    if source.text is None or source.out is not None:
        read_source(checkpoint, work, source, loading, scale)
        return
    scale.check(source)
    from palam.cli._streamer import print_answer

    model = load_model(checkpoint, loading)
    check_given_language(model, source, uses_encoder=work.uses_encoder(model.config))
    chunk = one_text(source, model.config.trained_task)
    EncodingWatch().look_at(chunk)
    print_answer(model, chunk, work)
    tell_what_was_lost(model)
