"""From texts to the two token sequences: the encoder's, and the LLM's with a slot where the text will stand."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, BatchFeature
from transformers.utils.hub import cached_file

from palam.errors import PalamError
from palam.models.backbones.loading import load_tokenizer
from palam.models.configuration import PalamConfig
from palam.models.template import Template
from palam.utils.languages import resolve_language

Codes = Sequence[str | None] | None
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
)


RENAMED = {"direct_max_length": "llm_only_max_length", "augment": "append_source_tokens"}
"""Names in files of before 0.1.0, and what they are called now."""


@dataclass
class TextStats:
    """What happened to one language's texts on their way into the encoder."""

    texts: int = 0
    cut: int = 0
    tokens: int = 0
    unknown: int = 0

    @property
    def unknown_share(self) -> float:
        """Share of the encoder's tokens that are its unknown token."""
        return self.unknown / max(self.tokens, 1)


def clean(text: str) -> str:
    """The text with unpaired surrogates replaced by U+FFFD; no tokenizer takes them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def language_ids(tokenizer: Any) -> dict[str, int]:
    """The languages that a tokenizer must be told (NLLB, M2M100, mBART), by its own names, and its tokens of them."""
    special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return getattr(tokenizer, "lang_code_to_id", None) or {
        token.strip("_"): number for token, number in special
    }


def source_language(tokenizer: Any, code: str, role: str = "encoder") -> str:
    """A tokenizer's own name of a language. Raises PalamError if it has none."""
    found = resolve_language(code, list(language_ids(tokenizer)))
    if found is None:
        raise PalamError(
            f"the {role}'s tokenizer has no language {code!r}; give one of its own codes"
        )
    return found


@dataclass(eq=False, repr=False)
class PalamProcessor:
    """Tokenises for both models and builds the LLM's sequence from the template.

    Args:
        encoder_tokenizer, llm_tokenizer: the tokenizers of the two base models.
        encoder, llm, encoder_revision, llm_revision: where they are from, recorded when saving.
        template: what stands around the text.
        max_length: most encoder tokens of a text, special tokens included. The text is cut, never the template or
            the answer.
        llm_only_max_length: most LLM tokens of a text that the LLM reads itself.
        append_source_tokens: the LLM reads the text's own tokens too, after the mapped ones (MindMerger, arXiv 2405.17386).

    `stats` counts, per language, texts, cut texts, tokens and unknown tokens ("" is no language).

    Raises PalamError for a `max_length` below 8.
    """

    encoder_tokenizer: Any
    llm_tokenizer: Any
    _: KW_ONLY
    encoder: str = ""
    llm: str = ""
    encoder_revision: str | None = None
    llm_revision: str | None = None
    template: Template = field(default_factory=Template)
    max_length: int = 256
    llm_only_max_length: int = 2048
    append_source_tokens: bool = False
    stats: dict[str, TextStats] = field(init=False, default_factory=lambda: defaultdict(TextStats))

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise PalamError(f"max_length is {self.max_length}; it must be at least 8")
        self._default_language = getattr(self.encoder_tokenizer, "src_lang", None)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `processor_config.json`; the tokenizers stay with their base models."""
        settings = {"processor_class": type(self).__name__, "template": asdict(self.template)}
        settings |= {name: getattr(self, name) for name in SETTINGS}
        path = Path(folder) / CONFIG_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def text_report(self) -> list[str]:
        """A line per language on how many texts were cut and what share of their tokens the encoder does not know."""
        return [
            f"texts{f' ({code})' if code else ''}: {one.cut} of {one.texts} cut at {self.max_length} tokens, "
            f"{one.unknown_share:.2%} of their tokens unknown to the encoder"
            for code, one in self.stats.items()
        ]

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], *, encoder: str | None = None, llm: str | None = None,
        revision: str | None = None, **_: Any,
    ) -> "PalamProcessor":  # fmt: skip
        """Load the settings from a checkpoint and the tokenizers from the base models.

        Args:
            path: checkpoint folder or hub id.
            encoder, llm: where the base models are, if not where the checkpoint says.
            revision: of the checkpoint on the hub.

        Raises:
            PalamError: no processor there, or a tokenizer that cannot be loaded.
        """
        try:
            text = Path(str(cached_file(str(path), CONFIG_NAME, revision=revision))).read_text(
                encoding="utf-8"
            )
            content = json.loads(text)
            saved = {
                "encoder_revision": None,
                "llm_revision": None,
                "append_source_tokens": False,
                **{RENAMED.get(name, name): value for name, value in content.items()},
            }
            settings, template = (
                {name: saved[name] for name in SETTINGS},
                Template(**saved["template"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            raise PalamError(
                f"{path} is no Palam checkpoint: it has no readable {CONFIG_NAME}"
            ) from None
        for part, given in (("encoder", encoder), ("llm", llm)):
            if given:
                settings |= {part: given, f"{part}_revision": None}
        tokenizers = [
            load_tokenizer(settings[part], settings[f"{part}_revision"])
            for part in ("encoder", "llm")
        ]
        return cls(*tokenizers, template=template, **settings)

    def encode_texts(
        self, texts: Sequence[str], languages: Codes = None, *, count: bool = True, **options: Any
    ) -> list[dict[str, Any]]:
        """Tokenise for the encoder, cutting at `max_length`.

        Args:
            texts: any strings.
            languages: one code per text (any of those in `palam.utils.languages`, or None). Only tokenizers with a source
                language (NLLB, M2M100, mBART) use it for more than counting; None is their own default.
            count: add to `stats`.
            **options: for the tokenizer, e.g. `return_offsets_mapping=True`.

        Returns:
            A dictionary per text, with `input_ids` and what the options asked for.

        Raises:
            PalamError: not one language per text, or one that the encoder's tokenizer does not know.
        """
        codes = [None] * len(texts) if languages is None else list(languages)
        if len(codes) != len(texts):
            raise PalamError(
                f"{len(texts)} texts but {len(codes)} languages; give one language per text"
            )
        tokenizer = self.encoder_tokenizer
        unknown = getattr(tokenizer, "unk_token_id", None)
        result: list[dict[str, Any]] = [{} for _ in texts]
        for code in dict.fromkeys(codes):
            rows = [row for row, other in enumerate(codes) if other == code]
            if hasattr(tokenizer, "src_lang"):
                tokenizer.src_lang = (
                    self._default_language if code is None else source_language(tokenizer, code)
                )
            cleaned = [clean(texts[row]) for row in rows]
            batch = tokenizer(cleaned, truncation=True, max_length=self.max_length, **options)
            stats = self.stats[code or ""] if count else TextStats()
            for position, row in enumerate(rows):
                result[row] = {key: values[position] for key, values in batch.items()}
                ids = result[row]["input_ids"]
                cut = (
                    batch.encodings[position].overflowing
                    if batch.encodings
                    else len(ids) == self.max_length
                )
                stats.texts += 1
                stats.cut += bool(cut)
                stats.tokens += len(ids)
                stats.unknown += ids.count(unknown) if unknown is not None else 0
        return result

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self.llm_tokenizer(clean(text), add_special_tokens=False)["input_ids"]
        return ids

    def prefix_ids(self) -> list[int]:
        """BOS, once, if the LLM's tokenizer defines one, and the template's prefix."""
        ids = self._plain(self.template.prefix)
        bos = self.llm_tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def suffix_ids(self) -> list[int]:
        """The template's suffix."""
        return self._plain(self.template.suffix)

    def answer_ids(self, answer: str, *, end: bool = True) -> list[int]:
        """An answer's ids, tokenised alone (with a leading space after a suffix), and EOS."""
        ids = self._plain(f" {answer}" if self.template.suffix else answer)
        eos = self.llm_tokenizer.eos_token_id
        return [*ids, eos] if end and eos is not None else ids

    def continuation_ids(self, text: str, most: int) -> list[int]:
        """The ids with which the LLM continues a cut text: at most `most`, and EOS if the text ends there."""
        ids, eos = self._plain(text), self.llm_tokenizer.eos_token_id
        return ids[:most] if len(ids) > most or eos is None else [*ids, eos]

    def features(
        self, texts: Sequence[str], answers: Sequence[str] | None = None, languages: Codes = None, *,
        llm_only: bool = False, count: bool = True,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Each text's unpadded lists: `encoder_input_ids`, `input_ids` with the slot, `labels` with answers.

        Args:
            texts, languages, count: see `encode_texts`.
            answers: what the LLM should say to each text; None at inference.
            llm_only: the LLM reads the text itself: its ids stand in the slot, and nothing goes to the encoder.

        Raises:
            PalamError: not one answer per text; and see `encode_texts`.
        """
        if answers is not None and len(answers) != len(texts):
            raise PalamError(
                f"{len(texts)} texts but {len(answers)} answers; give one answer per text"
            )
        before, after = self.prefix_ids(), self.suffix_ids()
        encoded = (
            [{}] * len(texts) if llm_only else self.encode_texts(texts, languages, count=count)
        )
        rows = []
        for index, (text, read) in enumerate(zip(texts, encoded, strict=True)):
            middle = [] if llm_only else [TEXT_SLOT]
            middle += (
                self._plain(text)[: self.llm_only_max_length]
                if llm_only or self.append_source_tokens
                else []
            )
            row = {} if llm_only else {"encoder_input_ids": read["input_ids"]}
            row["input_ids"] = [*before, *middle, *after]
            if answers is not None:
                answer = self.answer_ids(answers[index])
                row["labels"] = [IGNORE] * len(row["input_ids"]) + answer
                row["input_ids"] += answer
            rows.append(row)
        return rows

    def pad(self, rows: Sequence[dict[str, Any]]) -> BatchFeature:
        """Pad features to tensors: the encoder's on the right, the LLM's on the left."""
        batch: dict[str, torch.Tensor] = {}
        pad = self.encoder_tokenizer.pad_token_id or 0
        for side, fill, left in (("encoder_", pad, False), ("", 0, True)):
            if f"{side}input_ids" in rows[0]:
                ids = [row[f"{side}input_ids"] for row in rows]
                batch[f"{side}input_ids"] = _rectangle(ids, fill, left=left)
                batch[f"{side}attention_mask"] = _rectangle(
                    [[1] * len(i) for i in ids], 0, left=left
                )
        if "labels" in rows[0]:
            batch["labels"] = _rectangle([row["labels"] for row in rows], IGNORE, left=True)
        return BatchFeature(batch)

    def __call__(
        self, texts: str | Sequence[str], answers: str | Sequence[str] | None = None,
        languages: str | Sequence[str | None] | None = None, *, llm_only: bool = False,
    ) -> BatchFeature:  # fmt: skip
        """Tensors for [`PalamModel`]: `features` of texts (or of one, with its answer and language), padded.

        Returns:
            `encoder_input_ids`, `encoder_attention_mask` [batch, text tokens] (not if `llm_only`), `input_ids`,
            `attention_mask` and, with answers, `labels` [batch, LLM tokens].
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


def _rectangle(rows: Sequence[Sequence[int]], fill: int, *, left: bool) -> torch.Tensor:
    """Rows of ids as one tensor [rows, longest (at least 1)], padded on one side."""
    width = max([1, *map(len, rows)])
    padding = [[fill] * (width - len(row)) for row in rows]
    filled = [
        [*pad, *row] if left else [*row, *pad] for pad, row in zip(padding, rows, strict=True)
    ]
    return torch.tensor(filled, dtype=torch.long)


AutoProcessor.register(PalamConfig, PalamProcessor, exist_ok=True)  # type: ignore[no-untyped-call]
