"""What a bridge was trained for, as its configuration keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from palam.errors import PalamError
from palam.utils.text_template import fill, slots
from palam.utils.texts import shown

MAX_LABELS = 100_000


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """The task of a bridge: what it answers, and how a row becomes the text that it reads."""

    name: str
    """The task's, or that of a file of one's own."""
    family: str
    """Tasks of one family have the same labels."""
    text: str
    """How a row's fields become the encoder's text: a template with a slot for each."""
    words_by_label: Mapping[str, str] = field(default_factory=dict)
    """Each label of the data, with the words that the LLM answers; may be none."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Of a file of one's own: the user's columns by the slots of the text, and by `label`."""
    label_type: str = "str"
    """The type of the labels that [`PalamClassifier`] was fitted with, by its Python name."""

    @property
    def slots(self) -> set[str]:
        """The names in the text's slots."""
        return slots(self.text)

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """From the content of a `config.json`, which may be anyone's.

        Raises:
            PalamError: it is no record of a task; the message names the part.
        """
        if not isinstance(content, Mapping):
            raise PalamError(f"task is {shown(content)}, not a mapping")
        text = _text_in(content, "text")
        if not slots(text):
            raise PalamError(f"the task's text {shown(text)} has no slot, such as {{text}}")
        return cls(
            name=_text_in(content, "name"),
            family=_text_in(content, "family"),
            text=text,
            words_by_label=_words_by_label(content.get("labels")),
            columns=_columns(content.get("columns", {})),
            label_type=_text_in({"label_type": "str", **content}, "label_type"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json`; what is as usual is left out."""
        content: dict[str, Any] = {
            "name": self.name,
            "family": self.family,
            "labels": [[label, words] for label, words in self.words_by_label.items()],
            "text": self.text,
        }
        if self.columns:
            content["columns"] = dict(self.columns)
        if self.label_type != "str":
            content["label_type"] = self.label_type
        return content


def text_alone(task: TaskRecord | None, text: str) -> str:
    """What the encoder reads of a text that stands in no row.

    Args:
        task: that the bridge was trained for, or None.
        text: of a user.

    Returns:
        The text in the task's form, or as it is where that needs several texts.
    """
    if task is None:
        return text
    names = task.slots
    return fill(task.text, dict.fromkeys(names, text)) if len(names) == 1 else text


def _text_in(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        raise PalamError(f"the task's {name} is {shown(value)}, not a text")
    return value


def _words_by_label(pairs: Any) -> dict[str, str]:
    if not isinstance(pairs, list) or not all(_is_label(pair) for pair in pairs):
        raise PalamError("the task's labels are no list of pairs of a label and its words")
    if len(pairs) > MAX_LABELS:
        raise PalamError(f"the task has {len(pairs):,} labels; it may have {MAX_LABELS:,}")
    words_by_label = dict(pairs)
    if len(words_by_label) < len(pairs):
        raise PalamError("the task has two labels of one name")
    return words_by_label


def _is_label(label: Any) -> bool:
    return (
        isinstance(label, list) and len(label) == 2 and all(isinstance(part, str) for part in label)
    )


def _columns(columns: Any) -> dict[str, str]:
    if not isinstance(columns, dict) or not all(isinstance(name, str) for name in columns.values()):
        raise PalamError("the task's columns are no mapping of fields to names")
    return columns
