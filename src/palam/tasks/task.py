"""What a task is: which columns make its text, how the LLM is asked, and which words it may answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from string import Formatter

from palam.errors import PalamError
from palam.models.template import MODES

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@dataclass(slots=True)
class Example:
    """One labelled row: `row` counts the file's rows from 0, `fields` are its text columns as they stand."""

    row: int
    fields: dict[str, str]
    label: str


@dataclass(frozen=True)
class Hub:
    """Where a task lives on the Hugging Face hub; `{language}` in `config` and `splits` is the task's code.

    `splits` maps our names to the data set's; `columns` and `codes` (of languages) too, where they differ. `labels` are
    the task's labels in the order of the data set's integers, where that is not the task's own. -1 is no label.
    """

    id: str
    revision: str | None = None
    config: str | None = "{language}"
    splits: Mapping[str, str] = field(default_factory=_SPLITS.copy)
    columns: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: to label a text, or (`number`) to work out a number. A checkpoint can read every task of its family.

    Raises PalamError for a template whose slots are not the task's fields, and for no labels.
    """

    name: str
    family: str
    labels: Mapping[
        str, str
    ]  # the data's label: the words the LLM answers; in the order of integer labels
    prompt: str  # what the LLM reads in prompt and chat mode, with one {text} slot for the encoder's text
    text: str = "{text}"  # what the encoder reads in these modes, a format string over `fields`
    paper_text: str  # what the encoder reads in paper mode, where the LLM reads nothing else
    fields: tuple[str, ...] = ("text",)  # the columns that make the text
    label_column: str = "label"
    number: bool = False  # there are no labels: the answer is worked out in words and ends in a number, which counts
    languages: tuple[str, ...] = ()  # the task's own codes, authoritative
    passage_words: int | None = (
        None  # train on passages of so many words: English texts are longer than the others'
    )
    balance: bool = False  # train on as many rows of each label
    escaped: bool = False  # its texts hold escapes such as \\u2019 in place of characters
    parallel: bool = False  # row i of a split says the same in every language
    hub: Hub | None = None
    packaged: str | None = None  # the folder of this package that holds its data

    def __post_init__(self) -> None:
        for template in (self.text, self.paper_text):
            if slots(template) != set(self.fields):
                expected = " and ".join(f"{{{name}}}" for name in self.fields)
                raise PalamError(
                    f'task "{self.name}": the text template {template!r} must hold {expected}'
                )
        if self.prompt.count("{text}") != 1:
            raise PalamError(
                f'task "{self.name}": the prompt {self.prompt!r} must hold {{text}} once'
            )
        if not self.labels and not self.number:
            raise PalamError(f'task "{self.name}" has no labels')

    def render(self, example: Example | Mapping[str, str], mode: str = "prompt") -> str:
        """The text that the encoder reads, in one of `palam.models.template.MODES`."""
        if mode not in MODES:
            raise PalamError(f'unknown mode "{mode}": one of {", ".join(MODES)}')
        fields = example.fields if isinstance(example, Example) else example
        return (self.paper_text if mode == "paper" else self.text).format_map(fields)

    def answer(self, label: str) -> str:
        """What the LLM should say: the label's words, or the working without the marks of GSM8K's calculator."""
        return re.sub(r"<<.*?>>", "", label) if self.number else self.labels[label]

    def label_of(self, value: object) -> str | None:
        """The task's label that a label, its words (both in any case) or its integer means, or None.

        Integers are counted from 0, but not where the labels are numbers themselves.
        """
        text = str(value) if isinstance(value, str | int) else ""
        if text in self.labels or (self.number and text):
            return text
        numbers = any(label.isdigit() for label in self.labels)
        for number, (label, words) in enumerate(self.labels.items()):
            spellings = [label.casefold(), words.casefold(), *([] if numbers else [str(number)])]
            if text and text.casefold() in spellings:
                return label
        return None


def last_number(text: str) -> str | None:
    """The number that an answer comes to: the one after `####`, else the last; None if there is none.

    >>> last_number("She sold 48/2 = 24 clips.\\n#### 1,072.50"), last_number("It is 3 o'clock."), last_number("No.")
    ('1072.5', '3', None)
    """
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text.rpartition("####")[2] or text)
    if not found:
        return None
    number = found[0] if "####" in text else found[-1]
    return f"{Decimal(number.replace(',', '')).normalize():f}"


def slots(template: str) -> set[str]:
    """The names in a format string's slots."""
    try:
        return {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise PalamError(f"the template {template!r} is not a format string: {error}") from None
