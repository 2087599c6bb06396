"""The prompts under which a text is said again."""

from palam.models.template import SLOT

PLAIN_PROMPTS = (
    f"{SLOT}\nIn English:",
    f"Text: {SLOT}\nEnglish:",
    f"What does this say? {SLOT}\nIt says:",
)
CHAT_PROMPTS = (
    f"{SLOT}\nSay this in English.",
    f"Translate this text into English: {SLOT}",
    f"{SLOT}\n\nWhat does this text say?",
)
