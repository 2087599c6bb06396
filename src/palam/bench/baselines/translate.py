"""Translate-test: the rows in English, for an LLM that reads translations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import AutoModelForSeq2SeqLM

from palam.bench.baseline_plan import BEAMS, plan_translation
from palam.bench.baselines.base import (
    Amounts,
    Baseline,
    BaselineInput,
    Outcome,
    Reading,
    Rows,
)
from palam.bench.baselines.llm_only import ask_llm, llm_reading
from palam.errors import PalamError
from palam.inference.prediction import Prediction, predictions_of_readings
from palam.inference.reading_metrics import first_line
from palam.models.backbones.loading import load_tokenizer, load_weights
from palam.models.encoder_text import language_ids, source_language
from palam.models.model_config import DEFAULT_MAX_LENGTH, ModelConfig
from palam.models.template import clean
from palam.tasks.task import Task
from palam.training.config import RuntimeConfig
from palam.utils.device import Placement, resolve_placement

ROLE = "translator"


class Translate(Baseline):
    """The LLM reads a translation into English; where the text itself is wanted, it is that.

    Its setting `translator` is a hub id or folder of NLLB, M2M100 or mBART.
    """

    def run(self, given: BaselineInput) -> Outcome:
        """See [`Baseline.run`]."""
        translated = translate_rows(
            given.rows,
            into=given.data.language,
            translator=self.settings["translator"],
            runtime=given.runtime,
            max_length=given.model.max_length,
            batch_size=given.batch_size,
        )
        if given.task.reference_language:
            return translations_as_answers(given.task, given.rows, translated)
        return ask_llm(given, translated)

    def readings(
        self, model: ModelConfig, placement: Placement, amounts: Amounts, num_seeds: int
    ) -> list[Reading]:
        """The translator reads what is not in English, then the LLM all of it."""
        translation = plan_translation(self.settings["translator"], placement)
        translating = Reading(amounts.foreign, translation)
        if amounts.is_translated:
            return [translating]
        return [llm_reading(model, placement, amounts), translating]


class Translator:
    """A translation model that is told the languages (NLLB, M2M100, mBART).

    Args:
        name: hub id or folder.
        target: the language that is translated into, by any code of it.
        runtime: device and dtype.
        max_length: most tokens of a text and of its translation; None is 256.

    Raises:
        PalamError: no such model, or one that is not told languages, or does not know this one.
    """

    def __init__(
        self, name: str, target: str, *, runtime: RuntimeConfig, max_length: int | None = None
    ) -> None:
        self.name = name
        self.runtime = runtime
        self.max_length = max_length or DEFAULT_MAX_LENGTH
        self.tokenizer = load_tokenizer(name)
        if not hasattr(self.tokenizer, "src_lang"):
            raise PalamError(
                f"the translator {name!r} is not told languages; give NLLB, M2M100 or mBART"
            )
        self.target = self.code(target)
        self._model: Any = None

    def code(self, language: str) -> str:
        """The tokenizer's own code of a language.

        Raises:
            PalamError: it does not know the language.
        """
        return source_language(self.tokenizer, language, ROLE)

    def translate(self, texts: Sequence[str], source: str, *, batch_size: int) -> list[str]:
        """Translate texts; those without words stay as they are.

        Args:
            texts: of one language.
            source: its code, as `code` gives it.
            batch_size: texts at a time.
        """
        self.tokenizer.src_lang = source
        translations = []
        for start in range(0, len(texts), batch_size):
            batch = [clean(text) for text in texts[start : start + batch_size]]
            for text, translation in zip(batch, self._translate_batch(batch), strict=True):
                translations.append(translation if text.strip() else text)
        return translations

    def _translate_batch(self, texts: list[str]) -> list[str]:
        batch = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        model = self._loaded_model()
        ids = model.generate(
            **batch.to(model.device),
            forced_bos_token_id=language_ids(self.tokenizer)[self.target],
            num_beams=BEAMS,
            max_new_tokens=self.max_length,
        )
        translations: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return translations

    def _loaded_model(self) -> Any:
        """The model, loaded when the first text is translated."""
        if self._model is None:
            placement = resolve_placement(self.runtime.device, self.runtime.dtype)
            model: Any = load_weights(
                AutoModelForSeq2SeqLM.from_pretrained,
                self.name,
                self.name,
                ROLE,
                dtype=placement["dtype"],
            )
            self._model = model.to(placement["device"])
        return self._model


def translate_rows(
    rows: Rows,
    *,
    into: str,
    translator: str,
    runtime: RuntimeConfig,
    max_length: int | None = None,
    batch_size: int,
) -> Rows:
    """The same rows, all in one language.

    Args:
        rows: by language; those of the language itself stay as they are.
        into: the language that is translated into.
        translator: hub id or folder of NLLB, M2M100 or mBART; it decodes with four beams.
        runtime: device and dtype.
        max_length: see [`Translator`].
        batch_size: texts at a time.

    Raises:
        PalamError: no such model, or one that is not told languages, or does not know one of these.
    """
    model = Translator(translator, into, runtime=runtime, max_length=max_length)
    sources = {code: model.code(code) for code in rows}
    translated: Rows = {}
    for code, examples in rows.items():
        if sources[code] == model.target:
            translated[code] = examples
            continue
        texts = [text for example in examples for text in example.fields.values()]
        translations = iter(model.translate(texts, sources[code], batch_size=batch_size))
        translated[code] = [
            replace(example, fields={name: next(translations) for name in example.fields})
            for example in examples
        ]
    return translated


def translations_as_answers(task: Task, rows: Rows, translated: Rows) -> Outcome:
    """What a translator says, where the answer is to say what the text says.

    Args:
        task: whose answers are compared with a text.
        rows: what is read, by language.
        translated: the same rows in English, see [`translate_rows`].
    """
    predictions = []
    for code, examples in rows.items():
        sources = [task.render(example) for example in examples]
        answers = [first_line(task.render(example)) for example in translated[code]]
        for prediction in predictions_of_readings(examples, answers, sources):
            predictions.append(Prediction(**{**prediction, "language": code}))
    return Outcome(predictions, {})
