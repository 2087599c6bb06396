"""What asks a bridge about a text: its own prompt, or the task's where its own asks nothing."""

from typing import Any

from palam.models.modeling import PalamModel
from palam.models.processing import PalamProcessor
from palam.models.template import RAW_TEXT_PROMPT, SAME_IN_ENGLISH, SLOT, Template
from palam.tasks.task import Task

LABEL_PROMPT = f"{SLOT}\nTopic:"
"""Of labels of no task, for a bridge whose own prompt asks for no label."""


def label_template(
    processor: PalamProcessor, config: Any, prompt: str | None = None
) -> Template | None:
    """The template that asks for a label; None is the bridge's own.

    The bridge's own prompt counts unless it was trained on no task and its prompt is the text
    alone, or asks for the same text in English: no label can be an answer to that. In the mode
    paper there is never a prompt.

    Args:
        processor: of the bridge.
        config: of the bridge.
        prompt: what asks where the bridge's own does not; None asks for a topic.
    """
    template = processor.template
    tokenizer = processor.llm_tokenizer
    if config.task is not None or template.mode == "paper":
        return None
    if template.mode == "chat" and not getattr(tokenizer, "chat_template", None):
        return None
    for silent in (None, RAW_TEXT_PROMPT, SAME_IN_ENGLISH):
        if template == template.with_prompt(template.mode, silent, tokenizer):
            return template.with_prompt(template.mode, prompt or LABEL_PROMPT, tokenizer)
    return None


def task_template(model: PalamModel, task: Task, prompt: str) -> Template:
    """What a task's examples are asked with.

    A question is always asked. To say the text in English is asked of every bridge that was trained
    on no task; for a label or a number, see [`label_template`].

    Args:
        model: any checkpoint.
        task: any.
        prompt: the task's, or the example's own; see [`Task.prompt_of`].
    """
    processor = model.processor
    own = processor.template
    if task.questions:
        return own.asking(prompt, processor.llm_tokenizer)
    if not task.reference_language:
        return label_template(processor, model.config, prompt) or own
    if model.config.task is not None:
        return own
    return own.asking(prompt, processor.llm_tokenizer)
