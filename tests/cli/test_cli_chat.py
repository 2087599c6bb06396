"""`palam chat`: texts and questions in, answers out; each about its text alone."""

import io
import sys

import pytest
from forked import palam_command

from palam import PalamModel, generate
from palam.cli import chat as module
from palam.models.template import Template

CPU = ("--device", "cpu", "--dtype", "fp32", "--max-new-tokens", "6")
SINHALA = "මම ගෙදර යනවා."
ENGLISH = "The match was won\nby the national team."
ARABIC = "أنا ذاهب إلى البيت."


class Stdin(io.TextIOWrapper):
    """Standard input that holds a text."""

    def __init__(self, content):
        content = content if isinstance(content, bytes) else content.encode()
        super().__init__(io.BytesIO(content), encoding="ascii")


@pytest.fixture
def talk(palam, monkeypatch):
    """`talk("text\\n\\nquestion\\n")`: what `palam chat` makes of it."""

    def call(content, *options):
        monkeypatch.setattr(sys, "stdin", Stdin(content))
        return palam("chat", *options, *CPU)

    return call


def answers(folder, text, *questions, no_repeat_ngram_size=3, guidance_scale=1):
    """What the bridge answers to each question in the LLM's chat."""
    model = PalamModel.from_pretrained(folder)
    given = []
    for question in questions:
        prompt = f"{{text}}\n{question}"
        tokenizer = model.processor.llm_tokenizer
        model.processor.template = Template.build("chat", prompt, tokenizer)
        given += generate(
            model,
            [text],
            max_new_tokens=6,
            no_repeat_ngram_size=no_repeat_ngram_size,
            guidance_scale=guidance_scale,
        )
    return "".join(f"{answer}\n" for answer in given)


def printed(result):
    """The answers, without white space at their ends."""
    assert (result.code, result.err) == (0, "")
    return "".join(f"{line.rstrip()}\n" for line in result.out.splitlines())


def test_questions_about_a_text_are_answered_each_on_its_own(talk, general):
    expected = answers(general, SINHALA, "What is this?", "Who?", "What is this?")
    assert printed(talk(f"{SINHALA}\n\nWhat is this?\n\nWho?\nWhat is this?\n")) == expected


def test_another_text_takes_the_place_of_the_first(talk, general):
    first = answers(general, SINHALA, "What?")
    second = answers(general, ENGLISH, "What?", "Who?")
    said = f"\n\n{SINHALA}\n \nWhat?\n/text\n{ENGLISH}\n\nWhat?\nWho?\n/quit\nWho?\n"
    assert printed(talk(said)) == first + second


def test_a_text_can_be_given_anew_or_up_before_it_is_whole(talk, general):
    expected = answers(general, SINHALA, "What?")
    assert printed(talk(f"wrong\n/text\n{SINHALA}\n\nWhat?\n")) == expected
    assert printed(talk(f"{SINHALA}\n/quit\n\nWhat?\n")) == ""
    for nothing in ("", "\n\n", f"{SINHALA}\n\n/quit\n"):
        assert printed(talk(nothing)) == ""


@pytest.mark.usefixtures("general")
def test_a_text_without_a_question_is_a_mistake(talk):
    for unended in (SINHALA, f"{SINHALA}\nWhat?\nWho?\n"):
        result = talk(unended)
        assert (result.code, result.out) == (2, "")
        assert result.err == f"palam: error: {module.UNENDED}\n"
    for unasked in (f"{SINHALA}\n\n", f"{SINHALA}\n\n\n/text\n{ENGLISH}\n\n \n"):
        result = talk(unasked)
        assert (result.code, result.out) == (2, "")
        assert result.err == f"palam: error: {module.UNASKED}\n"


def test_a_last_text_without_a_question_is_told_after_the_answers(talk, general):
    asked = f"{SINHALA}\n\nWhat?\n"
    expected = printed(talk(asked))
    for rest, line in ((f"{ENGLISH}\nWho?\n", module.UNENDED), (ARABIC + "\n\n", module.UNASKED)):
        result = talk(f"{asked}/text\n{rest}")
        assert (result.code, result.err) == (0, f"palam: {line}\n")
        assert [text.rstrip() for text in result.out.splitlines()] == expected.splitlines()


def test_a_bridge_is_named_and_lines_may_end_as_on_windows(talk, trained):
    content = f"\ufeff{SINHALA}\r\n\r\nWhat?\r\n"
    assert talk(content, trained).code == 0
    assert talk(content, trained).out == talk(f"{SINHALA}\n\nWhat?", trained).out


def test_a_question_can_say_where_the_text_stands(talk, general):
    result = talk(f"{SINHALA}\n\nWhat does {{text}} mean?\n{{text}} {{text}}?\nWho?\n")
    assert result.code == 0
    assert "exactly once" in result.err
    assert len(result.err.splitlines()) == 1
    assert result.out.endswith(talk(f"{SINHALA}\n\nWho?\n").out)


def test_a_text_that_was_cut_is_told_of_once(talk, general, caplog):
    long = " ".join([ENGLISH.replace("\n", " ")] * 60)
    assert talk(f"{long}\n\nWhat?\nWho?\n/text\n{SINHALA}\n\nWhat?\n").code == 0
    assert len([note for note in caplog.messages if "cut there" in note]) == 1


@pytest.mark.usefixtures("general")
def test_what_is_wrong_is_one_line(refused, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(f"{SINHALA}\n\nWhat?\n"))
    assert "unknown" in refused("chat", "--language", "klingon", *CPU)
    monkeypatch.setattr(sys, "stdin", Stdin(b"caf\xe9\n\nWhat?\n"))
    assert "standard input, line 1: not UTF-8" in refused("chat", *CPU)
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input" in refused("chat", *CPU)


class Terminal:
    """A terminal at which a user types lines."""

    def __init__(self, *lines):
        self.lines = list(lines)
        self.prompts = []

    def isatty(self):
        return True

    def type(self, prompt):
        self.prompts.append(prompt)
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


def test_at_a_terminal_it_prompts_and_ends_with_the_input(palam, general, monkeypatch):
    terminal = Terminal(SINHALA, "", "What?", "/text", ARABIC, "", "What?")
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr("builtins.input", terminal.type)
    result = palam("chat", *CPU)
    assert result.code == 0
    text, more, ask = module.TEXT_PROMPT, module.MORE_TEXT_PROMPT, module.QUESTION_PROMPT
    assert terminal.prompts == [text, more, ask, ask, text, more, ask, ask]
    assert result.err.splitlines() == [module.TEXT_HELP, *[module.QUESTION_HELP] * 2]
    expected = answers(general, SINHALA, "What?") + answers(general, ARABIC, "What?")
    assert [line.rstrip() for line in result.out.splitlines() if line] == [
        line.rstrip() for line in expected.splitlines() if line
    ]


def test_an_answer_is_there_before_the_next_question_is_asked(general):
    """A program can talk to it, line by line."""
    process = palam_command("chat", general, *CPU)
    process.stdin.write(f"{SINHALA}\n\nWhat?\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.stdin.write("/quit\n")
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_an_answer_may_repeat_itself_if_asked_to(talk, general):
    for size in (0, 1):
        expected = answers(general, SINHALA, "Who?", no_repeat_ngram_size=size)
        talked = talk(f"{SINHALA}\n\nWho?\n", "--no-repeat-ngram-size", str(size))
        assert printed(talked) == expected
    assert printed(talk(f"{SINHALA}\n\nWho?\n")) == answers(general, SINHALA, "Who?")


def test_how_far_answers_keep_to_the_text_can_be_set(talk, general):
    for scale in (1, 4):
        expected = answers(general, SINHALA, "Who?", guidance_scale=scale)
        assert printed(talk(f"{SINHALA}\n\nWho?\n", "--guidance-scale", str(scale))) == expected


def test_an_llm_that_cannot_be_kept_from_repeating_itself_answers_too(talk, general, monkeypatch):
    monkeypatch.setattr("palam.models.modeling.generates_from_vectors", lambda llm: False)
    expected = answers(general, SINHALA, "Who?", no_repeat_ngram_size=0)
    assert printed(talk(f"{SINHALA}\n\nWho?\n")) == expected
