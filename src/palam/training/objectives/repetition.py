"""The text again: what crosses the bridge must be enough to say it."""

from collections.abc import Sequence

from palam.models.processing import PalamProcessor
from palam.models.template import SAME_IN_ENGLISH, Template
from palam.tasks.sampling import passage
from palam.training.datasets import Features, seeded_number
from palam.training.objectives.base import Objective, RawTexts
from palam.training.objectives.prompts import CHAT_PROMPTS, PLAIN_PROMPTS

PLAIN_FROM = 60
"""Of a hundred rows, those before this one have the first prompt."""
CHAT_FROM = 88
"""Those from this one have a chat's prompt, if the LLM has a chat template; the others plain ones.
A chat's turns cost more tokens than a text."""
PASSAGE_WORDS = 24
"""Of a text that is too long to be said at once, at least so many words are read."""
MOST_WORDS = 48
"""A text of more words is too long."""


class Repetition(Objective):
    """Say the text in English: the answer is the text itself.

    The prompt is drawn anew in each epoch, plain or in the LLM's chat. Of a text of more than
    `MOST_WORDS` words, a passage of whole sentences is read, and of that `MOST_WORDS` at most;
    another one in each epoch.
    """

    def __init__(self, source: RawTexts) -> None:
        super().__init__(source)
        tokenizer = source.processor.llm_tokenizer
        own = source.processor.template
        self._first = source.processor.with_template(
            Template.build("prompt", SAME_IN_ENGLISH, tokenizer)
        )
        self._plain = []
        for prompt in PLAIN_PROMPTS:
            template = Template.build("prompt", prompt, tokenizer)
            self._plain.append(source.processor.with_template(template))
        self._chat = []
        if getattr(tokenizer, "chat_template", None):
            for prompt in CHAT_PROMPTS:
                template = own.with_prompt("chat", prompt, tokenizer)
                self._chat.append(source.processor.with_template(template))

    def length(self, index: int, epoch: int) -> int:
        """See [`Objective.length`]: a chat's turns are longer than a plain prompt."""
        kind, number = self._prompt_of(index, epoch)
        template = self._processors(kind)[number].template
        around = len(template.prefix) + len(template.suffix)
        return 2 * len(self.source.texts[index]) + around  # it is read and said

    def rows(self, indices: Sequence[int], epoch: int) -> list[Features]:
        """See [`Objective.rows`]."""
        processors = []
        for index in indices:
            kind, number = self._prompt_of(index, epoch)
            processors.append(self._processors(kind)[number])
        pieces = [self._piece(index, epoch) for index in indices]
        return self.asked(processors, pieces, pieces, indices, epoch)

    def _processors(self, kind: str) -> list[PalamProcessor]:
        return {"first": [self._first], "plain": self._plain, "chat": self._chat}[kind]

    def _prompt_of(self, index: int, epoch: int) -> tuple[str, int]:
        """The kind of a row's prompt in an epoch, and its number among these."""
        number = seeded_number("prompt", self.source.seed, epoch, index)
        number, hundredth = divmod(number, 100)
        kind = "first"
        if hundredth >= PLAIN_FROM:
            kind = "chat" if self._chat and hundredth >= CHAT_FROM else "plain"
        return kind, number % len(self._processors(kind))

    def _piece(self, index: int, epoch: int) -> str:
        """The text, or a passage of it."""
        text = self.source.texts[index]
        if len(text.split()) <= MOST_WORDS:
            return text
        number = seeded_number("passage", self.source.seed, epoch, index)
        words = passage(text, PASSAGE_WORDS, number).split()
        return " ".join(words[:MOST_WORDS])
