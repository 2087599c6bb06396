"""What asks a bridge that was trained on no task for a label."""

from typing import Any

from palam.models.processing import PalamProcessor
from palam.models.template import RAW_TEXT_PROMPT, SAME_IN_ENGLISH, SLOT, Template

LABEL_PROMPT = f"{SLOT}\nTopic:"
"""Of a bridge whose own prompt asks for no label."""


def label_template(processor: PalamProcessor, config: Any) -> Template | None:
    """The template that asks for a label; None is the bridge's own.

    The bridge's own prompt counts unless it was trained on no task and its prompt is the text
    alone, or asks for the same text in English: no label can be an answer to that. In the mode
    paper there is never a prompt.

    Args:
        processor: of the bridge.
        config: of the bridge.
    """
    template = processor.template
    tokenizer = processor.llm_tokenizer
    if config.task is not None or template.mode == "paper":
        return None
    if template.mode == "chat" and not getattr(tokenizer, "chat_template", None):
        return None
    for prompt in (None, RAW_TEXT_PROMPT, SAME_IN_ENGLISH):
        if template == template.with_prompt(template.mode, prompt, tokenizer):
            return template.with_prompt(template.mode, LABEL_PROMPT, tokenizer)
    return None
