"""What stands around the text in the one sequence that the LLM reads.

prefix · text · boundary · suffix · answer · end
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from palam.errors import PalamError
from palam.utils.texts import first_line

SLOT = "{text}"
ANSWER = "{answer}"
"""What stands in an answer's place while a chat template is rendered."""
SAME_IN_ENGLISH = f"{SLOT}\nThe same in English:"
"""The prompt that a general bridge is trained with."""
RAW_TEXT_PROMPT = f"{SLOT}\n"
"""Around raw text that is read in the mode prompt or chat, where no prompt is set."""
MAX_CHARACTERS = 100_000
"""Of what stands before or after the text."""
MODES = ("paper", "prompt", "chat")
"""What can stand around the text, see [`Template`]."""
CHAT_OPTIONS = {"enable_thinking": False}
"""Arguments of chat templates, unless others are set; a template that has none of them is as it is.

The answer is trained and scored where it stands, so no thought may come before it.
"""


def clean(text: str) -> str:
    """The text in Unicode's composed form (NFC), unpaired surrogates replaced by U+FFFD.

    Vowels of Indic scripts may be written in parts, which tokenizers know less well; joiners stay.
    No tokenizer takes unpaired surrogates.
    """
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return unicodedata.normalize("NFC", paired)


@dataclass(frozen=True)
class Template:
    """What stands around the text.

    Args:
        mode: `"paper"` puts nothing around it, `"prompt"` a plain prompt, `"chat"` the LLM's chat
            template.
        prefix, suffix: the strings before and after the text's slot, as the LLM reads them; in a
            chat the suffix goes up to where the answer stands.
        answer_end: what ends an answer, as the chat template writes it; None is the LLM's EOS.
        system_prompt, chat_template_options: what a chat was rendered with, see `build`.
    """

    mode: str = "paper"
    prefix: str = ""
    suffix: str = ""
    answer_end: str | None = None
    system_prompt: str | None = None
    chat_template_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("prefix", "suffix"):
            text = getattr(self, name)
            if not isinstance(text, str):
                continue
            if len(text) > MAX_CHARACTERS:
                raise PalamError(
                    f"the prompt has {len(text):,} characters on one side of the text; "
                    f"it may have {MAX_CHARACTERS:,}"
                )
            object.__setattr__(self, name, clean(text))

    @classmethod
    def build(
        cls,
        mode: str,
        prompt: str | None,
        tokenizer: Any,
        *,
        system_prompt: str | None = None,
        chat_template_options: Mapping[str, Any] | None = None,
    ) -> "Template":
        r"""Build a template from a prompt with one `{text}` slot.

        A chat template is rendered once, here, and saved as text: some write today's date.

        Args:
            mode: one of `MODES`.
            prompt: e.g. `"{text}\nTopic:"`; None is the slot alone. Not used in paper mode.
            tokenizer: the LLM's, whose chat template is used in chat mode.
            system_prompt: of a chat; None is the chat template's own.
            chat_template_options: variables of the chat template, e.g. `enable_thinking`, which is
                False unless set here.

        Raises:
            PalamError: unknown mode, not exactly one slot, no chat template, or one that refuses
                the system prompt; or a system prompt or options without a chat.
        """
        if mode not in MODES:
            raise PalamError(f"mode is {mode!r}; it must be one of: {', '.join(MODES)}")
        options = dict(chat_template_options or {})
        if mode != "chat" and (system_prompt is not None or options):
            raise PalamError("a system prompt and chat template options need the mode chat")
        if mode == "paper":
            return cls()
        prompt = clean(prompt or SLOT)
        if prompt.count(SLOT) != 1:
            raise PalamError(f"the prompt {prompt!r} must hold the slot {SLOT} exactly once")
        if mode == "prompt":
            prefix, suffix = prompt.split(SLOT)
            return cls(mode, prefix, suffix)
        if not getattr(tokenizer, "chat_template", None):
            raise PalamError(
                "the LLM's tokenizer has no chat template; use the mode prompt or paper"
            )
        messages = [{"role": "user", "content": prompt}]
        if system_prompt is not None:
            system_prompt = clean(system_prompt)
            messages.insert(0, {"role": "system", "content": system_prompt})
        chat = _render_chat(tokenizer, messages, options)
        return cls(mode, *chat, system_prompt, options)

    def with_prompt(self, mode: str, prompt: str | None, tokenizer: Any) -> "Template":
        """Another prompt in the same kind of chat; see `build`."""
        if mode != "chat":
            return Template.build(mode, prompt, tokenizer)
        return Template.build(
            mode,
            prompt,
            tokenizer,
            system_prompt=self.system_prompt,
            chat_template_options=self.chat_template_options,
        )

    def asking(self, prompt: str | None, tokenizer: Any) -> "Template":
        """Another prompt in the same mode; in the mode prompt, if this is paper, which has none.

        Args:
            prompt, tokenizer: see `build`.
        """
        mode = "prompt" if self.mode == "paper" else self.mode
        return self.with_prompt(mode, prompt, tokenizer)

    @property
    def wants_text_in_english(self) -> bool:
        """Whether the text is to be said in English, and nothing else is asked; see `build`.

        The chat template around it may be another than today's.
        """
        asked = SAME_IN_ENGLISH.removeprefix(SLOT)
        if self.mode == "chat":
            return self.suffix.startswith(asked)
        return self.suffix == asked and not self.prefix

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Template":
        """A template as a file has it.

        Raises:
            TypeError: a name or a type that is not right.
        """
        template = cls(**content)
        texts = (template.mode, template.prefix, template.suffix)
        optional = (template.answer_end, template.system_prompt)
        if not all(isinstance(text, str) for text in texts) or template.mode not in MODES:
            raise TypeError("a template's mode, prefix and suffix are texts")
        if not all(text is None or isinstance(text, str) for text in optional):
            raise TypeError("a template's end and system prompt are texts")
        if not isinstance(template.chat_template_options, dict):
            raise TypeError("a chat template's options are a mapping")
        return template

    def as_dict(self) -> dict[str, Any]:
        """The template as a file has it; what is not set is left out."""
        shown = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("mode", "prefix", "suffix") or value:
                shown[item.name] = value
        return shown


def _render_chat(
    tokenizer: Any, messages: list[dict[str, str]], options: Mapping[str, Any]
) -> tuple[str, str, str | None]:
    """Prefix, suffix and end of the answer in a chat whose next turn is the answer.

    Raises:
        PalamError: the chat template fails, or does not keep the slot.
    """
    answered = [*messages, {"role": "assistant", "content": ANSWER}]
    answer_end = None
    try:
        rendered = _rendered(tokenizer, answered, options)
        rendered, answer, rest = rendered.rpartition(ANSWER)
        if answer:
            answer_end = _turn_end(tokenizer, rest)
    except PalamError:
        answer = ""
    if not answer or rendered.count(SLOT) != 1:  # it changes or refuses an answer
        answer_end = None
        rendered = _rendered(tokenizer, messages, options, add_generation_prompt=True)
    if rendered.count(SLOT) != 1:
        raise PalamError(
            "the LLM's chat template does not keep the text's slot; use the mode prompt"
        )
    prefix, suffix = rendered.split(SLOT)
    return prefix, suffix, answer_end


def _rendered(
    tokenizer: Any, messages: list[dict[str, str]], options: Mapping[str, Any], **arguments: Any
) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, **arguments, **{**CHAT_OPTIONS, **options}
        )
    except Exception as error:  # a template raises what it likes
        reason = first_line(error)
        raise PalamError(f"the LLM's chat template cannot be rendered: {reason}") from None
    return text


def _turn_end(tokenizer: Any, rest: str) -> str | None:
    """What follows an answer up to its first special token, that included; None if none does."""
    tokens = {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
    for token in getattr(tokenizer, "added_tokens_decoder", {}).values():
        if token.special:
            tokens.add(token.content)
    present = [token for token in tokens if token and token in rest]
    if not present:
        return None
    first = min(present, key=lambda token: (rest.index(token), -len(token)))
    return rest[: rest.index(first) + len(first)]
