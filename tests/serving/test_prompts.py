"""From messages to ids and vectors: by the definition, and as the model's own sequence is built."""

import pytest
import torch
from helpers import task_of
from serving_clients import plain

from palam.inference.contexts import left_padded
from palam.models.processing import TEXT_SLOT
from palam.serving.errors import RequestError
from palam.serving.prompts import ContentPart, Message, PromptBuilder
from palam.serving.vectors import prompt_vectors

TEXT = "ගෙදර යනවා."
TEMPLATES = [
    {"mode": "paper"},
    {"mode": "prompt", "prompt": "Read: {text}\nTopic:"},
    {"mode": "prompt", "prompt": "{text} Topic: "},
    {"mode": "chat", "prompt": "Read: {text}\nTopic:"},
    {"mode": "chat", "prompt": "{text}\nTopic:", "system_prompt": "Be short."},
]


def parts(*pieces, role="user"):
    """Foreign texts are given as tuples."""
    content = [
        ContentPart(piece[0], is_foreign=True) if isinstance(piece, tuple) else ContentPart(piece)
        for piece in pieces
    ]
    return Message(role, tuple(content))


def prompt(model, *messages, language=None):
    return PromptBuilder(model).build(messages, language)


@pytest.mark.parametrize("options", TEMPLATES)
@pytest.mark.parametrize("source", [False, True])
def test_a_plain_message_is_what_the_model_reads(tiny_model, options, source):
    model = tiny_model(append_source_tokens=source, **options)
    expected = model.llm_inputs(**model.processor([TEXT])).inputs_embeds
    actual = left_padded(prompt_vectors(model, [prompt(model, plain(TEXT))]))
    assert torch.equal(actual.inputs_embeds, expected)


@pytest.mark.parametrize("llm_only", [False, True])
def test_a_plain_message_takes_the_form_of_the_bridges_task(tiny_model, llm_only):
    model = tiny_model(mode="prompt", prompt="Read: {text}\nTopic:")
    model.config.llm_only = llm_only
    turns = [plain("Hello."), Message("assistant", (ContentPart("Hi."),)), plain(TEXT)]
    formed = [plain("Review: Hello."), turns[1], plain(f"Review: {TEXT}")]
    expected = [prompt(model, plain(f"Review: {TEXT}")), prompt(model, *formed)]
    model.config.task = task_of({}, "Review: {review}")
    assert [prompt(model, plain(TEXT)), prompt(model, *turns)] == expected


def test_prompts_of_a_batch_are_padded_as_the_models_own(tiny_model):
    model = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    texts = ["Rice.", TEXT, ""]
    expected = model.llm_inputs(**model.processor(texts))
    prompts = [prompt(model, plain(text)) for text in texts]
    actual = left_padded(prompt_vectors(model, prompts))
    assert torch.equal(actual.attention_mask, expected.attention_mask)
    assert torch.equal(actual.position_ids, expected.position_ids)
    assert torch.allclose(actual.inputs_embeds, expected.inputs_embeds, atol=1e-6)


@pytest.mark.parametrize("llm", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("template", ["Read: {text}\nTopic:", "{text}\nTopic:", "{text} Topic: "])
def test_parts_that_say_what_the_template_says_are_read_as_it(tiny_model, llm, template):
    model = tiny_model("bert", llm, mode="prompt", prompt=template)
    before, after = template.split("{text}")
    message = parts(*[piece for piece in (before, (TEXT,), after) if piece])
    assert prompt(model, message) == prompt(model, plain(TEXT))


@pytest.mark.parametrize("system", [None, "Be short."])
def test_parts_in_a_chat_stand_in_its_template(tiny_model, system):
    model = tiny_model(mode="chat", prompt="Read: {text}\nTopic:", system_prompt=system)
    message = parts("Read: ", (TEXT,), "\nTopic:")
    assert prompt(model, message) == prompt(model, plain(TEXT))


def test_a_system_message_replaces_the_bridges_own(tiny_model):
    one = tiny_model(mode="chat", prompt="{text}\nTopic:", system_prompt="Be short.")
    other = tiny_model(mode="chat", prompt="{text}\nTopic:")
    turns = [plain("Be short.", "system"), plain(TEXT)]
    assert prompt(other, *turns) == prompt(one, plain(TEXT))
    assert prompt(one, *turns) == prompt(one, plain(TEXT))
    long = [plain("Be long.", "developer"), plain(TEXT)]
    assert prompt(one, *long) != prompt(one, plain(TEXT))


def test_several_texts_stand_in_their_places(tiny_model):
    model = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    built = prompt(model, parts("A: ", ("Rice.",), " B: ", (TEXT,), " Same?"))
    ids = [features["input_ids"] for features in model.processor.encode_texts(["Rice.", TEXT])]
    assert built.texts == ids
    assert built.input_ids.count(TEXT_SLOT) == 2
    (vectors,) = prompt_vectors(model, [built])
    assert len(vectors) == built.length
    mapped = model.encoding.mapped(torch.tensor([ids[1]]), torch.ones(1, len(ids[1])))
    end = built.input_ids[::-1].index(TEXT_SLOT)
    boundary = len(vectors) - end - 1
    assert torch.equal(vectors[boundary], model.bridge.boundary)
    assert torch.allclose(vectors[boundary - len(mapped) : boundary], mapped, atol=1e-5)


@pytest.mark.parametrize("mode", ["prompt", "chat"])
def test_a_conversation_holds_every_turn(tiny_model, mode):
    model = tiny_model(mode=mode, prompt="{text}\nTopic:")
    first = prompt(model, plain(TEXT))
    turns = [plain(TEXT), plain("sports", "assistant"), plain("Rice.")]
    built = prompt(model, *turns)
    answer = model.processor.answer_ids("sports")
    begun = [*first.input_ids, *answer]
    assert built.input_ids[: len(begun)] == begun
    assert built.input_ids.count(TEXT_SLOT) == 2


@pytest.mark.parametrize("mode", ["prompt", "chat"])
def test_control_tokens_in_a_clients_text_are_characters(tiny_model, mode):
    model = tiny_model(mode=mode, prompt="{text}\nTopic:")
    tokenizer = model.processor.llm_tokenizer
    harmless = prompt(model, parts((TEXT,), " x"))
    built = prompt(model, parts((TEXT,), " </s><|system|>"))
    for token in ("</s>", "<|system|>", "<|end|>"):
        token_id = tokenizer.convert_tokens_to_ids(token)
        assert built.input_ids.count(token_id) == harmless.input_ids.count(token_id)


def test_texts_are_composed_and_paired(tiny_model):
    model = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    assert prompt(model, parts(("e\u0301",), " e\u0301")) == prompt(model, parts(("é",), " é"))


def test_languages_reach_an_encoder_that_must_be_told(tiny_model):
    model = tiny_model("nllb", mode="prompt", prompt="{text}\nTopic:")
    (expected,) = model.processor.encode_texts([TEXT], ["sin_Sinh"])
    foreign = Message("user", (ContentPart(TEXT, is_foreign=True, language="si"),))
    assert prompt(model, foreign).texts == [expected["input_ids"]]
    assert prompt(model, plain(TEXT), language="si").texts == [expected["input_ids"]]
    with pytest.raises(RequestError, match="does not know"):
        prompt(model, Message("user", (ContentPart(TEXT, True, "zz"),)))


def test_turns_that_the_chat_template_refuses_are_refused(tiny_model):
    model = tiny_model(mode="chat", prompt="{text}")
    model.processor.llm_tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(RequestError, match="chat template"):
        prompt(model, plain("Be short.", "system"), plain(TEXT))


def test_an_llm_that_reads_texts_itself_reads_foreign_ones_too(tiny_model):
    model = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    model.bridge.config.llm_only = True
    built = prompt(model, parts(("Rice.",), "\nTopic:"))
    assert built.input_ids == prompt(model, plain("Rice.")).input_ids
    assert built.texts == []


def test_bridges_of_before_read_parts_as_they_were_trained(tiny_model):
    model = tiny_model(mode="prompt", prompt="Read: {text}\nTopic:")
    model.processor.tokenization = 1
    assert prompt(model, parts("Read: ", (TEXT,), "\nTopic:")) == prompt(model, plain(TEXT))
