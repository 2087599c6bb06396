"""The quickstart's first page: what sentences say in English, through the bridge of the package."""

from collections.abc import Mapping, Sequence

from palam.inference.generation import SHORT_ANSWER_NGRAM_SIZE, default_guidance, generate
from palam.inference.reading_metrics import first_line
from palam.models.bases import Bases
from palam.models.modeling import PalamModel
from palam.quickstart.result import ReadSentence
from palam.starter.sources import BRIDGE
from palam.tasks.task import Example

MAX_NEW_TOKENS = 32
"""Of an answer."""


def read_sentences(
    bases: Bases, rows: Mapping[str, Sequence[Example]], english: str
) -> list[ReadSentence]:
    """Read a sentence of each language with the package's bridge, and with the LLM alone.

    The sentences are not chosen: the first language's first one, the second's second, and so on.
    Both are asked with the bridge's own prompt, all languages in one batch.

    Args:
        bases: the starter models.
        rows: by language, in parallel; English too.
        english: the code of English, which is not read.
    """
    codes = [code for code in rows if code != english]
    chosen = [rows[code][number % len(rows[code])] for number, code in enumerate(codes)]
    translations = {example.row: example.fields["text"] for example in rows[english]}
    texts = [example.fields["text"] for example in chosen]
    model = PalamModel.from_pretrained(BRIDGE, bases.encoder, bases.llm)
    through_bridge = _answers(model, texts, codes, llm_only=False)
    alone = _answers(model, texts, codes, llm_only=True)
    return [
        ReadSentence(
            language=code,
            text=example.fields["text"],
            english=translations.get(example.row),
            bridge=answer,
            llm_alone=answer_alone,
        )
        for code, example, answer, answer_alone in zip(
            codes, chosen, through_bridge, alone, strict=True
        )
    ]


def _answers(
    model: PalamModel, texts: Sequence[str], codes: Sequence[str], *, llm_only: bool
) -> list[str]:
    """The first line of each greedy answer."""
    answers = generate(
        model,
        texts,
        codes,
        llm_only=llm_only,
        batch_size=len(texts),
        max_new_tokens=MAX_NEW_TOKENS,
        no_repeat_ngram_size=SHORT_ANSWER_NGRAM_SIZE,
        guidance_scale=default_guidance(model, llm_only=llm_only),
    )
    return [first_line(answer) for answer in answers]
