"""The translator: each text as it is alone, and what it says as an answer."""

import pytest
import tiny
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from palam import PalamError
from palam.bench.baselines.translate import translate_rows, translations_as_answers
from palam.inference.reading_metrics import content_word_recall
from palam.tasks.registry import get_task
from palam.tasks.task import Example
from palam.training.config import RuntimeConfig

RUNTIME = RuntimeConfig(device="cpu", dtype="fp32")
WORDS = {code: tiny.TEXT[code].split() for code in ("en", "si", "ta")}


def translated(rows, translator):
    return translate_rows(
        rows, into="en", translator=translator, runtime=RUNTIME, max_length=16, batch_size=3
    )


def pairs(code):
    """Rows of two columns; the last has an empty one, and an unpaired surrogate."""
    words = WORDS[code]
    fields = [
        {"premise": " ".join(words[i : i + 5]), "hypothesis": " ".join(words[i : i + 2])}
        for i in range(4)
    ]
    fields.append({"premise": " ", "hypothesis": words[0] + "\ud800"})
    return [Example(row, pair, "neutral") for row, pair in enumerate(fields)]


@pytest.mark.parametrize("family", ["nllb", "m2m100"])
def test_each_text_is_translated_as_it_is_alone(base_folder, family):
    folder = str(base_folder(family))
    rows = {code: pairs(code) for code in WORDS}
    result = translated(rows, folder)
    assert result["en"] == rows["en"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    english = tokenizer.convert_tokens_to_ids("eng_Latn")
    for code, source in (("si", "sin_Sinh"), ("ta", "tam_Taml")):
        tokenizer.src_lang = source
        before = [(example.row, example.label) for example in rows[code]]
        assert [(example.row, example.label) for example in result[code]] == before
        for example, translation in zip(rows[code], result[code], strict=True):
            for name, text in example.fields.items():
                text = text.replace("\ud800", "\ufffd")
                batch = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
                ids = model.generate(
                    **batch, forced_bos_token_id=english, num_beams=4, max_new_tokens=16
                )
                alone = tokenizer.decode(ids[0], skip_special_tokens=True)
                assert translation.fields[name] == (alone if text.strip() else text)
    assert result["si"] != rows["si"]
    unchanged = {"eng_Latn": rows["si"]}
    assert translated(unchanged, folder) == unchanged


def test_a_model_that_is_told_no_languages_is_refused(base_folder):
    with pytest.raises(PalamError, match="not told languages; give NLLB"):
        translated({"si": pairs("si")}, str(base_folder("t5")))


def test_a_language_that_it_does_not_know_is_refused(base_folder):
    with pytest.raises(PalamError, match="the translator's tokenizer has no language 'sw'"):
        translated({"sw": pairs("en")}, str(base_folder("nllb")))


def test_a_translator_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(PalamError, match="nothing' cannot be loaded: no such folder"):
        translated({"si": pairs("si")}, str(tmp_path / "nothing"))


def test_a_translation_is_an_answer_that_says_what_the_text_says():
    task = get_task("reading")
    said = ["The old house fell into the river.", "Nobody knows why\nit rained."]
    examples = [Example(row, {"text": f"පෙළ {row}"}, text) for row, text in enumerate(said)]
    translations = ["An old house stood there.", "Nobody knows why\nit rained."]
    translated_examples = [
        Example(row, {"text": text}, said[row]) for row, text in enumerate(translations)
    ]
    outcome = translations_as_answers(task, {"si": examples}, {"si": translated_examples})
    first, second = outcome.predictions
    assert (first["language"], first["label"]) == ("si", said[0])
    assert first["prediction"] == translations[0]
    assert first["recall"] == content_word_recall(translations[0], said[0])
    assert second["prediction"] == "Nobody knows why"
