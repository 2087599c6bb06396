"""Generation: in order, batches as singles, ending where an answer was taught to end."""

import pytest
import tiny
import torch

from palam.inference.generation import generate

TEXTS = [tiny.TEXT["en"][:n] for n in (40, 5, 120, 77)]


@pytest.mark.parametrize("llm", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("llm_only", [False, True])
def test_a_batch_says_what_each_text_says_alone(tiny_model, llm, llm_only):
    model = tiny_model(llm=llm, seed=1)
    together = generate(model, TEXTS, llm_only=llm_only, max_new_tokens=6, batch_size=3)
    alone = [generate(model, [text], llm_only=llm_only, max_new_tokens=6) for text in TEXTS]
    assert together == [answer for (answer,) in alone]
    assert len(set(together)) > 1


def test_greedy_is_the_likeliest_token_each_time(tiny_model):
    model = tiny_model()
    ids = []
    for _ in range(6):
        batch = model.processor.features([TEXTS[0]])
        batch[0]["input_ids"] = batch[0]["input_ids"] + ids
        with torch.no_grad():
            logits = model(**model.processor.pad(batch)).logits
        ids.append(int(logits[0, -1].argmax()))
    assert model.processor.llm_tokenizer.eos_token_id not in ids
    assert generate(model, [TEXTS[0]], max_new_tokens=6) == [model.processor.decode([ids])[0]]


@pytest.mark.parametrize("llm_stops", [None, 5, [5, 7]])
def test_it_ends_at_the_tokenizers_end_too(tiny_model, monkeypatch, llm_stops):
    """Answers were taught to end with the tokenizer's EOS; the LLM's settings may name others."""
    model = tiny_model()
    model.llm.generation_config.eos_token_id = llm_stops
    batch = model.processor([TEXTS[0]])
    ids = model.generate(**batch, max_new_tokens=6, do_sample=False, eos_token_id=[])
    endless = ids[0].tolist()
    cut = next(i for i in range(1, 6) if endless[i] not in endless[:i])
    tokenizer = model.processor.llm_tokenizer
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(endless[cut])
    generated = []

    def decode(ids):
        generated.extend(ids.tolist())
        return [""]

    monkeypatch.setattr(model.processor, "decode", decode)
    generate(model, [TEXTS[0]], max_new_tokens=6)
    assert generated == [endless[: cut + 1]]


def test_nothing_to_say_to_nothing(tiny_model):
    assert generate(tiny_model(), []) == []
