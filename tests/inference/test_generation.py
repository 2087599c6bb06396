"""Generation: in order, batches as singles, ending where an answer was taught to end."""

import pytest
import tiny
import torch

from palam.inference import generation as generate

TEXTS = [tiny.TEXT["en"][:n] for n in (40, 5, 120, 77)]


@pytest.mark.parametrize("llm", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("direct", [False, True])
def test_a_batch_says_what_each_text_says_alone(tiny_model, llm, llm_only):
    model = tiny_model(llm=llm, seed=1)
    together = generate(model, TEXTS, llm_only=llm_only, max_new_tokens=6, batch_size=3)
    assert together == [
        generate(model, [text], llm_only=llm_only, max_new_tokens=6)[0] for text in TEXTS
    ]
    assert len(set(together)) > 1


def test_greedy_is_the_likeliest_token_each_time(tiny_model):
    model = tiny_model()
    ids = []
    for _ in range(6):
        batch = model.processor.features([TEXTS[0]])
        batch[0]["input_ids"] = batch[0]["input_ids"] + ids
        with torch.no_grad():
            ids.append(int(model(**model.processor.pad(batch)).logits[0, -1].argmax()))
    assert model.processor.llm_tokenizer.eos_token_id not in ids
    assert generate(model, [TEXTS[0]], max_new_tokens=6) == [model.processor.decode([ids])[0]]


@pytest.mark.parametrize("own", [None, 5, [5, 7]])
def test_it_ends_at_the_tokenizers_end_too(tiny_model, monkeypatch, own):
    """Answers were taught to end with the tokenizer's EOS; the LLM's own settings may name others."""
    model = tiny_model()
    model.llm.generation_config.eos_token_id = own
    (free,) = model.generate(
        **model.processor([TEXTS[0]]), max_new_tokens=6, do_sample=False, eos_token_id=[]
    ).tolist()
    cut = next(i for i in range(1, 6) if free[i] not in free[:i])
    tokenizer = model.processor.llm_tokenizer
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(free[cut])
    said = []
    monkeypatch.setattr(model.processor, "decode", lambda ids: said.append(ids[0].tolist()) or [""])
    generate(model, [TEXTS[0]], max_new_tokens=6)
    assert said == [free[: cut + 1]]


def test_nothing_to_say_to_nothing(tiny_model):
    assert generate(tiny_model(), []) == []
