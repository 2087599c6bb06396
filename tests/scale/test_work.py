"""What is asked of a bridge: its own prompt, the user's, or one that fits its training."""

import pytest
from helpers import refusal

from palam.inference.task_prompt import LABEL_PROMPT
from palam.models.template import SAME_IN_ENGLISH, Template
from palam.scale.work import Answering, Labelling
from palam.training.align_run import RAW_TEXT_PROMPT

TEXT = "මම ගෙදර යනවා."
LABELS = ("good", "bad")
QUESTION = "{text} What is this about?"
TASK = {
    "name": "mood",
    "family": "mood",
    "text": "{text}",
    "labels": [[label, label] for label in LABELS],
}


def asked(model, work):
    """What stands around the text when the work is done with a model."""
    work.on(model)
    return model.processor.template


def template(model, mode, prompt):
    return Template.build(mode, prompt, model.processor.llm_tokenizer)


# --------------------------------------------------------------------------- free answers
def test_a_temperature_near_zero_is_greedy():
    for temperature in (0.0, 5e-324, 1e-310, 1e-40, 1e-7):
        work = Answering(temperature=temperature)
        assert work.is_greedy
        assert work.decoding() == Answering().decoding()
    drawn = Answering(temperature=1e-6)
    assert not drawn.is_greedy
    assert drawn.decoding() == {"max_new_tokens": 64, "do_sample": True, "temperature": 1e-6}


@pytest.mark.parametrize("own_mode", ["paper", "prompt", "chat"])
def test_a_question_to_a_bridge_without_a_task_is_asked_in_a_chat(tiny_model, own_mode):
    model = tiny_model(mode=own_mode)
    assert asked(model, Answering(QUESTION)) == template(model, "chat", QUESTION)


def test_without_a_chat_template_it_is_a_plain_prompt(tiny_model):
    for own_mode in ("paper", "prompt"):
        model = tiny_model(llm="opt", mode=own_mode)
        assert asked(model, Answering(QUESTION)) == template(model, "prompt", QUESTION)


def test_a_bridge_of_a_task_keeps_its_mode(tiny_model):
    for own_mode, mode in (("paper", "prompt"), ("prompt", "prompt"), ("chat", "chat")):
        model = tiny_model(mode=own_mode)
        model.config.task = TASK
        assert asked(model, Answering(QUESTION)) == template(model, mode, QUESTION)


def test_a_mode_that_is_given_is_the_mode(tiny_model):
    model = tiny_model(mode="chat")
    assert asked(model, Answering(QUESTION, "prompt")) == template(model, "prompt", QUESTION)
    model = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    assert asked(model, Answering(mode="paper")) == Template()


def test_without_a_prompt_a_bridge_has_its_own(tiny_model):
    model = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    assert asked(model, Answering()) == template(model, "prompt", SAME_IN_ENGLISH)


def scale(model, work):
    """The guidance scale of the work when it is done with a model."""
    work.set_template(model.processor, model.config)
    return work.guided(model).guidance_scale


@pytest.mark.parametrize("mode", ["prompt", "chat"])
def test_the_text_in_english_is_guided_where_nothing_is_given(tiny_model, mode):
    model = tiny_model(mode=mode, prompt=SAME_IN_ENGLISH)
    assert scale(model, Answering()) == 1.5
    assert scale(model, Answering(guidance_scale=1)) == 1
    assert scale(model, Answering(guidance_scale=3)) == 3
    assert scale(model, Answering(temperature=1)) == 1  # what is drawn is drawn from the LLM
    assert scale(model, Answering(llm_only=True)) == 1
    assert scale(model, Answering(QUESTION)) == 1
    assert scale(model, Answering(QUESTION, guidance_scale=3)) == 3


def test_what_says_no_text_in_english_is_not_guided(tiny_model, monkeypatch):
    for options in (
        {"mode": "paper"},
        {"mode": "prompt", "prompt": RAW_TEXT_PROMPT},
        {"mode": "prompt", "prompt": LABEL_PROMPT},
        {"mode": "prompt", "prompt": SAME_IN_ENGLISH, "append_source_tokens": True},
    ):
        assert scale(tiny_model(**options), Answering()) == 1
    model = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    model.token_engine = object()
    assert scale(model, Answering()) == 1
    model.token_engine = None
    assert scale(model, Answering()) == 1.5
    monkeypatch.setattr(model, "generates_from_vectors", False)
    assert scale(model, Answering()) == 1


def test_what_needs_the_encoder_is_refused_where_the_llm_reads_texts_itself(tiny_model):
    model = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    model.config.llm_only = True
    Answering().on(model)
    for option, name in (({"guidance_scale": 2}, "guidance"), ({"best_of": 2}, "best_of")):
        line = refusal(Answering(**option).on, model)
        assert line == f"{name} needs a bridge; this LLM reads texts itself"


# --------------------------------------------------------------------------- labels
@pytest.mark.parametrize("own_prompt", [None, RAW_TEXT_PROMPT, SAME_IN_ENGLISH])
@pytest.mark.parametrize("mode", ["prompt", "chat"])
def test_labels_are_asked_for_where_the_own_prompt_asks_for_none(tiny_model, mode, own_prompt):
    model = tiny_model(mode=mode, prompt=own_prompt)
    assert asked(model, Labelling(LABELS)) == template(model, mode, LABEL_PROMPT)


def test_a_prompt_of_its_own_is_kept(tiny_model):
    model = tiny_model(mode="prompt", prompt="{text}\nMood:")
    assert asked(model, Labelling(LABELS)) == template(model, "prompt", "{text}\nMood:")
    assert asked(tiny_model(mode="paper"), Labelling(LABELS)) == Template()
    of_a_task = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    of_a_task.config.task = TASK
    assert asked(of_a_task, Labelling()) == template(of_a_task, "prompt", SAME_IN_ENGLISH)


def test_the_users_prompt_asks_for_labels_in_the_bridges_mode(tiny_model):
    for own_mode, mode in (("paper", "prompt"), ("prompt", "prompt"), ("chat", "chat")):
        model = tiny_model(mode=own_mode)
        work = Labelling(LABELS, prompt="{text}\nMood:")
        assert asked(model, work) == template(model, mode, "{text}\nMood:")


def test_priors_of_the_bridges_own_prompt_are_not_subtracted_with_another(tiny_model):
    def scores(prompt, priors):
        model = tiny_model(mode="prompt", prompt="{text}\nMood:")
        model.config.label_priors = priors
        (row,) = Labelling(LABELS, prompt=prompt).on(model).read([TEXT], [None])
        return row["scores"]

    priors = {"good": -1.0, "bad": -2.0}
    plain = scores(None, {})
    subtracted = {label: plain[label] - priors[label] for label in LABELS}
    assert scores(None, priors) == pytest.approx(subtracted, abs=2e-4)
    assert scores("{text} Mood?", priors) == scores("{text} Mood?", {})
