"""`palam generate`: one answer streamed, or a file's answers; as the same in Python."""

import pytest

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


def test_another_prompt_and_sampled_answers(generated):
    def answer(*options):
        return generated("--text", TEXTS[0], *options)

    assert answer("--prompt", "Translate: {text}\nEnglish:") != answer()
    assert answer("--mode", "chat") != answer()
    sampled = answer("--temperature", 2, "--seed", 1)
    assert sampled == answer("--temperature", 2, "--seed", 1)
    assert sampled != answer("--temperature", 2, "--seed", 2)
