"""From texts to the two token sequences: the encoder's, and the LLM's with a slot for the text."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature
from transformers.utils.hub import cached_file

from palam.errors import PalamError
from palam.models.backbones.loading import load_tokenizer, readable_errors, source_options
from palam.models.configuration import PalamConfig
from palam.models.encoder_text import EncodedText, EncoderText
from palam.models.joined_tokens import OPTIONS, join_tokens, text_span
from palam.models.model_config import DEFAULT_MAX_LENGTH, LEAST_MAX_LENGTH
from palam.models.template import Template, clean
from palam.models.tokenization import (
    EARLIER_TOKENIZATION,
    TOKENIZATION,
    TOKENIZATIONS,
    LLMTokenization,
)
from palam.starter.resolve import resolve

TEXT_SLOT = -1
"""The id in `input_ids` at which the mapped text and the boundary are put in."""
IGNORE = -100
"""The label of a token without loss."""
CONFIG_NAME = "processor_config.json"
SETTINGS = (
    "encoder",
    "encoder_revision",
    "llm",
    "llm_revision",
    "max_length",
    "llm_only_max_length",
    "append_source_tokens",
    "tokenization",
    "second_encoder",
    "second_encoder_revision",
    "second_max_length",
)
"""What is saved, beside the template."""
READING_SETTINGS = (
    "max_length",
    "append_source_tokens",
    "tokenization",
    "second_max_length",
)
"""Those by which the same text becomes other inputs of the models."""
LATER_SETTINGS = {
    "encoder_revision": None,
    "llm_revision": None,
    "append_source_tokens": False,
    "tokenization": EARLIER_TOKENIZATION,
    "second_encoder": None,
    "second_encoder_revision": None,
    "second_max_length": 2 * DEFAULT_MAX_LENGTH,
}
"""Settings that files of before 0.1.0 may lack, and what that means."""
RENAMED = {"direct_max_length": "llm_only_max_length", "augment": "append_source_tokens"}
"""Names in files of before 0.1.0, and what they are called now."""

WRONG_CONTENT = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a file raises that holds something else."""
ANSWER_ROOM = 64
"""Tokens that are left for an answer where an LLM has a limited number of positions."""

LanguageCodes = Sequence[str | None] | None
"""One code per text, each any of [`find_language`]'s or None; or None for all."""
Features = dict[str, list[int]]
"""One text's ids, not padded."""
Answer = str | Sequence[int]
"""An answer in words, or the LLM's own ids of it without its end."""


@dataclass
class TextStats:
    """What happened to one language's texts on their way into a model."""

    texts: int = 0
    cut: int = 0
    """Texts that were longer than the longest allowed."""
    tokens: int = 0
    unknown: int = 0
    """Tokens that are the encoder's unknown token; not counted for the LLM."""

    @property
    def unknown_share(self) -> float:
        """Share of the encoder's tokens that are its unknown token."""
        return self.unknown / max(self.tokens, 1)


# ------------------------------------------------------------------ the processor
@dataclass(eq=False, repr=False)
class PalamProcessor:
    """Tokenises for both models and builds the LLM's sequence from the template.

    Args:
        encoder_tokenizer, llm_tokenizer: the tokenizers of the two base models.
        encoder, llm, encoder_revision, llm_revision: where they are from, recorded when saving.
        template: what stands around the text.
        max_length: most encoder tokens of a text, special tokens included. The text is cut, never
            the template or the answer.
        llm_only_max_length: most LLM tokens of a text that the LLM reads itself.
        append_source_tokens: the LLM reads the text's own tokens too, after the mapped ones
            (MindMerger, arXiv 2405.17386).
        tokenization: version of the LLM's tokenisation, one of `TOKENIZATIONS`; checkpoints that
            say none have 1, new ones 2.
        llm_positions: how many tokens the LLM can read at all, if it has a table of positions
            (GPT-2); such a text is cut so that prompt and answer have room. None is no limit. It is
            not saved.
        second_tokenizer: of the second encoder, if there is one. Both must be fast.
        second_encoder, second_encoder_revision: where that is from, recorded when saving.
        second_max_length: most of its tokens of a text, of which it reads what the first does.

    Attributes:
        stats: a [`TextStats`] per language of the texts that the encoder read so far ("" is no
            language).
        llm_stats: the same of the texts that the LLM read itself.

    Raises:
        PalamError: a `max_length` below 8, a tokenisation that is not known, or two encoders of
            which one has a slow tokenizer.
    """

    encoder_tokenizer: Any
    llm_tokenizer: Any
    _: KW_ONLY
    encoder: str = ""
    llm: str = ""
    encoder_revision: str | None = None
    llm_revision: str | None = None
    template: Template = field(default_factory=Template)
    max_length: int = DEFAULT_MAX_LENGTH
    llm_only_max_length: int = 2048
    append_source_tokens: bool = False
    tokenization: int = TOKENIZATION
    llm_positions: int | None = None
    second_tokenizer: Any = None
    second_encoder: str | None = None
    second_encoder_revision: str | None = None
    second_max_length: int = 2 * DEFAULT_MAX_LENGTH
    stats: dict[str, TextStats] = field(init=False, default_factory=lambda: defaultdict(TextStats))
    llm_stats: dict[str, TextStats] = field(
        init=False, default_factory=lambda: defaultdict(TextStats)
    )

    def __post_init__(self) -> None:
        if self.max_length < LEAST_MAX_LENGTH:
            raise PalamError(
                f"max_length is {self.max_length}; it must be at least {LEAST_MAX_LENGTH}"
            )
        if self.tokenization not in TOKENIZATIONS:
            raise PalamError(
                f"tokenization is {self.tokenization}; this version of Palam knows 1 and 2"
            )
        self._encoder_text = EncoderText(self.encoder_tokenizer)
        self._second_text: EncoderText | None = None
        if self.second_tokenizer is not None:
            self._second_text = EncoderText(self.second_tokenizer, "second encoder")
            for text in (self._encoder_text, self._second_text):
                if not text.tokenizer.is_fast:
                    raise PalamError(
                        f"the {text.role}'s tokenizer gives no character offsets, by which the "
                        "tokens of two encoders are joined"
                    )
        self._llm_tokens: LLMTokenization | None = None
        self._llm_tokens_of: tuple[Any, ...] = ()

    # -------------------------------------------------------------- saving and loading
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `processor_config.json`; the tokenizers stay with their base models."""
        content = {
            "processor_class": type(self).__name__,
            "template": self.template.as_dict(),
        }
        for name in SETTINGS:
            content[name] = getattr(self, name)
        path = Path(folder) / CONFIG_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        encoder: str | None = None,
        llm: str | None = None,
        second_encoder: str | None = None,
        revision: str | None = None,
        **_: Any,
    ) -> "PalamProcessor":
        """Load the settings from a checkpoint and the tokenizers from the base models.

        Args:
            path: checkpoint folder, hub id or `starter:bridge`.
            encoder, llm, second_encoder: where the base models are, if not where the checkpoint
                says.
            revision: of the checkpoint on the hub.

        Raises:
            PalamError: no processor there, or a tokenizer that cannot be loaded.
        """
        place = resolve(str(path))
        with readable_errors(str(path), "checkpoint"):
            source = source_options(place, revision)
        try:
            file = Path(str(cached_file(place, CONFIG_NAME, **source)))
            content = _current_names(json.loads(file.read_text(encoding="utf-8")))
            settings = {name: content[name] for name in SETTINGS}
            _check_types(settings)
            template = Template.from_dict(content["template"])
        except PalamError as error:
            raise PalamError(f"{path}: its {CONFIG_NAME}: {error}") from None
        except (OSError, RecursionError, *WRONG_CONTENT):
            raise PalamError(
                f"{path} is no Palam checkpoint: it has no readable {CONFIG_NAME}"
            ) from None
        moved = {"encoder": encoder, "llm": llm, "second_encoder": second_encoder}
        for part, name in moved.items():
            if name:
                settings[part] = name
                settings[f"{part}_revision"] = None
        second_tokenizer = None
        if settings["second_encoder"]:
            second_tokenizer = load_tokenizer(
                settings["second_encoder"], settings["second_encoder_revision"]
            )
        return cls(
            load_tokenizer(settings["encoder"], settings["encoder_revision"]),
            load_tokenizer(settings["llm"], settings["llm_revision"]),
            second_tokenizer=second_tokenizer,
            template=template,
            **settings,
        )

    def with_template(self, template: Template) -> "PalamProcessor":
        """A processor with another template; its texts are counted with this one's."""
        other = replace(self, template=template)
        other.stats = self.stats
        other.llm_stats = self.llm_stats
        return other

    # -------------------------------------------------------------- the encoder's tokens
    def encode_texts(
        self,
        texts: Sequence[str],
        languages: LanguageCodes = None,
        *,
        count: bool = True,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Tokenise for the encoder, cutting at `max_length`.

        Args:
            texts: any strings.
            languages: one code per text (any of [`find_language`]'s, or None). Only tokenizers with
                a source language (NLLB, M2M100, mBART) use it for more than counting; None is their
                own default.
            count: add to `stats`.
            **options: for the tokenizer, e.g. `return_offsets_mapping=True`.

        Returns:
            A dictionary per text, with `input_ids` and what the options asked for.

        Raises:
            PalamError: not one language per text, or one that the encoder's tokenizer does not
                know.
        """
        codes = [None] * len(texts) if languages is None else list(languages)
        if len(codes) != len(texts):
            raise PalamError(
                f"{len(texts)} texts but {len(codes)} languages; give one language per text"
            )
        features: list[dict[str, Any]] = [{} for _ in texts]
        for code in dict.fromkeys(codes):
            rows = [row for row, other in enumerate(codes) if other == code]
            batch = self._encode_batch([clean(texts[row]) for row in rows], code, options)
            if count:
                self._count(code, batch)
            for row, encoded in zip(rows, batch, strict=True):
                features[row] = encoded.features
        return features

    def _encode_batch(
        self, texts: Sequence[str], code: str | None, options: Mapping[str, Any]
    ) -> list[EncodedText]:
        """Cleaned texts of one language, tokenised for the encoder, or for both."""
        if self._second_text is None:
            return self._encoder_text.encode(texts, code, self.max_length, options)
        rows = self._encoder_text.encode(texts, code, self.max_length, {**options, **OPTIONS})
        # The second encoder reads what the first one does of a text that is cut.
        spans = [text_span(row.features) for row in rows]
        kept = [text[slice(*span)] for text, span in zip(texts, spans, strict=True)]
        second_rows = self._second_text.encode(kept, code, self.second_max_length, OPTIONS)
        joined = []
        for row, second, span in zip(rows, second_rows, spans, strict=True):
            ids = join_tokens(row.features, second.features, span.start)
            joined.append(EncodedText({**row.features, "input_ids": ids}, row.cut))
        return joined

    def _count(self, code: str | None, batch: Sequence[EncodedText]) -> None:
        """Add tokenised texts of one language to `stats`."""
        stats = self.stats[code or ""]
        unknown = getattr(self.encoder_tokenizer, "unk_token_id", None)
        for features, cut in batch:
            ids = [token_id for token_id in features["input_ids"] if token_id >= 0]
            stats.texts += 1
            stats.cut += cut
            stats.tokens += len(ids)
            if unknown is not None:
                stats.unknown += ids.count(unknown)

    def text_report(self) -> list[str]:
        """Lines per language: how many texts were cut, and the share of unknown tokens."""
        lines = []
        for code, stats in self.stats.items():
            title = f"texts ({code})" if code else "texts"
            lines.append(
                f"{title}: {stats.cut} of {stats.texts} cut at {self.max_length} tokens, "
                f"{stats.unknown_share:.2%} of their tokens unknown to the encoder"
            )
        for code, stats in self.llm_stats.items():
            title = "texts read by the LLM itself"
            title = f"{title} ({code})" if code else title
            limit = self.llm_tokens.max_length
            lines.append(f"{title}: {stats.cut} of {stats.texts} cut at {limit} tokens")
        return lines

    # -------------------------------------------------------------- the LLM's tokens
    @property
    def llm_tokens(self) -> LLMTokenization:
        """How the LLM's sequence is tokenised, by the version and the present template."""
        made_of = (
            self.tokenization,
            self.llm_tokenizer,
            self.template,
            self.llm_only_max_length,
            self.llm_positions,
        )
        if self._llm_tokens is None or made_of != self._llm_tokens_of:
            self._llm_tokens_of = made_of
            self._llm_tokens = self._build_llm_tokens()
        return self._llm_tokens

    def _build_llm_tokens(self) -> LLMTokenization:
        build = TOKENIZATIONS[self.tokenization]
        limit = self.llm_only_max_length
        tokens: LLMTokenization = build(self.llm_tokenizer, self.template, limit)
        if self.llm_positions is None:
            return tokens
        # The mapped text and its boundary stand there too if the text's own tokens are appended.
        mapped = self.max_length + 1 if self.append_source_tokens else 0
        around = len(tokens.prefix_ids()) + len(tokens.after_text_ids()) + mapped
        answer = min(ANSWER_ROOM, self.llm_positions // 4)
        room = max(1, self.llm_positions - around - answer)
        return build(self.llm_tokenizer, self.template, min(limit, room))

    def prefix_ids(self) -> list[int]:
        """The template's prefix, and BOS if the LLM's tokenizer puts one."""
        return self.llm_tokens.prefix_ids()

    def suffix_ids(self) -> list[int]:
        """The template's suffix, after a mapped text."""
        return self.llm_tokens.after_text_ids()

    def answer_ids(self, answer: str, *, end: bool = True) -> list[int]:
        """An answer's ids after the suffix, and what ends it.

        Args:
            answer: its words.
            end: whether the end follows: the chat template's, or EOS if the tokenizer defines one.
        """
        return self.llm_tokens.answer_ids(clean(answer), end=end)

    def end_ids(self) -> list[int]:
        """What ends an answer; [] if nothing does."""
        return self.llm_tokens.end_ids()

    def continuation_ids(self, text: str, most: int) -> list[int]:
        """The ids with which the LLM continues a cut text.

        Args:
            text: what follows the cut.
            most: at most so many ids; if all of them fit, EOS follows.
        """
        ids = self.llm_tokens.continuation_ids(clean(text))
        eos = self.llm_tokenizer.eos_token_id
        if len(ids) > most:
            return ids[:most]
        return ids if eos is None else [*ids, eos]

    # -------------------------------------------------------------- both
    def features(
        self,
        texts: Sequence[str],
        answers: Sequence[Answer] | None = None,
        languages: LanguageCodes = None,
        *,
        llm_only: bool = False,
        count: bool = True,
    ) -> list[Features]:
        """Each text's ids for both models, not padded.

        Args:
            texts, languages, count: see `encode_texts`.
            answers: what the LLM should say to each text, in words or as its own ids, which are
                taken as they are and get the end; None at inference.
            llm_only: the LLM reads the text itself: its ids stand in the slot, and nothing goes to
                the encoder.

        Returns:
            Per text `encoder_input_ids` (not if `llm_only`), `input_ids` with the slot, and with
            answers `labels`.

        Raises:
            PalamError: not one answer per text; and see `encode_texts`.
        """
        if answers is not None and len(answers) != len(texts):
            raise PalamError(
                f"{len(texts)} texts but {len(answers)} answers; give one answer per text"
            )
        if languages is not None and len(languages) != len(texts):
            raise PalamError(
                f"{len(texts)} texts but {len(languages)} languages; give one language per text"
            )
        rows: list[Features] = [{} for _ in texts]
        if not llm_only:
            encoded = self.encode_texts(texts, languages, count=count)
            rows = [{"encoder_input_ids": features["input_ids"]} for features in encoded]
        read_by_llm = llm_only or self.append_source_tokens
        codes = languages or [None] * len(texts)
        for row, text, code in zip(rows, map(clean, texts), codes, strict=True):
            row["input_ids"] = self._prompt_ids(text, llm_only=llm_only)
            if read_by_llm and count:
                self._count_read_by_llm(code, text)
        if answers is not None:
            for row, answer in zip(rows, answers, strict=True):
                if isinstance(answer, str):
                    answer_ids = self.answer_ids(answer)
                else:
                    answer_ids = [*answer, *self.end_ids()]
                row["labels"] = [IGNORE] * len(row["input_ids"]) + answer_ids
                row["input_ids"] += answer_ids
        return rows

    def _prompt_ids(self, text: str, *, llm_only: bool) -> list[int]:
        """What the LLM reads of a cleaned text and around it, with the slot where it is mapped."""
        if llm_only:
            return self.llm_tokens.prompt_ids(text)
        source = text if self.append_source_tokens else ""
        return [*self.prefix_ids(), TEXT_SLOT, *self.llm_tokens.after_text_ids(source)]

    def _count_read_by_llm(self, code: str | None, text: str) -> None:
        """Add a text to `llm_stats`."""
        stats = self.llm_stats[code or ""]
        stats.texts += 1
        stats.cut += self.llm_tokens.is_cut(text)

    def pad(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """Pad features to tensors: the encoder's on the right, the LLM's on the left.

        Args:
            rows: of `features`; all of them hold the same.

        Returns:
            What `__call__` returns, of what the rows hold.
        """
        batch: dict[str, Tensor] = {}
        if "encoder_input_ids" in rows[0]:
            ids = [row["encoder_input_ids"] for row in rows]
            pad = self.encoder_tokenizer.pad_token_id or 0
            batch["encoder_input_ids"] = _padded(ids, pad, left=False)
            batch["encoder_attention_mask"] = _padded(_ones_like(ids), 0, left=False)
        if "input_ids" in rows[0]:
            ids = [row["input_ids"] for row in rows]
            batch["input_ids"] = _padded(ids, 0, left=True)
            batch["attention_mask"] = _padded(_ones_like(ids), 0, left=True)
        if "labels" in rows[0]:
            batch["labels"] = _padded([row["labels"] for row in rows], IGNORE, left=True)
        return BatchFeature(batch)

    def __call__(
        self,
        texts: str | Sequence[str],
        answers: str | Sequence[Answer] | None = None,
        languages: str | LanguageCodes = None,
        *,
        llm_only: bool = False,
    ) -> BatchFeature:
        """Tensors for [`PalamModel`]: `features` of texts, padded.

        Args:
            texts, answers, languages, llm_only: see `features`; one text may be given bare, with
                its answer and its language.

        Returns:
            `encoder_input_ids`, `encoder_attention_mask` [batch, text tokens] (not if `llm_only`),
            `input_ids`, `attention_mask` and, with answers, `labels` [batch, LLM tokens].

        Raises:
            PalamError: no text; and see `features`.
        """
        texts = [texts] if isinstance(texts, str) else texts
        answers = [answers] if isinstance(answers, str) else answers
        languages = [languages] if isinstance(languages, str) else languages
        if not texts:
            raise PalamError("no text was given")
        return self.pad(self.features(texts, answers, languages, llm_only=llm_only))

    def decode(self, ids: Any) -> list[str]:
        """The LLM's generated ids [batch, n] as stripped strings."""
        texts: list[str] = self.llm_tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]


def _current_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `processor_config.json` of any version, as this one names it."""
    renamed = {RENAMED.get(name, name): value for name, value in content.items()}
    return {**LATER_SETTINGS, **renamed}


def _check_types(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a file that are of other types than this class's.

    Raises:
        TypeError: one is.
    """
    for name, value in settings.items():
        default = getattr(PalamProcessor, name)
        allowed = (str, type(None)) if default is None else (type(default),)
        if type(value) not in allowed:
            raise TypeError(f"{name} is of type {type(value).__name__}")


def _ones_like(rows: Iterable[Sequence[int]]) -> list[list[int]]:
    return [[1] * len(row) for row in rows]


def count_labels(labels: Iterable[int]) -> int:
    """How many tokens of a row are learned: those whose label is not `IGNORE`."""
    return sum(label != IGNORE for label in labels)


def _padded(rows: Sequence[Sequence[int]], fill: int, *, left: bool) -> Tensor:
    """Rows of ids as one tensor [rows, longest (at least 1)], padded on one side."""
    width = max([1, *map(len, rows)])
    filled = []
    for row in rows:
        padding = [fill] * (width - len(row))
        filled.append([*padding, *row] if left else [*row, *padding])
    return torch.tensor(filled, dtype=torch.long)


AutoProcessor.register(PalamConfig, PalamProcessor, exist_ok=True)  # type: ignore[no-untyped-call]
