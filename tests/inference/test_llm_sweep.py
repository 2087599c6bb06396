"""Label scores, guided and several answers of every decoder class, against plain full reads.

A few classes, one of each kind, are always tried; all of them, with a table of the largest
differences, by

    PALAM_SWEEP=1 pytest tests/inference/test_llm_sweep.py -s
"""

import os

import pytest
import tiny
import torch
from llm_zoo import NotBuilt, model_types, tiny_llm_of

from palam import PalamModel
from palam.errors import PalamError
from palam.inference.best_of import SeveralAnswers, answer_noise, answers_to_each
from palam.inference.contexts import suitable_context
from palam.inference.scoring import LabelScorer
from palam.models.backbones.llm import check_llm
from palam.models.guidance import LEAST_PLAUSIBLE
from palam.models.processing import TEXT_SLOT

LABELS = ["sports", "science/technology", "x", "the rice price went up"]
TEXTS = [tiny.TEXT["en"][:length] for length in (40, 5, 120, 77, 1)] + [tiny.TEXT["si"][:30], ""]
PROMPT = "Read: {text}\nTopic:"
TOLERANCE = 5e-3
"""Of scores of a size of 60 to 110; a plain read in fp32 is itself up to 1e-3 from one in fp64."""
EXPECTED = {
    # packed, after the cache, one token at a time after the cache, whole sequences, refused
    "llama": "packed",
    "gpt2": "packed",
    "opt": "packed",
    "qwen2": "packed",
    "ctrl": "cached",  # scales its vectors in place
    "bloom": "cached",  # takes no mask of four dimensions
    "gemma3_text": "cached",  # its window is short
    "bamba": "cached",
    "falcon_h1": "cached",
    "minimax": "cached",
    "jamba": "one token at a time",
    "mamba": "whole sequences",
    "falcon_mamba": "whole sequences",
    "openai-gpt": "whole sequences",
    "recurrent_gemma": "refused",
    "roberta": "refused",
    "rwkv": "refused",
}
SWEEP = model_types() if os.environ.get("PALAM_SWEEP") else list(EXPECTED)


@pytest.fixture(scope="module")
def model_of(tiny_model):
    """A bridge from a tiny encoder to an LLM of a class, with the tokenizers of the tiny models."""
    usual = tiny_model("bert", "llama", fusion="mean", mode="prompt", prompt=PROMPT)

    def build(model_type):
        try:
            llm = tiny_llm_of(model_type, len(usual.processor.llm_tokenizer))
        except NotBuilt as error:
            pytest.skip(f"{model_type}: {error}")
        check_llm(llm)
        return PalamModel.from_bases(usual.encoder, llm, processor=usual.processor)

    return build


@torch.no_grad()
def plain_scores(model, llm_only):
    """The LLM's own full read of each text with each label, one at a time, by nothing of Palam."""
    scores = torch.zeros(len(TEXTS), len(LABELS))
    for i, text in enumerate(TEXTS):
        for j, label in enumerate(LABELS):
            (row,) = model.processor.features([text], [label], llm_only=llm_only)
            ids = torch.tensor(row["input_ids"])
            if llm_only:
                logits = model.llm(input_ids=ids[None]).logits[0]
            else:
                vectors = plain_vectors(model, row["encoder_input_ids"], ids)
                logits = model.llm(inputs_embeds=vectors[None]).logits[0]
            logprobs = logits.log_softmax(-1)
            answer = model.processor.answer_ids(label)
            for place, token in enumerate(answer, start=-len(answer) - 1):
                scores[i, j] += logprobs[place, token]
    return scores


def plain_vectors(model, text_ids, ids):
    """The vectors that the LLM reads, by hand."""
    text_ids = torch.tensor([text_ids])
    mapped = model.live_encoding.mapped(text_ids, torch.ones_like(text_ids))
    slot = ids.tolist().index(TEXT_SLOT)
    embed = model.llm.get_input_embeddings()
    before = embed(ids[None, :slot])[0]
    after = embed(ids[None, slot + 1 :])[0]
    return torch.cat([before, mapped, model.bridge.boundary[None], after])


def way_of(scorer):
    """How a scorer has found that its LLM may read labels."""
    if not scorer.exactness.cache:
        return "whole sequences"
    if scorer.exactness.one_token_at_a_time:
        return "one token at a time"
    return "packed" if scorer.exactness.packing else "cached"


@pytest.mark.parametrize("model_type", SWEEP)
def test_scores_are_those_of_a_plain_full_read(model_of, model_type):
    try:
        check_scores(model_of(model_type), model_type)
    except PalamError as error:  # when it is loaded, or when it reads its first texts
        reason = str(error)
        assert "\n" not in reason
        print(f"\n{model_type:24} refused: {reason}", end="")
        assert EXPECTED.get(model_type, "refused") == "refused"


def check_scores(model, model_type):
    for llm_only in (True, False):
        expected = plain_scores(model, llm_only)
        scorer = LabelScorer(model, LABELS, llm_only=llm_only)
        scores = scorer.score(TEXTS, batch_size=4)
        difference = (scores - expected).abs().max().item()
        way = way_of(scorer)
        kind = "ids" if llm_only else "vectors"
        print(f"\n{model_type:24} {kind:8} difference {difference:.1e}, {way}", end="")
        assert difference < TOLERANCE
        assert scorer.exactness.padding
        assert EXPECTED.get(model_type, way) == way


# ------------------------------------------------------------------ free answers
def accepted(model_of, model_type):
    """The bridge to an LLM of a class; None of a class that is expected to be refused."""
    try:
        return model_of(model_type)
    except PalamError:
        assert EXPECTED.get(model_type, "refused") == "refused"
        return None


# ------------------------------------------------------------------ guidance
SCALE = 3.0
NO_VECTORS = "this LLM's class generates greedily alone; guidance_scale cannot be used"


@pytest.mark.parametrize("model_type", SWEEP)
def test_guided_answers_are_those_of_plain_full_reads(model_of, model_type):
    model = accepted(model_of, model_type)
    if model is None:
        return
    if model.generates_from_vectors:
        check_guided_answers(model)
        return
    with pytest.raises(PalamError) as caught:
        check_guided_answers(model)
    assert str(caught.value) == NO_VECTORS


@torch.no_grad()
def check_guided_answers(model):
    """Each token of an answer is the best by a full read with the text and one without."""
    options = {"do_sample": False, "max_new_tokens": 4, "guidance_scale": SCALE}
    embed = model.llm.get_input_embeddings()
    stops = set(model.stop_ids())
    for text in TEXTS[:2]:
        (row,) = model.processor.features([text])
        ids = torch.tensor(row["input_ids"])
        (answer,) = model.generate(**model.processor([text]), **options).tolist()
        with_text = plain_vectors(model, row["encoder_input_ids"], ids)
        without_text = embed(ids[ids != TEXT_SLOT])
        for token in answer:
            p = model.llm(inputs_embeds=with_text[None].clone()).logits[0, -1].softmax(-1)
            q = model.llm(inputs_embeds=without_text[None].clone()).logits[0, -1].softmax(-1)
            score = q.log() + SCALE * (p.log() - q.log())
            score[p < LEAST_PLAUSIBLE * p.max()] = -torch.inf
            assert score[token] > score.max() - TOLERANCE
            if token in stops:
                break
            said = embed(torch.tensor([token]))
            with_text, without_text = torch.cat([with_text, said]), torch.cat([without_text, said])


# ------------------------------------------------------------------ several answers
@pytest.mark.parametrize("model_type", SWEEP)
@torch.no_grad()
def test_several_answers_are_those_of_plain_full_reads(model_of, model_type):
    """Each token of an answer is the best by a full read and the answer's own noise."""
    model = accepted(model_of, model_type)
    if model is None:
        return
    wanted = SeveralAnswers(number=3, max_new_tokens=4)
    embed = model.llm.get_input_embeddings()
    texts = TEXTS[:2]
    answers = answers_to_each(model, model.processor(texts), wanted, suitable_context(model))
    for text, of_text in zip(texts, answers, strict=True):
        (features,) = model.processor.features([text])
        ids = torch.tensor(features["input_ids"])
        for number, answer in enumerate(of_text):
            vectors = plain_vectors(model, features["encoder_input_ids"], ids)
            for place, token in enumerate(answer):
                logits = model.llm(inputs_embeds=vectors[None].clone()).logits[0, -1]
                score = logits + answer_noise(place, wanted.number, len(logits))[number]
                assert score[token] > score.max() - TOLERANCE
                vectors = torch.cat([vectors, embed(torch.tensor([token]))])
