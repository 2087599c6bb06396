"""The translator of the `translate` baseline, the head, and the LLM that is shown examples."""

import math

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from palam import PalamError
from palam.bench.baselines import few_shot_prompt, majority
from palam.bench.head import LogisticHead, TextFeatures
from palam.bench.translation import translate_rows, translations_as_answers
from palam.inference.reading_metrics import content_word_recall
from palam.models.backbones.encoder import load_encoder
from palam.models.model_config import ModelConfig
from palam.tasks.registry import get_task
from palam.tasks.task import Example
from palam.training.config import RuntimeConfig
from palam.training.data import TrainingData

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


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_the_head_is_at_the_minimum_of_the_penalised_cross_entropy(classes, penalty):
    """Compared with a plain minimisation: the weights are penalised, the bias is not."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(80, 5, generator=generator, dtype=torch.float64)
    direction = torch.randn(5, classes, generator=generator, dtype=torch.float64)
    noise = torch.randn(80, classes, generator=generator, dtype=torch.float64)
    labels = (features @ direction + noise).argmax(1)
    fitted = LogisticHead(features.numpy(), labels.numpy(), penalty)

    standardised = (features - features.mean(0)) / features.std(0, unbiased=False)
    weight = torch.zeros(5, classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(standardised @ weight + bias, labels)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    logits = standardised @ weight + bias
    expected = F.cross_entropy(logits, labels).item()
    loss = fitted.loss(features.numpy(), labels.numpy(), classes)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert fitted.predict(features.numpy()).tolist() == logits.argmax(1).tolist()


def test_a_label_that_was_not_trained_on_has_no_probability():
    features = np.array([[0.0], [0.1], [1.0], [1.1]])
    fitted = LogisticHead(features, np.array([0, 0, 2, 2]), 1e-2)
    assert fitted.predict(features).tolist() == [0, 0, 2, 2]
    assert fitted.loss(features, np.array([0, 0, 2, 2]), 3) < math.log(3)
    assert fitted.loss(features, np.array([1, 1, 1, 1]), 3) > 30
    with pytest.raises(PalamError, match="two labels or more"):
        LogisticHead(features, np.array([1, 1, 1, 1]), 1e-2)


def test_the_majority_is_the_most_frequent_label_of_the_training_data():
    train = [Example(row, {"text": "a"}, label) for row, label in enumerate("xyyz")]
    data = TrainingData(None, train, [], "en", "")
    outcome = majority(data, {"si": train[:2]})
    assert outcome.figures == {"label": "y"}
    assert [item["prediction"] for item in outcome.predictions] == ["y", "y"]
    assert [item["label"] for item in outcome.predictions] == ["x", "y"]


def test_an_example_that_names_the_slot_does_not_make_one():
    task = get_task("demo")
    label = next(iter(task.labels))
    example = Example(0, {"text": "a {text} b"}, label)
    prompt = few_shot_prompt(task, "Text: {text}\nTopic:", [example])
    answer = task.labels[label]
    assert prompt == f"Text: a ( text ) b\nTopic: {answer}\n\nText: {{text}}\nTopic:"


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


def test_the_head_reads_texts_of_more_tokens_than_the_encoder_has_positions(base_folder):
    folder = str(base_folder("bert"))  # of 128 positions
    text_features = TextFeatures(load_encoder(folder), ModelConfig(encoder=folder), "mean")
    assert text_features.max_length == 128
    features = text_features.of([" ".join(WORDS["en"] * 20), WORDS["en"][0]])
    assert features.shape == (2, 32)
    assert np.isfinite(features).all()
