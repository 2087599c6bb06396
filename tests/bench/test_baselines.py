"""The translator of the `translate` baseline: batches, languages, and what it refuses."""

import pytest
import tiny
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from palam import PalamError
from palam.bench.baselines import translated
from palam.tasks.task import Example
from palam.training.config import TrainConfig

SETTINGS = TrainConfig(task="xnli", device="cpu", dtype="fp32", max_length=16)
WORDS = {code: tiny.TEXT[code].split() for code in ("en", "si", "ta")}


def pairs(code):
    """Rows of two columns; the last has an empty one, and an unpaired surrogate."""
    words = WORDS[code]
    made = [
        {"premise": " ".join(words[i : i + 5]), "hypothesis": " ".join(words[i : i + 2])}
        for i in range(4)
    ]
    made.append({"premise": " ", "hypothesis": words[0] + "\ud800"})
    return [Example(row, fields, "neutral") for row, fields in enumerate(made)]


@pytest.mark.parametrize("family", ["nllb", "m2m100"])
def test_each_text_is_what_the_translator_says_to_it_alone(base_folder, family):
    folder = str(base_folder(family))
    rows = {code: pairs(code) for code in WORDS}
    found = translated(SETTINGS, rows, "en", folder, 3)
    assert found["en"] == rows["en"]
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSeq2SeqLM.from_pretrained(folder).eval(),
    )
    english = tokenizer.convert_tokens_to_ids("eng_Latn")
    for code, source in (("si", "sin_Sinh"), ("ta", "tam_Taml")):
        tokenizer.src_lang = source
        assert [(one.row, one.label) for one in found[code]] == [
            (one.row, one.label) for one in rows[code]
        ]
        for one, read in zip(rows[code], found[code], strict=True):
            for name, text in one.fields.items():
                text = text.replace("\ud800", "\ufffd")
                batch = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
                ids = model.generate(
                    **batch, forced_bos_token_id=english, num_beams=4, max_new_tokens=16
                )
                said = tokenizer.decode(ids[0], skip_special_tokens=True)
                assert read.fields[name] == (said if text.strip() else text)
    assert found["si"] != rows["si"]
    assert translated(SETTINGS, {"eng_Latn": rows["si"]}, "en", folder, 3) == {
        "eng_Latn": rows["si"]
    }


def test_a_model_that_is_told_no_languages_is_refused(base_folder):
    with pytest.raises(PalamError, match="not told languages; give NLLB"):
        translated(SETTINGS, {"si": pairs("si")}, "en", str(base_folder("t5")), 3)


def test_a_language_that_it_does_not_know_is_refused(base_folder):
    with pytest.raises(PalamError, match="the translator's tokenizer has no language 'sw'"):
        translated(SETTINGS, {"sw": pairs("en")}, "en", str(base_folder("nllb")), 3)


def test_a_translator_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(PalamError, match="no tokenizer could be loaded"):
        translated(SETTINGS, {"si": pairs("si")}, "en", str(tmp_path / "nothing"), 3)
