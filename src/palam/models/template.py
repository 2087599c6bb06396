"""What stands around the text in the one sequence that the LLM reads.

prefix · text · boundary · suffix · answer · EOS
"""

from dataclasses import dataclass
from typing import Any

from palam.errors import PalamError

SLOT = "{text}"
MODES = ("paper", "prompt", "chat")
"""What can stand around the text, see [`Template`]."""


@dataclass(frozen=True)
class Template:
    """What stands around the text.

    Args:
        mode: `"paper"` puts nothing around it, `"prompt"` a plain prompt, `"chat"` the LLM's chat
            template.
        prefix, suffix: the strings before and after the text's slot, as the LLM reads them.
    """

    mode: str = "paper"
    prefix: str = ""
    suffix: str = ""

    @classmethod
    def build(cls, mode: str, prompt: str | None, tokenizer: Any) -> "Template":
        r"""Build a template from a prompt with one `{text}` slot.

        A chat template is rendered once, here, and saved as text: some write today's date.

        Args:
            mode: one of `MODES`.
            prompt: e.g. `"{text}\nTopic:"`; None is the slot alone. Not used in paper mode.
            tokenizer: the LLM's, whose chat template is used in chat mode.

        Raises:
            PalamError: unknown mode, not exactly one slot, or no chat template.
        """
        if mode not in MODES:
            raise PalamError(f"mode is {mode!r}; it must be one of: {', '.join(MODES)}")
        if mode == "paper":
            return cls()
        prompt = prompt or SLOT
        if prompt.count(SLOT) != 1:
            raise PalamError(f"the prompt {prompt!r} must hold the slot {SLOT} exactly once")
        if mode == "chat":
            prompt = _in_chat_template(prompt, tokenizer)
        prefix, suffix = prompt.split(SLOT)
        return cls(mode, prefix, suffix)


def _in_chat_template(prompt: str, tokenizer: Any) -> str:
    """A prompt as the user's turn of a chat, up to where the assistant's turn begins.

    Raises:
        PalamError: the tokenizer has no chat template, or one that does not keep the slot.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise PalamError("the LLM's tokenizer has no chat template; use the mode prompt or paper")
    rendered: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        tokenize=False,
    )
    if rendered.count(SLOT) != 1:
        raise PalamError(
            "the LLM's chat template does not keep the text's slot; use the mode prompt"
        )
    return rendered
