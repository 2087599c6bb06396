"""What a task is: the columns that make its text, the LLM's prompt, and the possible answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from palam.errors import PalamError
from palam.models.template import MODES, SLOT
from palam.tasks.labels import is_number, label_key, label_text, without_fraction
from palam.tasks.numbers import last_number as last_number
from palam.utils.text_template import fill
from palam.utils.text_template import slots as slots

QUESTION = "{question}"
"""What stands in a prompt in the place of a row's own question."""
VARIANTS = " / "
"""What stands between the answers to a question that are all right."""

CUSTOM_FAMILY = "custom"
"""Of tasks that are made of somebody's own file or texts."""
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@dataclass(slots=True)
class Example:
    """One labelled row of a task's data.

    Attributes:
        row: the row's number in its file, from 0.
        fields: its text columns by name, unchanged; of a task of questions also the `question` and
            what is `wrong`.
        label: one of the task's labels; of a task without labels, the answer.
    """

    row: int
    fields: dict[str, str]
    label: str


@dataclass(frozen=True)
class Hub:
    """Where a task's data is on the Hugging Face hub.

    Attributes:
        id: of the data set.
        revision: branch, tag or commit; default the main branch.
        config: the data set's configuration; `{language}` in it is the task's code of the language.
        splits: the data set's splits by Palam's names (train, dev, test); with `{language}` as in
            `config`.
        columns: the data set's columns by the task's fields (and `label`), where they differ.
        codes: the data set's language codes by the task's, where they differ.
        labels: the task's labels in the order of the data set's integers, where that is not the
            task's own order.
    """

    id: str
    revision: str | None = None
    config: str | None = "{language}"
    splits: Mapping[str, str] = field(default_factory=HUB_SPLITS.copy)
    columns: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: to label a text, to work out a number, to say a text in English, or to answer.

    A checkpoint that was trained on one task can be evaluated on every task of the same family.

    Attributes:
        name: as commands and checkpoints name it.
        family: tasks of one family share labels, prompt and text.
        labels: the words that the LLM answers, by the data's label; in the order of integer labels.
        prompt: what the LLM reads in the modes prompt and chat, with one `{text}` slot, where the
            encoder's text comes in; with a `{question}` if the task has questions.
        text: what the encoder reads in these modes: a template over `fields`, see [`fill`].
        paper_text: what the encoder reads in paper mode, where the LLM reads nothing else.
        fields: the columns that make the text.
        label_column: the column of the labels.
        number: there are no labels; the answer is worked out in words, and the number at its end
            is what counts.
        reference_language: there are no labels; the answer is the text of the same row in this
            language, with which what the LLM says is compared.
        questions: there are no labels; this file beside the texts has questions about them, each
            with the answers that are right.
        languages: the task's own language codes.
        passage_words: train on passages of so many words, where the English texts are longer than
            those of other languages.
        balance: train on as many rows of each label.
        settings: other settings of training that are known to be good for it, by name; they count
            where the user gives none, see [`task_settings`].
        escaped: the texts hold escapes such as `\\u2019` in place of characters.
        parallel: row i of a split is the same text in every language.
        hub: where its data is on the hub.
        packaged: the folder with its data, relative to the package `palam.tasks`.
        data_of: the task whose folder its data is in; None is its own.

    Raises:
        PalamError: a template whose slots are not the task's fields, or no labels.
    """

    name: str
    family: str
    labels: Mapping[str, str]
    prompt: str
    text: str = "{text}"
    paper_text: str
    fields: tuple[str, ...] = ("text",)
    label_column: str = "label"
    number: bool = False
    reference_language: str | None = None
    questions: str | None = None
    languages: tuple[str, ...] = ()
    passage_words: int | None = None
    balance: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    escaped: bool = False
    parallel: bool = False
    hub: Hub | None = None
    packaged: str | None = None
    data_of: str | None = None

    def __post_init__(self) -> None:
        for template in (self.text, self.paper_text):
            self._check_slots(template)
        if self.prompt.count(SLOT) != 1:
            raise PalamError(
                f'task "{self.name}": the prompt {self.prompt!r} must hold {SLOT} once'
            )
        if self.questions and QUESTION not in self.prompt:
            raise PalamError(f'task "{self.name}": the prompt {self.prompt!r} must hold {QUESTION}')
        if not self.labels and not self.has_free_answers:
            raise PalamError(f'task "{self.name}" has no labels')

    @property
    def has_free_answers(self) -> bool:
        """Whether the LLM answers in words of its own; such a task has no labels."""
        return bool(self.number) or self.is_answered_in_words

    @property
    def is_answered_in_words(self) -> bool:
        """Whether these are words, about a text, not a number."""
        return bool(self.reference_language or self.questions)

    def _check_slots(self, template: str) -> None:
        if slots(template) != set(self.fields):
            expected = " and ".join(f"{{{name}}}" for name in self.fields)
            raise PalamError(
                f'task "{self.name}": the text template {template!r} must hold {expected}'
            )

    def render(self, example: Example | Mapping[str, str], mode: str = "prompt") -> str:
        """The text that the encoder reads.

        Args:
            example: an example, or its fields.
            mode: one of [`MODES`].

        Raises:
            PalamError: another mode.
        """
        if mode not in MODES:
            raise PalamError(f'unknown mode "{mode}": one of {", ".join(MODES)}')
        template = self.paper_text if mode == "paper" else self.text
        fields = example.fields if isinstance(example, Example) else example
        return fill(template, fields)

    def prompt_of(self, example: Example) -> str:
        """The prompt with which a row is read: the task's, with the row's question in it."""
        question = example.fields.get("question", QUESTION)
        return self.prompt.replace(QUESTION, question.replace(SLOT, "( text )"))

    def answer(self, label: str) -> str:
        """The LLM's right answer: the label's words; for a task of numbers, the whole solution.

        The marks of GSM8K's calculator (`<<48/2=24>>`) are left out of a solution. Of several
        answers that are right, it is the first.
        """
        if self.number:
            return re.sub(r"<<.*?>>", "", label)
        if self.questions:
            return label.split(VARIANTS)[0]
        if self.reference_language:
            return label
        return self.labels[label]

    def label_of(self, value: object) -> str | None:
        """The task's label that a value of the label column means, or None.

        Args:
            value: a label or its words (both in any case, space and normal form), or its number in
                the order of the labels, from 0. Where the labels are numbers themselves, or those
                of somebody's own file, that is not counted. Whole numbers may be floats, or their
                text: `1.0`.
        """
        text = label_text(value)
        if text in self.labels:
            return text
        if not text or self.has_free_answers:
            return text or None
        number = without_fraction(text)
        key = label_key(number)
        for label, words in self.labels.items():
            if key in (label_key(without_fraction(label)), label_key(words)):
                return label
        has_numbers = any(is_number(label) for label in self.labels)
        # In whose order the numbers of somebody's own file would count, nobody can know.
        if not has_numbers and self.family != CUSTOM_FAMILY:
            for index, label in enumerate(self.labels):
                if number == str(index):
                    return label
        return None
