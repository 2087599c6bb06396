import re
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from helpers import refusal
from transformers import AutoTokenizer

from palam import PalamError, Template
from palam.models.template import MODES, RAW_TEXT_PROMPT, SAME_IN_ENGLISH

PROMPT = "Read this: {text}\nTopic:"


@pytest.fixture(scope="module")
def llama(base_folder):
    return AutoTokenizer.from_pretrained(base_folder("llama"))


def test_paper_mode_puts_nothing_around_the_text(llama):
    assert (
        Template.build("paper", PROMPT, llama)
        == Template.build("paper", None, None)
        == Template("paper", "", "")
    )


def test_prompt_mode_splits_at_the_slot():
    assert Template.build("prompt", PROMPT, None) == Template("prompt", "Read this: ", "\nTopic:")
    assert Template.build("prompt", None, None) == Template("prompt", "", "")
    braces = Template.build("prompt", '{"x": {}} {text} {other}', None)
    assert (braces.prefix, braces.suffix) == ('{"x": {}} ', " {other}")


def test_chat_mode_renders_the_chat_template_around_the_slot(llama):
    template = Template.build("chat", PROMPT, llama)
    assert template.prefix == "<s><|user|>\nRead this: "
    assert template.suffix == "\nTopic:<|end|>\n<|assistant|>\n"


def test_a_chat_template_is_rendered_once(llama, base_folder):
    """One that writes the date would give another prompt every day."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder("llama"))
    tokenizer.chat_template = "{{ day }}" + llama.chat_template
    rendered = []

    def apply(*args, **options):
        rendered.append(options)
        return llama.apply_chat_template(*args, **options) + f"day {len(rendered)}"

    tokenizer.apply_chat_template = apply
    template = Template.build("chat", PROMPT, tokenizer)
    assert template.answer_end == "<|end|>"
    assert Template(**asdict(template)) == template
    assert len(rendered) == 1


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "paper"])
@pytest.mark.parametrize("prompt", ["no slot", "{text} and {text}", "{ text }"])
def test_a_prompt_needs_exactly_one_slot(llama, mode, prompt):
    with pytest.raises(
        PalamError,
        match=re.escape(f"the prompt {prompt!r} must hold the slot {{text}} exactly once"),
    ):
        Template.build(mode, prompt, llama)


def test_an_unknown_mode_is_refused(llama):
    with pytest.raises(PalamError, match="mode is 'Chat'; it must be one of: paper, prompt, chat"):
        Template.build("Chat", PROMPT, llama)


def test_chat_mode_without_a_chat_template_is_refused(base_folder):
    with pytest.raises(PalamError, match="no chat template; use the mode prompt or paper"):
        Template.build("chat", PROMPT, AutoTokenizer.from_pretrained(base_folder("gpt2")))


def test_a_chat_template_that_loses_the_slot_is_refused():
    deaf = SimpleNamespace(chat_template="x", apply_chat_template=lambda *_, **__: "Hello!")
    with pytest.raises(PalamError, match="does not keep the text's slot"):
        Template.build("chat", PROMPT, deaf)


def test_no_part_of_a_template_can_be_changed(llama):
    template = Template.build("chat", PROMPT, llama)
    with pytest.raises(AttributeError):
        template.prefix = "other"


def test_a_prompt_of_a_length_that_nobody_writes():
    long = "word " * 20_001
    message = "the prompt has 100,005 characters on one side of the text; it may have 100,000"
    assert refusal(Template, "prompt", long, "") == message
    assert refusal(Template.build, "prompt", "{text}" + long, None) == message
    assert len(Template("prompt", long[:100_000]).prefix) == 100_000


def test_the_text_is_wanted_in_english_if_nothing_else_is_asked(llama):
    def wants(mode, prompt):
        return Template.build(mode, prompt, llama).wants_text_in_english

    for mode in ("prompt", "chat"):
        assert wants(mode, SAME_IN_ENGLISH)
        for other in (None, RAW_TEXT_PROMPT, PROMPT):
            assert not wants(mode, other)
    for other in (f"Read: {SAME_IN_ENGLISH}", f"{SAME_IN_ENGLISH} in one word:"):
        assert not wants("prompt", other)
    assert not Template().wants_text_in_english
    # A chat template may write today's date: a bridge keeps that of its training.
    earlier = Template("chat", "<|system|>1 May<|user|>", "\nThe same in English:<|end|>")
    assert earlier.wants_text_in_english
