"""What asks a bridge that was trained on no task."""

import pytest
import torch
from helpers import task_of

from palam.inference.calibration import measure_priors
from palam.inference.prediction import predict
from palam.inference.scoring import LabelScorer, score_labels
from palam.inference.task_prompt import LABEL_PROMPT, label_template
from palam.models.template import RAW_TEXT_PROMPT, SAME_IN_ENGLISH, Template
from palam.tasks.registry import get_task
from palam.tasks.task import Example

TEXTS = ["The dog jumps.", "I am going home today.", "මම ගෙදර යනවා"]
LABELS = ["sports", "health care", "politics"]


def asks(model):
    return label_template(model.processor, model.config)


@pytest.mark.parametrize("prompt", [SAME_IN_ENGLISH, RAW_TEXT_PROMPT, "{text}"])
def test_a_prompt_that_asks_nothing_is_not_asked_with(tiny_model, prompt):
    model = tiny_model(mode="prompt", prompt=prompt)
    tokenizer = model.processor.llm_tokenizer
    assert asks(model) == Template.build("prompt", LABEL_PROMPT, tokenizer)


def test_what_a_bridge_was_trained_with_counts(tiny_model):
    assert asks(tiny_model(mode="prompt", prompt="Is it good? {text}")) is None
    assert asks(tiny_model(mode="paper")) is None
    trained = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    trained.config.task = task_of({"a": "a"})
    assert asks(trained) is None


def test_a_scorer_has_a_template_of_its_own(tiny_model):
    general = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    asking = tiny_model(mode="prompt", prompt=LABEL_PROMPT)
    own = general.processor.template
    scorer = LabelScorer(general, LABELS, template=asks(general))
    scores = scorer.score(TEXTS)
    assert torch.allclose(scores, LabelScorer(asking, LABELS).score(TEXTS), atol=1e-5)
    assert not torch.allclose(scores, LabelScorer(general, LABELS).score(TEXTS), atol=1e-3)
    assert general.processor.template == own
    assert general.processor.stats[""].texts == 2 * len(TEXTS)


def test_a_general_bridge_is_evaluated_with_the_tasks_prompt(tiny_model):
    task = get_task("sib200")
    general = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    asking = tiny_model(mode="prompt", prompt=task.prompt)
    own = general.processor.template
    examples = [Example(row, {"text": text}, "sports") for row, text in enumerate(TEXTS)]
    ours = predict(general, task, examples, "en")
    theirs = predict(asking, task, examples, "en")
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert our_row["scores"] == pytest.approx(their_row["scores"], abs=1e-4)
    assert general.processor.template == own


def test_labels_of_no_task_are_asked_for(tiny_model):
    general = tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH)
    asking = tiny_model(mode="prompt", prompt=LABEL_PROMPT)
    expected = score_labels(asking, TEXTS, LABELS)
    assert torch.allclose(score_labels(general, TEXTS, LABELS), expected, atol=1e-5)
    measure_priors(general, TEXTS, LABELS)
    measure_priors(asking, TEXTS, LABELS)
    assert general.config.label_priors == pytest.approx(asking.config.label_priors, abs=1e-4)


@pytest.mark.parametrize("mode", ["paper", "prompt", "chat"])
def test_another_prompt_is_asked_in_the_same_mode(tiny_model, mode):
    own = tiny_model(mode=mode)
    tokenizer = own.processor.llm_tokenizer
    asking = own.processor.template.asking("Is it {text}?", tokenizer)
    expected = "prompt" if mode == "paper" else mode
    assert asking == Template.build(expected, "Is it {text}?", tokenizer)
