"""A look at data before a model is trained on them: what there is, and what is doubtful."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from palam.errors import PalamError
from palam.tasks.formats import shortened
from palam.tasks.labels import has_no_label, label_key, label_text, similar_labels
from palam.tasks.loading import task_from_file
from palam.tasks.readers import NumberedRow, RowSource, text_of
from palam.tasks.sampling import digests_of
from palam.tasks.scripts import NO_SCRIPT, count_scripts, language_of_script
from palam.utils.languages import find_language, language_name
from palam.utils.legacy_encoding import legacy_encoding
from palam.utils.text_template import fill, slots

if TYPE_CHECKING:
    from palam.models.processing import TextStats

USUAL_ROWS_PER_LABEL = 50
"""So many rows of each label or more are usual."""
USUAL_ROWS = 200
"""So many rows in all or more are usual."""
LEAST_ROWS_PER_LABEL = 2
"""One to train on and one to validate on."""
MOST_OF_ONE_LABEL = 0.9
"""With a larger share of one label, guessing it is hard to beat."""
LIKELY_LABELS = 0.25
"""With more labels than this share of the rows, the column probably holds no labels."""
LEAST_ROWS_OF_A_WRONG_COLUMN = 10
"""If so many rows or more have a label of their own each, the column holds no labels."""
SAMPLED_TEXTS = 2000
"""So many texts are looked at for their scripts."""
LEAST_SHARE = 0.01
"""A script of a smaller share of the texts is not shown."""
MOST_CUT = 0.05
"""A larger share of cut texts is doubtful."""
MOST_UNKNOWN = 0.01
"""A larger share of unknown tokens is doubtful."""
MARK = "! "
"""In front of a line about something doubtful."""


@dataclass(frozen=True, kw_only=True)
class EncoderView:
    """How texts look to an encoder's tokenizer."""

    texts: int
    cut: int
    """Texts that are longer than `max_length`."""
    max_length: int
    """In tokens, special ones included."""
    unknown_share: float
    """Share of the tokens that are the encoder's unknown token."""

    @classmethod
    def of(cls, stats: Iterable["TextStats"], max_length: int) -> "EncoderView | None":
        """From what a processor has counted; None if it has counted nothing."""
        counted = [language for language in stats if language.texts]
        if not counted:
            return None
        num_tokens = sum(language.tokens for language in counted)
        return cls(
            texts=sum(language.texts for language in counted),
            cut=sum(language.cut for language in counted),
            max_length=max_length,
            unknown_share=sum(language.unknown for language in counted) / max(1, num_tokens),
        )

    def line(self) -> str:
        """Both figures in words."""
        return (
            f"{self.cut:,} of {self.texts:,} texts ({_percent(self.cut, self.texts)}) are cut at "
            f"{self.max_length} tokens; {self.unknown_share:.2%} of the tokens are unknown to the "
            "encoder"
        )

    @property
    def is_doubtful(self) -> bool:
        """Whether so much is lost that it is likely to be felt."""
        return self.cut > MOST_CUT * self.texts or self.unknown_share > MOST_UNKNOWN


@dataclass(kw_only=True)
class Inspection:
    """What data hold; see [`inspect_texts`]."""

    source: str
    """Where they are from."""
    rows: int
    labels: dict[str, int] | None
    """How often each label is there; None without labels."""
    unlabelled: int
    """Rows without a gold label."""
    empty: int
    """Rows whose text is empty."""
    repeated: int
    """Rows whose text stands in an earlier row too, but for case, space and normal form."""
    contradictory: int
    """Rows whose text stands in another row with another label."""
    similar_labels: list[list[str]]
    """Labels that differ only in case or space."""
    median_words: int
    most_words: int
    scripts: dict[str, int]
    """How many texts are mostly written in each script; of a sample, where there are many."""
    held_out: int | None = None
    """Rows for validation."""
    shared: int | None = None
    """Of these, the rows whose text is trained on."""
    notes: list[str] = field(default_factory=list)
    """Lines about what was found while the data were read, each of them a problem."""
    language: str | None = None
    """The code of the language that the texts are taken for; None is not known."""
    legacy_encoding: str | None = None
    """A line, where the texts are plainly not in Unicode."""
    encoder: EncoderView | None = None
    """Where a tokenizer was at hand."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with `problems`."""
        return {**asdict(self), "problems": self.problems()}

    def lines(self) -> list[str]:
        """All of it in a few lines; those about problems begin with [`MARK`]."""
        lines = [f"{self.source}: {_rows(self.rows)}{self._held_out_in_words()}"]
        if self.labels:
            listed = [f"{label} {count:,}" for label, count in self.labels.items()]
            lines.append(f"labels ({len(listed):,}): {shortened(listed)}")
        lines.append(
            f"texts: {self.median_words:,} words (median), {self.most_words:,} at most; "
            f"{self._scripts_in_words()}"
        )
        if self.encoder is not None and not self.encoder.is_doubtful:
            lines.append(self.encoder.line())
        return lines + [f"{MARK}{problem}" for problem in self.problems()]

    def problems(self) -> list[str]:
        """What is doubtful, a line each."""
        problems = list(self.notes)
        if self.empty:
            problems.append(f"empty texts: {_rows(self.empty)}")
        if self.repeated:
            problems.append(f"texts that a row before has too: {_rows(self.repeated)}")
        if self.contradictory:
            problems.append(f"texts with several labels: {_rows(self.contradictory)}")
        if self.labels is not None:
            problems += self._label_problems(self.labels)
        problems += self._language_problems()
        if self.legacy_encoding is not None:
            problems.append(self.legacy_encoding)
        if self.encoder is not None and self.encoder.is_doubtful:
            problems.append(self.encoder.line())
        return problems

    def _label_problems(self, labels: Mapping[str, int]) -> list[str]:
        num_labelled = sum(labels.values())
        if num_labelled < LEAST_ROWS_PER_LABEL * len(labels) or len(labels) < 2:
            return []  # it is refused, which is said elsewhere
        problems = []
        if len(labels) > LIKELY_LABELS * num_labelled:
            problems.append(
                f"{len(labels):,} labels for {_rows(num_labelled)}: the column holds no labels, or "
                "there are too few rows"
            )
        elif num_labelled < USUAL_ROWS:
            problems.append(f"few labelled rows: {num_labelled:,}; {USUAL_ROWS} or more are usual")
        rare = {name: count for name, count in labels.items() if count < USUAL_ROWS_PER_LABEL}
        if rare and not problems:
            listed = shortened(f"{name} {count}" for name, count in rare.items())
            problems.append(
                f"few rows of: {listed}; {USUAL_ROWS_PER_LABEL} or more of each label are usual"
            )
        label = max(labels, key=lambda name: labels[name])
        if labels[label] > MOST_OF_ONE_LABEL * num_labelled:
            share = _percent(labels[label], num_labelled)
            problems.append(f"{share} of the rows have the label {label!r}: guessing it is as good")
        return problems

    def _language_problems(self) -> list[str]:
        """Say so if most texts are in a script that their language is not written in."""
        language = find_language(self.language) if self.language else None
        if language is None or not self.scripts:
            return []
        script, count = next(iter(self.scripts.items()))
        is_unknown = script == NO_SCRIPT or language.script.startswith((script, "Japanese", "Han"))
        if is_unknown or 2 * count < sum(self.scripts.values()):
            return []
        return [
            f"the texts are taken for {language_name(language.code)}, but most are in the "
            f"{script} script; name their language with --language"
        ]

    def _held_out_in_words(self) -> str:
        if self.held_out is None:
            return ""
        return f", {self.held_out:,} of them for validation"

    def _scripts_in_words(self) -> str:
        """The scripts with their shares; and the language, where a script tells it."""
        total = sum(self.scripts.values())
        parts = []
        for script, count in self.scripts.items():
            if count < LEAST_SHARE * total:
                continue
            share = "" if count == total else f" {_percent(count, total)}"
            language = language_of_script(script)
            named = script
            if script != NO_SCRIPT:
                named += " script" if language in (None, script) else f" script ({language})"
            parts.append(f"{named}{share}")
        return ", ".join(parts) or NO_SCRIPT


def inspect_texts(
    source: str,
    texts: Sequence[str],
    labels: Sequence[str | None] | None = None,
    *,
    language: str | None = None,
    notes: Iterable[str] = (),
) -> Inspection:
    """Look at texts and their labels; no model is needed.

    Args:
        source: where they are from, for the first line.
        texts: of every row; they are asked for several times and not kept.
        labels: of every row, None where it has no gold label; None is data without labels.
        language: what the texts are taken for; None is not known.
        notes: lines about what was found while the data were read.
    """
    counts: Counter[str] | None = None
    if labels is not None:
        counts = Counter(label for label in labels if label is not None)
    repetition = _Repetition.of(texts, labels)
    lengths = [len(text.split()) for text in texts]
    written = [row for row, length in enumerate(lengths) if length]
    sample = [texts[row] for row in written[:: max(1, len(written) // SAMPLED_TEXTS)]]
    return Inspection(
        source=source,
        rows=len(texts),
        labels=None if counts is None else dict(counts.most_common()),
        unlabelled=0 if labels is None else list(labels).count(None),
        empty=sum(not length for length in lengths),
        repeated=repetition.repeated,
        contradictory=repetition.contradictory,
        similar_labels=similar_labels(counts or {}),
        median_words=int(median(lengths)) if lengths else 0,
        most_words=max(lengths, default=0),
        scripts=count_scripts(sample),
        notes=list(notes),
        language=language,
        legacy_encoding=legacy_encoding(sample, language),
    )


@dataclass(frozen=True)
class _Repetition:
    """Texts that stand in several rows."""

    repeated: int
    contradictory: int

    @classmethod
    def of(cls, texts: Sequence[str], labels: Sequence[str | None] | None) -> "_Repetition":
        """Count them; empty texts are not among them."""
        digests = digests_of(label_key(text) for text in texts)
        has_text = digests != digests_of([""])
        digests = digests[has_text]
        unique_texts, number_of = np.unique(digests, return_inverse=True)
        repeated = len(digests) - len(unique_texts)
        if labels is None:
            return cls(repeated, contradictory=0)
        codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
        row_codes = np.array([codes[label] for label in labels], np.int64)[has_text]
        is_labelled = row_codes != codes.get(None, -1)
        pairs = np.stack([number_of[is_labelled], row_codes[is_labelled]])
        text_of_pair = np.unique(pairs, axis=1)[0]
        labels_of_text = np.bincount(text_of_pair, minlength=len(unique_texts))
        contradictory = int((labels_of_text[number_of] > 1).sum())
        return cls(repeated, contradictory)


class StoredRows(RowSource):
    """The rows of a source in memory, from which they can be read any number of times.

    Args:
        source: is read once.
    """

    def __init__(self, source: RowSource) -> None:
        self.path = source.path
        self.name = source.name
        self.is_stream = False
        self.stored = list(source.rows())

    def rows(self, *, column: str | None = None) -> Iterator[NumberedRow]:
        """See [`RowSource.rows`]."""
        return iter(self.stored)


class InspectedFile(NamedTuple):
    """A file's texts, one a row, and the look at it."""

    texts: list[str]
    inspection: Inspection


def inspect_file(
    source: RowSource,
    *,
    text_column: str = "text",
    label_column: str | None = None,
    merge_labels: bool = False,
    language: str | None = None,
) -> "InspectedFile":
    """Look at a file, with labels or without, as [`task_from_file`] would read it.

    What that would refuse is a problem here.

    Args:
        source: the file.
        text_column: a column's name, or a template over several.
        label_column: the labels' column; None is `label` where there is such a column.
        merge_labels: see [`task_from_file`].
        language: what the texts are taken for; None is not known.

    Raises:
        PalamError: the file cannot be read or is empty, or no row has a column that is named.
    """
    stored = StoredRows(source)
    if not stored.stored:
        raise PalamError(f"{source.name} is empty")
    notes: list[str] = []
    texts = _texts(stored, text_column, notes)
    if label_column is None and not _has_column(stored, "label"):
        notes.append(
            'no column "label", so the texts are looked at alone; name the column of labels with '
            "--label-column"
        )
        inspection = inspect_texts(source.name, texts, language=language, notes=notes)
        return InspectedFile(texts, inspection)
    column = label_column or "label"
    if not _has_column(stored, column):
        raise _no_column(stored, column, "--label-column")
    labels = _raw_labels(stored, column)
    try:
        _, examples = task_from_file(
            stored,
            text_column=text_column,
            label_column=column,
            merge_labels=merge_labels,
            notes=notes,
        )
        for example in examples:
            labels[example.row] = example.label
        check_trainable(source.name, Counter(example.label for example in examples))
    except PalamError as error:
        notes.append(f"palam train refuses these data: {error}")
    inspection = inspect_texts(source.name, texts, labels, language=language, notes=notes)
    return InspectedFile(texts, inspection)


def _texts(stored: StoredRows, text_column: str, notes: list[str]) -> list[str]:
    """The text of every row; empty where it has none, which is noted.

    Raises:
        PalamError: a column that no row has.
    """
    template = text_column if "{" in text_column else "{text}"
    columns = {slot: slot for slot in slots(template)}
    if template != text_column:
        columns = {"text": text_column}
    for column in columns.values():
        if not _has_column(stored, column):
            raise _no_column(stored, column, "--text-column")
    texts = []
    refusals = []
    for place, row in stored.stored:
        try:
            fields = {slot: text_of(row, column, place) for slot, column in columns.items()}
            texts.append(fill(template, fields))
        except PalamError as error:
            refusals.append(str(error))
            texts.append("")
    if refusals:
        notes.append(f"no text: {_rows(len(refusals))}; the first: {refusals[0]}")
    return texts


def _has_column(stored: StoredRows, column: str) -> bool:
    return any(column in row for _, row in stored.stored)


def _no_column(stored: StoredRows, column: str, option: str) -> PalamError:
    """A column that no row has; `option` names another."""
    columns = shortened(stored.stored[0].row)
    return PalamError(
        f'{stored.name}: no column "{column}" among {columns}; name one with {option}'
    )


def _raw_labels(stored: StoredRows, column: str) -> list[str | None]:
    """The labels as they are written, of data that [`task_from_file`] does not take."""
    labels: list[str | None] = []
    for _, row in stored.stored:
        value = row.get(column)
        labels.append(None if has_no_label(value) else label_text(value))
    return labels


def check_trainable(source: str, labels: Mapping[str, int]) -> None:
    """Refuse data from which no label can be learned and validated.

    Args:
        source: where they are from, for the message.
        labels: how often each of them is there.

    Raises:
        PalamError: fewer rows than twice the labels.
    """
    num_rows = sum(labels.values())
    if num_rows >= LEAST_ROWS_PER_LABEL * len(labels):
        return
    if len(labels) == num_rows and num_rows >= LEAST_ROWS_OF_A_WRONG_COLUMN:
        raise PalamError(
            f"{source}: {num_rows} rows with {num_rows} different labels; that column holds no "
            "labels: name another with --label-column"
        )
    raise PalamError(
        f"{source}: {num_rows} rows are too few for {len(labels)} labels; "
        f"{LEAST_ROWS_PER_LABEL} of each are the least, {USUAL_ROWS_PER_LABEL} or more are usual"
    )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _percent(count: int, total: int) -> str:
    share = count / max(1, total)
    if 0 < share < 0.01:
        return f"{share:.1%}"
    return f"{share:.0%}"
