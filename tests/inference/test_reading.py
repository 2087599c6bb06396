"""A task whose answers are compared with a text, and one of questions, through any bridge."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from helpers import refusal

from palam.inference.evaluation import evaluate, load_languages
from palam.inference.reading_comparison import ReadingComparison
from palam.inference.reading_likelihood import likeliest_of_several, num_candidates
from palam.inference.reading_metrics import first_line
from palam.inference.reading_references import (
    COPY,
    LLM_ALONE,
    NEAREST,
    OTHER_ANSWERS,
    UNRELATED,
    other_rows,
    reading_references,
    text_vectors,
)
from palam.inference.scoring import LabelScorer, score_labels
from palam.tasks.registry import get_task

ENGLISH = [
    "The children read a book at school.",
    "The rice price went up 3 times.",
    "The match was won by the national team.",
    "Scientists found water on the Moon.",
]
SINHALA = [
    "ළමයි පාසලේදී පොතක් කියවති.",
    "සහල් මිල 3 වතාවක් ඉහළ ගියා.",
    "ජාතික කණ්ඩායම තරගය ජය ගත්තේය.",
    "සඳ මත වතුර.",
]


@pytest.fixture
def data_folder(tmp_path):
    """The data of sib200: four sentences in English and Sinhala, with labels that do not count."""
    (tmp_path / "sib200").mkdir()
    for code, texts in (("eng_Latn", ENGLISH), ("sin_Sinh", SINHALA)):
        rows = [json.dumps({"text": text, "label": "travel"}) + "\n" for text in texts]
        path = tmp_path / "sib200" / f"dev.{code}.jsonl"
        path.write_text("".join(rows), encoding="utf-8")
    return tmp_path


@pytest.fixture
def examples(data_folder):
    return load_languages(get_task("reading"), "dev", ["si"], data_dir=data_folder)


@pytest.fixture
def answers(monkeypatch):
    """What the LLM says to each text, whoever reads it; its prompts and options are kept."""
    said = {
        SINHALA[0]: "Children read books at school.\nThe same in French: x",
        SINHALA[1]: "",
        SINHALA[2]: "The children won a match",
        SINHALA[3]: "It is so",
    }
    said["asked"] = []

    def generate(model, texts, languages, **options):
        template = model.processor.template
        said["asked"].append((template.prefix, template.suffix, options))
        return [said[text] for text in texts]

    monkeypatch.setattr("palam.inference.prediction.generate", generate)
    return said


def test_answers_are_cut_at_the_first_line_break():
    assert first_line("\n One. \r\nTwo") == "One."
    assert first_line("") == ""


def test_a_bridge_without_a_task_is_asked_with_the_tasks_prompt(tiny_model, examples, answers):
    model = tiny_model(mode="paper")
    own = model.processor.template
    evaluation = evaluate(model, get_task("reading"), "dev", examples)
    ((prefix, suffix, options),) = answers["asked"]
    assert (prefix, suffix) == ("", "\nThe same in English:")
    assert options["max_new_tokens"] == 64
    assert "no_repeat_ngram_size" not in options
    assert model.processor.template == own
    rows = evaluation.predictions
    assert [row["label"] for row in rows] == ENGLISH
    assert [row["prediction"] for row in rows] == [
        "Children read books at school.",
        "",
        "The children won a match",
        "It is so",
    ]
    # child read book school, rice price went time, match won nation team, scientist found water
    recalls = [4 / 4, 0 / 4, 2 / 4, 0 / 4]
    assert [row["recall"] for row in rows] == recalls
    assert [row["identified"] for row in rows][:2] == [True, False]
    assert evaluation.macro == pytest.approx(sum(recalls) / 4)
    result = evaluation.to_dict()["results"]["sin_Sinh"]
    assert list(result) == ["n", "recall", "ci95", "chrf", "identified"]
    assert result["recall"] == pytest.approx(sum(recalls) / 4)
    assert json.loads(json.dumps(evaluation.to_report()))["answers"] == rows


def test_nothing_is_the_mean_where_no_language_has_a_recall(tiny_model, data_folder):
    """All English words stand in the text itself, and can be copied."""
    task = get_task("reading")
    english = load_languages(task, "dev", ["en"], data_dir=data_folder)
    evaluation = evaluate(tiny_model(mode="prompt"), task, "dev", english)
    assert evaluation.macro is None
    content = evaluation.to_dict()
    assert content["macro"] is None
    assert list(content["means"]) == ["chrf", "identified"]


def test_all_figures_of_a_mean_are_of_the_same_languages(tiny_model, data_folder, answers):
    """Of those with a recall: the bridge's and those of what it is compared with."""
    answers.update(dict.fromkeys(ENGLISH, "Nothing at all"))
    task, model = get_task("reading"), tiny_model(mode="prompt")
    examples = load_languages(task, "dev", ["si", "en"], data_dir=data_folder)
    evaluation = evaluate(model, task, "dev", examples)
    evaluation.references = reading_references(model, task, examples, evaluation)
    report = evaluation.to_report()
    for content in (report, *report["references"].values()):
        of_sinhala = dict(content["results"]["sin_Sinh"])
        del of_sinhala["n"]
        of_sinhala.pop("ci95", None)
        assert content["means"] == of_sinhala
    for content in (report, report["references"][NEAREST]):
        sinhala, english = content["results"].values()
        assert sinhala["identified"] != english["identified"]


def test_a_bridge_of_the_family_is_asked_as_it_was_trained(tiny_model, examples, answers):
    model = tiny_model(mode="prompt", prompt="Say: {text} =")
    model.config.task = {"name": "reading", "family": "reading", "labels": [], "text": "{text}"}
    evaluate(model, get_task("reading"), "dev", examples, decoding={"no_repeat_ngram_size": 3})
    ((prefix, suffix, options),) = answers["asked"]
    assert (prefix, suffix) == ("Say: ", " =")
    assert options["no_repeat_ngram_size"] == 3
    model.config.task["family"] = "topic"
    message = refusal(evaluate, model, get_task("reading"), "dev", examples)
    assert message == "this bridge was trained for topic (reading); reading is reading"


def test_it_runs_through_a_bridge_and_the_llm_alone(tiny_model, examples):
    model = tiny_model(mode="prompt", prompt="{text}\nThe same in English:")
    through = evaluate(model, get_task("reading"), "dev", examples)
    alone = evaluate(model, get_task("reading"), "dev", examples, llm_only=True)
    pairs = zip(through.predictions, alone.predictions, strict=True)
    assert any(one["prediction"] != other["prediction"] for one, other in pairs)


def test_what_a_reading_is_compared_with(tiny_model, examples, answers):
    model = tiny_model(mode="prompt")
    task = get_task("reading")
    evaluation = evaluate(model, task, "dev", examples)
    references = reading_references(model, task, examples, evaluation, seed=3)
    said = {
        name: [row["prediction"] for row in reference.predictions]
        for name, reference in references.items()
    }
    own = [row["prediction"] for row in evaluation.predictions]
    assert said[COPY] == SINHALA
    assert sorted(said[UNRELATED]) == sorted(ENGLISH)
    assert all(one != other for one, other in zip(said[UNRELATED], ENGLISH, strict=True))
    assert Counter(said[OTHER_ANSWERS]) == Counter(own)
    assert said[LLM_ALONE] == own  # the same generator here
    assert answers["asked"][-1][2]["llm_only"]
    assert "recall" not in references[NEAREST].to_dict()["results"]["sin_Sinh"]
    alone = reading_references(model, task, examples, evaluation, llm_only=True)
    assert list(alone) == [COPY, UNRELATED, OTHER_ANSWERS]


def test_each_row_is_given_to_another_one():
    for count in (2, 3, 7, 99):
        others = other_rows([f"sentence {row}" for row in range(count)], seed=count)
        assert sorted(others) == list(range(count))
        assert all(other != row for row, other in enumerate(others))
    assert other_rows(list("abcdefghi"), 1) != other_rows(list("abcdefghi"), 2)


def test_no_row_is_given_its_own_sentence_of_another_row():
    for seed in range(20):
        sentences = ["a", "b", "a", "a", "c", "a"]
        others = other_rows(sentences, seed)
        pairs = zip(sentences, others, strict=True)
        assert all(sentences[other] != own for own, other in pairs)


@pytest.mark.parametrize("sentences", [ENGLISH[:1], ENGLISH[:1] * 3])
def test_references_need_sentences_that_differ(tiny_model, examples, sentences):
    """Else a sentence is its own unrelated one, and an answer is another text's."""
    task, model = get_task("reading"), tiny_model(mode="prompt")
    alike = {"en": examples["sin_Sinh"], "sin_Sinh": []}
    for row, sentence in zip(examples["sin_Sinh"], sentences, strict=False):
        alike["sin_Sinh"].append(replace(row, label=sentence))
    evaluation = evaluate(model, task, "dev", alike)
    message = refusal(reading_references, model, task, alike, evaluation)
    assert message == ("sin_Sinh: references need two rows at least whose English sentences differ")


def test_a_text_is_the_mean_of_its_last_states_whatever_it_is_read_with(tiny_model):
    model = tiny_model()
    texts = [*SINHALA, ENGLISH[0]]
    vectors = text_vectors(model, texts, None, batch_size=2)
    for text, vector in zip(texts, vectors, strict=True):
        ids = model.processor.encoder_tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            states = model.encoder(ids).last_hidden_state[0]
        mean = states.mean(0)
        torch.testing.assert_close(vector, mean / mean.norm(), atol=1e-5, rtol=1e-4)
    assert not model.processor.stats


def test_the_likeliest_sentence_has_the_highest_mean_per_token(tiny_model):
    model = tiny_model(mode="prompt", prompt="{text} =")
    found = likeliest_of_several(model, SINHALA, ENGLISH)
    plain = ENGLISH.copy()
    plain[1] = "The rice price went up times."
    sums = score_labels(model, SINHALA, plain, calibrated=False)
    counts = [len(model.processor.answer_ids(sentence)) for sentence in plain]
    best = (sums / torch.tensor(counts)).argmax(1).tolist()
    assert found == [number == row for row, number in enumerate(best)]


def test_twenty_sentences_are_offered_and_the_llm_is_compared_once(tiny_model, monkeypatch):
    offered = []
    compared = []
    score = LabelScorer.score
    compare = ReadingComparison._compare_with_plain

    def counted_score(scorer, *arguments, **options):
        offered.append(scorer.labels)
        return score(scorer, *arguments, **options)

    def counted_compare(comparison, by_length):
        compared.append(comparison)
        return compare(comparison, by_length)

    monkeypatch.setattr(LabelScorer, "score", counted_score)
    monkeypatch.setattr(ReadingComparison, "_compare_with_plain", counted_compare)
    english = [f"The {letter} sleeps." for letter in "abcdefghijklmnopqrstuvwxyz"]
    model = tiny_model(mode="prompt")
    first = likeliest_of_several(model, SINHALA[:3], english, seed=1)
    assert [labels[0] for labels in offered] == english[:3]
    assert all(len(set(labels)) == 20 for labels in offered)
    assert len(compared) == 1
    assert likeliest_of_several(model, SINHALA[:3], english, seed=1) == first
    assert offered[:3] == offered[3:]


def test_likelihood_is_part_of_an_evaluation_that_asks_for_it(tiny_model, examples, answers):
    model = tiny_model(mode="prompt")
    evaluation = evaluate(model, get_task("reading"), "dev", examples, likelihood_seed=0)
    likeliest = [row["likeliest"] for row in evaluation.predictions]
    reading = evaluation.reading("sin_Sinh")
    assert (reading.likeliest, reading.candidates) == (sum(likeliest) / 4, 4)
    assert evaluation.to_dict()["means"]["candidates"] == 4


def test_all_sentences_are_offered_where_fewer_than_twenty_differ():
    english = [f"The {letter} sleeps." for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert num_candidates(english) == 20
    assert num_candidates(english[:20]) == 20
    assert num_candidates([*english[:19], *english[:19], "The 5 a sleeps.", "7", ""]) == 19


@pytest.mark.parametrize("english", [["It is so."], ["In 1 go.", "In 2 go.", "3", ""]])
def test_the_likeliest_of_one_sentence_is_refused(tiny_model, examples, english):
    said = "the likeliest sentence needs two rows at least whose English sentences differ"
    model = tiny_model(mode="prompt")
    message = refusal(likeliest_of_several, model, SINHALA[: len(english)], english)
    assert message == f"{said}, beside numbers"
    rows = zip(examples["sin_Sinh"], english, strict=False)
    alike = {"sin_Sinh": [replace(row, label=sentence) for row, sentence in rows]}
    task = get_task("reading")
    message = refusal(evaluate, model, task, "dev", alike, likelihood_seed=0)
    assert message == f"sin_Sinh: {said}, beside numbers"


def test_questions_are_asked_in_their_own_words(tiny_model, monkeypatch):
    asked = []

    def generate_about(model, texts, templates, languages, **options):
        asked.extend(zip(texts, [template.suffix for template in templates], strict=True))
        return ["The baker.\nQuestion: x"] * len(texts)

    monkeypatch.setattr("palam.inference.prediction.generate_about", generate_about)
    task = get_task("questions")
    examples = load_languages(task, "dev", ["si"])
    evaluation = evaluate(tiny_model(mode="paper"), task, "dev", examples)
    assert len(asked) == len(examples["sin_Sinh"])
    assert asked[0][1] == "\nQuestion: Who opened the shop?\nAnswer:"
    assert evaluation.correct["sin_Sinh"][0]
    assert evaluation.accuracy("sin_Sinh") < 0.05
    result = evaluation.to_dict()["results"]["sin_Sinh"]
    assert list(result) == ["n", "accuracy", "ci95"]


def test_answers_to_questions_come_from_the_model(tiny_model):
    task = get_task("questions")
    examples = load_languages(task, "dev", ["si"], limit=5)
    model = tiny_model(mode="prompt", prompt="{text} own")
    rows = evaluate(model, task, "dev", examples, batch_size=2).predictions
    singles = []
    for example in examples["sin_Sinh"]:
        single = evaluate(model, task, "dev", {"sin_Sinh": [example]})
        singles += single.predictions
    assert [row["answer"] for row in rows] == [row["answer"] for row in singles]
