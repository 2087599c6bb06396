"""`palam generate`: one answer streamed, or a file's answers; as the same in Python."""

import pytest
import torch

from palam import PalamModel
from palam.inference.generation import generate

TEXTS = [
    "The dog jumps.",
    "මම ගෙදර යනවා.",
    "",
    "  A \u200db. ",
    "The match was won by the national team.",
]
CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(text + "\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def generated(palam, trained):
    """`generated("--text", ...)`: what `palam generate` prints."""

    def call(*options):
        result = palam("generate", trained, *options, *CPU)
        assert (result.code, result.err) == (0, "")
        return result.out

    return call


def test_an_answer_is_streamed(generated, text_file, jsonl):
    answer = generated("--text", TEXTS[0], "--max-new-tokens", 12)
    rows = jsonl(generated("--file", text_file, "--max-new-tokens", 12))
    assert [row["text"] for row in rows] == TEXTS
    assert rows[0]["answer"] == answer.rstrip()
    assert rows[0]["answer"]


def test_the_llm_alone_answers_as_it_does_in_python(generated, trained, text_file, jsonl):
    length = ("--max-new-tokens", 12)
    rows = jsonl(generated("--file", text_file, "--llm-only", *length))
    answers = [row["answer"] for row in rows]
    model = PalamModel.from_pretrained(trained)
    assert answers == generate(model, TEXTS, llm_only=True, max_new_tokens=12)
    assert generated("--text", TEXTS[0], "--llm-only", *length).rstrip() == answers[0]
    through_bridge = jsonl(generated("--file", text_file, *length))
    assert [row["answer"] for row in through_bridge] != answers


@pytest.mark.parametrize(
    ("option", "argument"),
    [
        (("--no-repeat-ngram-size", 1), {"no_repeat_ngram_size": 1}),
        (("--guidance-scale", 3), {"guidance_scale": 3.0}),
        (("--best-of", 4), {"best_of": 4}),
    ],
)
def test_answers_are_decoded_as_in_python(generated, trained, text_file, jsonl, option, argument):
    options = ("--max-new-tokens", 12, *option)
    rows = jsonl(generated("--file", text_file, *options))
    answers = [row["answer"] for row in rows]
    model = PalamModel.from_pretrained(trained)
    assert answers == generate(model, TEXTS, max_new_tokens=12, **argument)
    assert answers != generate(model, TEXTS, max_new_tokens=12)
    assert generated("--text", TEXTS[0], *options).rstrip() == answers[0]


@pytest.mark.parametrize(
    ("option", "too_low", "without_bridge", "drawn"),
    [
        (
            "--guidance-scale",
            0.5,
            "guidance needs texts that are read through the bridge",
            "guided answers are greedy; leave the temperature out",
        ),
        (
            "--best-of",
            0,
            "the best of several answers needs texts that the encoder reads",
            "best_of draws by itself; leave the temperature out",
        ),
    ],
)
def test_decoding_that_has_no_meaning_is_refused(
    trained, refused, option, too_low, without_bridge, drawn
):
    command = ("generate", trained, "--text", TEXTS[0], *CPU)
    assert "Must be >= 1" in refused(*command, option, too_low)
    assert refused(*command, option, 2, "--llm-only") == without_bridge
    assert refused(*command, option, 2, "--temperature", 1) == drawn


def test_another_prompt_and_sampled_answers(generated):
    def answer(*options):
        return generated("--text", TEXTS[0], *options)

    assert answer("--prompt", "Translate: {text}\nEnglish:") != answer()
    assert answer("--mode", "chat") != answer()
    sampled = answer("--temperature", 2, "--seed", 1)
    assert sampled == answer("--temperature", 2, "--seed", 1)
    assert sampled != answer("--temperature", 2, "--seed", 2)


def test_empty_answers_are_told_of(palam, trained, text_file, monkeypatch, caplog):
    """A bridge that names labels may have nothing else to say."""

    def end_at_once(self, *, streamer=None, **inputs):
        (end, *_) = self.stop_ids()
        if streamer is not None:
            streamer.end()
        return torch.full((len(inputs["input_ids"]), 1), end)

    monkeypatch.setattr(PalamModel, "generate", end_at_once)
    monkeypatch.setattr(PalamModel, "stop_ids", lambda self: [self.llm.config.eos_token_id])
    for source in (("--text", TEXTS[0]), ("--file", text_file)):
        assert palam("generate", trained, *source, *CPU).code == 0
    one, many = [note for note in caplog.messages if "empty" in note]
    assert one.startswith("1 of 1 answers are empty; this bridge was trained to name the labels of")
    assert many.startswith(f"{len(TEXTS)} of {len(TEXTS)} answers are empty")


def test_an_llm_spread_over_devices_answers_alike(generated, text_file):
    options = ("--file", text_file, "--max-new-tokens", 12)
    assert generated(*options, "--device-map", "auto") == generated(*options)
