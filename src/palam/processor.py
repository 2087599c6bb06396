"""From texts to the two token sequences: the encoder's, and the LLM's with a slot where the text will stand."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BatchFeature
from transformers.utils import cached_file

from palam import languages as language_table
from palam.errors import PalamError
from palam.template import Template

TEXT_SLOT = -1
"""The id in `input_ids` at which the mapped text and the boundary are put in."""
IGNORE = -100
CONFIG_NAME = "processor_config.json"


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
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class PalamProcessor:
    """Tokenises for both models and builds the LLM's sequence from the template.

    Args:
        encoder_tokenizer, llm_tokenizer: the tokenizers of the two base models.
        encoder, llm: their ids or folders, recorded when saving.
        template: what stands around the text.
        max_length: most encoder tokens of a text, special tokens included. The text is cut, never the template or
            the answer.
        direct_max_length: most LLM tokens of a text that the LLM reads itself.

    `stats` counts, per language, texts, cut texts, tokens and unknown tokens.
    """

    def __init__(
        self,
        encoder_tokenizer: Any,
        llm_tokenizer: Any,
        *,
        encoder: str = "",
        llm: str = "",
        template: Template | None = None,
        max_length: int = 256,
        direct_max_length: int = 2048,
    ) -> None:
        if max_length < 8:
            raise PalamError(f"max_length is {max_length}; it must be at least 8")
        self.encoder_tokenizer = encoder_tokenizer
        self.llm_tokenizer = llm_tokenizer
        self.encoder = encoder
        self.llm = llm
        self.template = template or Template()
        self.max_length = max_length
        self.direct_max_length = direct_max_length
        self.stats: dict[str, TextStats] = defaultdict(TextStats)
        encoder_tokenizer.padding_side = "right"

    # -- saving ---------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `processor_config.json`; the tokenizers stay with their base models."""
        settings = {
            "processor_class": type(self).__name__,
            "encoder": self.encoder,
            "llm": self.llm,
            "template": self.template.to_dict(),
            "max_length": self.max_length,
            "direct_max_length": self.direct_max_length,
        }
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (Path(folder) / CONFIG_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        encoder: str | None = None,
        llm: str | None = None,
        revision: str | None = None,
        **_: Any,
    ) -> "PalamProcessor":
        """Load the settings from a checkpoint and the tokenizers from the base models.

        Args:
            path: checkpoint folder or hub id.
            encoder, llm: where the base models are, if not where the checkpoint says.
            revision: of the checkpoint on the hub.

        Raises:
            PalamError: no processor there, or a tokenizer that cannot be loaded.
        """
        try:
            file = cached_file(str(path), CONFIG_NAME, revision=revision)
            settings = json.loads(Path(str(file)).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise PalamError(f"{path} is no Palam checkpoint: it has no readable {CONFIG_NAME}") from None
        encoder = encoder or settings["encoder"]
        llm = llm or settings["llm"]
        return cls(
            load_tokenizer(encoder),
            load_tokenizer(llm),
            encoder=encoder,
            llm=llm,
            template=Template(**settings["template"]),
            max_length=settings["max_length"],
            direct_max_length=settings["direct_max_length"],
        )

    # -- the encoder's side ---------------------------------------------------------------------------------------

    def encode_texts(
        self, texts: Sequence[str], languages: Sequence[str | None] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Tokenise for the encoder, cutting at `max_length`, and count.

        Args:
            texts: any strings.
            languages: one code per text (any of those in `palam.languages`, or None). Only tokenizers with a source
                language (NLLB, M2M100, mBART) use it for more than counting.
            **options: for the tokenizer, e.g. `return_offsets_mapping=True`.

        Returns:
            A dictionary per text, with `input_ids` and what the options asked for.

        Raises:
            PalamError: a language that the encoder's tokenizer does not know.
        """
        codes = list(languages) if languages is not None else [None] * len(texts)
        if len(codes) != len(texts):
            raise PalamError(f"{len(texts)} texts but {len(codes)} languages; give one language per text")
        groups: dict[str | None, list[int]] = defaultdict(list)
        for row, code in enumerate(codes):
            groups[code].append(row)
        tokenizer = self.encoder_tokenizer
        unknown = getattr(tokenizer, "unk_token_id", None)
        result: list[dict[str, Any]] = [{} for _ in texts]
        for code, rows in groups.items():
            if hasattr(tokenizer, "src_lang") and code is not None:
                tokenizer.src_lang = self._source_language(code)
            batch = tokenizer(
                [clean(texts[row]) for row in rows], truncation=True, max_length=self.max_length, **options
            )
            stats = self.stats[code or ""]
            for position, row in enumerate(rows):
                result[row] = {key: values[position] for key, values in batch.items()}
                ids = result[row]["input_ids"]
                whole = batch.encodings[position].overflowing if batch.encodings else len(ids) == self.max_length
                stats.texts += 1
                stats.cut += bool(whole)
                stats.tokens += len(ids)
                stats.unknown += ids.count(unknown) if unknown is not None else 0
        return result

    def _source_language(self, code: str) -> str:
        """The encoder tokenizer's own name of a language."""
        tokenizer = self.encoder_tokenizer
        known = getattr(tokenizer, "lang_code_to_id", None) or {
            token.strip("_"): 0 for token in tokenizer.all_special_tokens
        }
        found = language_table.resolve(code, list(known))
        if found is None:
            raise PalamError(f"the encoder's tokenizer has no language {code!r}; give one of its own codes")
        return found

    # -- the LLM's side -------------------------------------------------------------------------------------------

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self.llm_tokenizer(clean(text), add_special_tokens=False)["input_ids"]
        return ids

    def prefix_ids(self) -> list[int]:
        """BOS, once, if the LLM's tokenizer defines one, and the template's prefix."""
        ids = self._plain(self.template.prefix) if self.template.prefix else []
        bos = self.llm_tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def suffix_ids(self) -> list[int]:
        """The template's suffix."""
        return self._plain(self.template.suffix) if self.template.suffix else []

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
        self,
        texts: Sequence[str],
        answers: Sequence[str] | None = None,
        languages: Sequence[str | None] | None = None,
        *,
        direct: bool = False,
    ) -> list[dict[str, Any]]:
        """Each text's unpadded lists: `encoder_input_ids`, `input_ids` with the slot, `labels` with answers.

        Args:
            texts, languages: see `encode_texts`.
            answers: what the LLM should say to each text; None at inference.
            direct: the LLM reads the text itself: its ids stand in the slot, and nothing goes to the encoder.
        """
        before, after = self.prefix_ids(), self.suffix_ids()
        if direct:
            middles = [self._plain(text)[: self.direct_max_length] for text in texts]
            rows: list[dict[str, Any]] = [{} for _ in texts]
        else:
            middles = [[TEXT_SLOT]] * len(texts)
            rows = [{"encoder_input_ids": e["input_ids"]} for e in self.encode_texts(texts, languages)]
        for index, row in enumerate(rows):
            ids = [*before, *middles[index], *after]
            answer = self.answer_ids(answers[index]) if answers is not None else []
            row["input_ids"] = ids + answer
            if answers is not None:
                row["labels"] = [IGNORE] * len(ids) + answer
        return rows

    def pad(self, rows: Sequence[dict[str, Any]]) -> BatchFeature:
        """Pad features to tensors: the encoder's on the right, the LLM's on the left."""
        batch: dict[str, torch.Tensor] = {}
        if "encoder_input_ids" in rows[0]:
            pad = self.encoder_tokenizer.pad_token_id
            ids = [row["encoder_input_ids"] for row in rows]
            batch["encoder_input_ids"] = _rectangle(ids, pad if pad is not None else 0, left=False)
            batch["encoder_attention_mask"] = _rectangle([[1] * len(i) for i in ids], 0, left=False)
        ids = [row["input_ids"] for row in rows]
        batch["input_ids"] = _rectangle(ids, 0, left=True)
        batch["attention_mask"] = _rectangle([[1] * len(i) for i in ids], 0, left=True)
        if "labels" in rows[0]:
            batch["labels"] = _rectangle([row["labels"] for row in rows], IGNORE, left=True)
        return BatchFeature(batch)

    def __call__(
        self,
        texts: str | Sequence[str],
        answers: Sequence[str] | None = None,
        languages: Sequence[str | None] | None = None,
        *,
        direct: bool = False,
    ) -> BatchFeature:
        """Tensors for [`PalamModel`]: `features`, padded.

        Returns:
            `encoder_input_ids`, `encoder_attention_mask` [batch, text tokens] (not if `direct`), `input_ids`,
            `attention_mask` and, with answers, `labels` [batch, LLM tokens].
        """
        texts = [texts] if isinstance(texts, str) else texts
        if not texts:
            raise PalamError("no text was given")
        return self.pad(self.features(texts, answers, languages, direct=direct))

    def decode(self, ids: Any) -> list[str]:
        """The LLM's generated ids [batch, n] as stripped strings."""
        texts: list[str] = self.llm_tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]


def _rectangle(rows: Sequence[Sequence[int]], fill: int, *, left: bool) -> torch.Tensor:
    """Rows of ids as one tensor [rows, longest (at least 1)], padded on one side."""
    width = max(1, *(len(row) for row in rows)) if rows else 1
    filled = [
        ([fill] * (width - len(row)) + list(row)) if left else (list(row) + [fill] * (width - len(row)))
        for row in rows
    ]
    return torch.tensor(filled, dtype=torch.long)


def load_tokenizer(name_or_path: str, revision: str | None = None) -> Any:
    """A base model's tokenizer.

    Raises:
        PalamError: there is none at that id or folder.
    """
    from palam.starter import resolve

    try:
        return AutoTokenizer.from_pretrained(resolve(name_or_path), revision=revision)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, PalamError):
            raise
        raise PalamError(f"no tokenizer could be loaded from {name_or_path!r}; give a hub id or a folder") from None
