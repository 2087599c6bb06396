"""The LLM that reads texts itself, after examples."""

from palam.bench.baselines.llm_only import few_shot_prompt
from palam.tasks.registry import get_task
from palam.tasks.task import Example


def test_an_example_that_names_the_slot_does_not_make_one():
    task = get_task("demo")
    label = next(iter(task.labels))
    example = Example(0, {"text": "a {text} b"}, label)
    prompt = few_shot_prompt(task, "Text: {text}\nTopic:", [example])
    answer = task.labels[label]
    assert prompt == f"Text: a ( text ) b\nTopic: {answer}\n\nText: {{text}}\nTopic:"
