"""What tests share: a batch of four rows, pairs of base models, files of rows."""

import hashlib
import json

import pytest
import torch

from palam import PalamError

TEXTS = [
    "The match was won by the national team. Scientists found water.",
    "මම ගෙදර යනවා.",
    "",
    "I am going home.",
]
ANSWERS = ["sports", "science/technology", "a", "health and travel"]
LANGUAGES = ["en", "si", "en", "en"]
PROMPT = "Read this: {text}\nTopic:"
PAIRS = [
    ("bert", "llama", {"mode": "chat", "prompt": PROMPT}),
    ("xlmr", "gpt2", {"mode": "prompt", "prompt": PROMPT}),
    ("t5", "gemma3", {"mode": "prompt", "prompt": PROMPT}),
    ("m2m100", "opt", {"mode": "prompt", "prompt": PROMPT}),
    ("nllb", "qwen", {"mode": "prompt", "prompt": "{text}\nTopic:"}),
    ("modernbert", "llama", {"mode": "paper"}),
]
pairs = pytest.mark.parametrize(
    ("encoder", "llm", "options"), PAIRS, ids=lambda v: v if isinstance(v, str) else ""
)


def batch_of(model):
    return dict(model.processor(TEXTS, ANSWERS, LANGUAGES))


def alone(model, row):
    return dict(model.processor([TEXTS[row]], [ANSWERS[row]], [LANGUAGES[row]]))


def prompts(model, *rows):
    """The texts without their answers, all of them or the given rows."""
    chosen = rows or range(len(TEXTS))
    texts = [TEXTS[row] for row in chosen]
    languages = [LANGUAGES[row] for row in chosen]
    return dict(model.processor(texts, languages=languages))


def state_hash(module):
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        values = value.contiguous().flatten().view(torch.uint8)
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


def refusal(action, *args, **kwargs):
    """The one line with which it is refused."""
    with pytest.raises(PalamError) as caught:
        action(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_jsonl(path, rows):
    """Write rows as JSON lines."""
    lines = [json.dumps(row) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
