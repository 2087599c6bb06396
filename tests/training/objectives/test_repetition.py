"""The objective repeat: the text again, under prompts that are drawn."""

from collections import Counter
from dataclasses import replace

from plain_ridge import TEXTS

from palam.models.processing import IGNORE
from palam.models.template import SAME_IN_ENGLISH, Template
from palam.tasks.sampling import passage
from palam.training.noise import WordNoise
from palam.training.objectives import repetition
from palam.training.objectives.base import RawTexts
from palam.training.objectives.prompts import CHAT_PROMPTS, PLAIN_PROMPTS
from palam.training.objectives.repetition import MOST_WORDS, PASSAGE_WORDS, Repetition

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"


def repeating(model, texts, **options):
    return Repetition(RawTexts(model.processor, texts, **options))


def candidates(model, with_chat):
    """Each prompt's processor, made here from the prompt alone."""
    prompts = [("prompt", prompt) for prompt in (SAME_IN_ENGLISH, *PLAIN_PROMPTS)]
    if with_chat:
        prompts += [("chat", prompt) for prompt in CHAT_PROMPTS]
    processors = {}
    for mode, prompt in prompts:
        template = Template.build(mode, prompt, model.processor.llm_tokenizer)
        processors[prompt] = replace(model.processor, template=template)
    return processors


def prompt_of(row, text, processors):
    """Under which prompt a row says a text again, by comparing with each."""
    for prompt, processor in processors.items():
        expected = processor.features([text], [text])[0]
        if all(row[name] == value for name, value in expected.items()):
            return prompt
    raise AssertionError("the row says the text under no prompt")


def test_each_row_says_its_text_again_under_a_drawn_prompt(tiny_model):
    model = tiny_model("xlmr")
    model.processor.llm_tokenizer.chat_template = CHAT
    objective = repeating(model, TEXTS)
    processors = candidates(model, with_chat=True)
    counts = Counter()
    for epoch in range(12):
        rows = objective.rows(range(len(TEXTS)), epoch)
        assert [row["row"] for row in rows] == list(range(len(TEXTS)))
        counts.update(
            prompt_of(row, text, processors) for row, text in zip(rows, TEXTS, strict=True)
        )
    assert set(counts) == set(processors)
    total = counts.total()
    assert abs(counts[SAME_IN_ENGLISH] / total - repetition.PLAIN_FROM / 100) < 0.15
    assert sum(counts[prompt] for prompt in CHAT_PROMPTS) / total < 0.3


def test_without_a_chat_template_all_prompts_are_plain(tiny_model):
    model = tiny_model("xlmr")
    model.processor.llm_tokenizer.chat_template = None
    objective = repeating(model, TEXTS)
    processors = candidates(model, with_chat=False)
    for epoch in range(3):
        for row, text in zip(objective.rows(range(len(TEXTS)), epoch), TEXTS, strict=True):
            prompt_of(row, text, processors)


def test_a_row_does_not_depend_on_the_others(tiny_model):
    model = tiny_model("xlmr")
    objective = repeating(model, TEXTS, noise=WordNoise(0.3, 0.3), seed=4)
    together = objective.rows([5, 1, 3], 2)
    assert together == [objective.rows([index], 2)[0] for index in (5, 1, 3)]
    assert together != objective.rows([5, 1, 3], 3)
    other_seed = repeating(model, TEXTS, noise=WordNoise(0.3, 0.3), seed=5)
    assert together != other_seed.rows([5, 1, 3], 2)


def test_noise_is_on_the_encoders_side_alone(tiny_model):
    model = tiny_model("xlmr")
    clean = repeating(model, TEXTS).rows(range(len(TEXTS)), 0)
    noisy = repeating(model, TEXTS, noise=WordNoise(0.5, 0.3)).rows(range(len(TEXTS)), 0)
    changed = 0
    for ours, theirs in zip(noisy, clean, strict=True):
        assert ours["input_ids"] == theirs["input_ids"]
        assert ours["labels"] == theirs["labels"]
        changed += ours["encoder_input_ids"] != theirs["encoder_input_ids"]
    assert changed > len(TEXTS) / 2


def test_of_a_long_text_a_passage_is_said(tiny_model):
    model = tiny_model("xlmr")
    model.processor.llm_tokenizer.chat_template = None
    long_text = " ".join(TEXTS)
    assert len(long_text.split()) > MOST_WORDS
    objective = repeating(model, [long_text])
    tokenizer = model.processor.llm_tokenizer
    said = set()
    for epoch in range(6):
        labels = [label for label in objective.rows([0], epoch)[0]["labels"] if label != IGNORE]
        said.add(tokenizer.decode(labels, skip_special_tokens=True).strip())
    possible = set()
    for number in range(200):
        words = passage(long_text, PASSAGE_WORDS, number).split()
        possible.add(" ".join(words[:MOST_WORDS]))
    assert len(said) > 1
    assert said <= possible


def test_rows_are_as_long_as_what_the_llm_reads(tiny_model):
    model = tiny_model("xlmr")
    model.processor.llm_tokenizer.chat_template = CHAT
    objective = repeating(model, TEXTS)
    for epoch in range(3):
        lengths = [objective.length(index, epoch) for index in range(len(TEXTS))]
        kinds = [objective._prompt_of(index, epoch)[0] for index in range(len(TEXTS))]
        plain = [
            length - 2 * len(text)
            for length, kind, text in zip(lengths, kinds, TEXTS, strict=True)
            if kind != "chat"
        ]
        chats = [
            length - 2 * len(text)
            for length, kind, text in zip(lengths, kinds, TEXTS, strict=True)
            if kind == "chat"
        ]
        assert all(chat > max(plain) for chat in chats)
