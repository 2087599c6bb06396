"""`transformers.pipeline` with a bridge gives what the library itself gives."""

import pytest
import tiny
import torch
from transformers import pipeline

import palam.integrations.pipelines  # noqa: F401 (registers the tasks)
from palam import PalamError, generate, score_labels

TEXTS = [tiny.TEXT["en"][start : start + 40] for start in range(0, 200, 40)]
TASK = {
    "name": "topics",
    "family": "custom",
    "text": "News: {text}",
    "labels": [["a", "sports"], ["b", "politics"], ["c", "health"]],
}


@pytest.fixture(scope="module")
def model(tiny_model):
    built = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    built.config.task = TASK
    return built


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "bridge"
    model.save_pretrained(folder)
    return folder


def expected(model):
    scores = score_labels(
        model, [f"News: {text}" for text in TEXTS], ["sports", "politics", "health"]
    )
    return scores.double().softmax(1)


def test_classify(model):
    classify = pipeline("palam-classify", model=model)
    answers = classify(TEXTS)
    probabilities = expected(model)
    assert [answer["label"] for answer in answers] == [
        "abc"[index] for index in probabilities.argmax(1).tolist()
    ]
    best = torch.tensor([answer["score"] for answer in answers])
    torch.testing.assert_close(best, probabilities.max(1).values.float())
    assert classify(TEXTS[0])["label"] == answers[0]["label"]
    everything = classify(TEXTS[0], top_k=None)
    assert sum(answer["score"] for answer in everything) == pytest.approx(1)
    assert everything == sorted(everything, key=lambda answer: -answer["score"])
    assert len(classify(TEXTS[0], top_k=2)) == 2


def test_other_labels_and_options_of_the_pipeline(model):
    classify = pipeline("palam-classify", model=model, labels=["yes", "no"], batch_size=2)
    assert {answer["label"] for answer in classify(TEXTS[0], top_k=None)} == {"yes", "no"}
    assert classify(TEXTS[0], labels=["x", "y"])["label"] in ("x", "y")
    assert classify([]) == []
    assert "palam-classify" in repr(classify)


def test_labels_may_have_commas_between_them_and_are_distinct(model):
    classify = pipeline("palam-classify", model=model)
    listed = classify(TEXTS[0], labels=["travel", "health"], top_k=None)
    assert classify(TEXTS[0], labels="travel, health", top_k=None) == listed
    with pytest.raises(PalamError, match="are the same to the LLM; give each once"):
        classify(TEXTS[0], labels=["travel", "travel"])


def test_what_is_no_text_is_refused(model):
    for task_name in ("palam-classify", "palam-generate"):
        with pytest.raises(PalamError, match="row 1 holds None"):
            pipeline(task_name, model=model)(["text", None])


def test_a_stream_gives_an_iterator(model):
    classify = pipeline("palam-classify", model=model)
    stream = classify(text for text in TEXTS)
    assert [answer["label"] for answer in stream] == [answer["label"] for answer in classify(TEXTS)]


def test_generate(model):
    answer = pipeline("palam-generate", model=model)
    texts = [f"News: {text}" for text in TEXTS]
    answers = answer(TEXTS, max_new_tokens=5)
    assert [row["generated_text"] for row in answers] == generate(model, texts, max_new_tokens=5)


def test_a_checkpoint_by_name(checkpoint, model):
    classify = pipeline("palam-classify", model=str(checkpoint), dtype=torch.float32, device="cpu")
    answers = classify(TEXTS)
    same = pipeline("palam-classify", model=model)(TEXTS)
    assert [row["label"] for row in answers] == [row["label"] for row in same]
    assert [row["score"] for row in answers] == pytest.approx([row["score"] for row in same])


def test_languages(tiny_model):
    told = tiny_model("nllb", mode="prompt", prompt="{text}\nTopic:")
    classify = pipeline("palam-classify", model=told, labels=["yes", "no"])
    tamil = [tiny.TEXT["ta"]]
    assert classify(tamil, languages="ta") == classify(tamil, languages=["ta"])
    assert classify(tamil, languages="ta") != classify(tamil, languages="si")
    with pytest.raises(PalamError, match="1 texts and 2 languages"):
        classify(tamil, languages=["ta", "si"])
    with pytest.raises(PalamError, match="one language"):
        list(classify(iter(tamil), languages=["ta"]))


def test_without_labels(tiny_model):
    with pytest.raises(PalamError, match=r"labels=\[...\]"):
        pipeline("palam-classify", model=tiny_model())("text")


def test_options_of_the_model(checkpoint, base_folder, caplog):
    places = {"encoder": str(base_folder("bert")), "llm": str(base_folder("llama"))}
    classify = pipeline(
        "palam-classify",
        model=str(checkpoint),
        model_kwargs={**places, "allow_mismatch": True},
        device="cpu",
    )
    assert classify(TEXTS[0])["label"] in ("a", "b", "c")
    assert not caplog.messages
    pipeline("palam-classify", model=str(checkpoint), model_kwargs={"encodr": "x"}, device="cpu")
    (note,) = caplog.messages
    assert note.startswith("model_kwargs has 'encodr', which does nothing; for a bridge there are:")


def test_a_token_is_not_taken(checkpoint):
    with pytest.raises(ValueError, match="hf auth login"):
        pipeline("palam-classify", model=str(checkpoint), token="hf_x")
