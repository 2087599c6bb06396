"""One sequence, whatever the padding; the loss; bases that stay frozen in training."""

import contextlib

import pytest
import tiny
import torch
from helpers import ANSWERS, LANGUAGES, PROMPT, TEXTS, alone, batch_of, pairs, refusal, state_hash
from transformers.modeling_layers import GradientCheckpointingLayer

import palam.models.encoding
from palam.errors import PalamError
from palam.models.backbones.llm import CompiledLayer
from palam.models.processing import IGNORE, TEXT_SLOT


# ------------------------------------------------------------------ one sequence
def plain_sequence(model, ids, encoder_ids):
    """One row's vectors [n, d], joined with Python lists, and the ids that they are of."""
    text_ids = torch.tensor([encoder_ids])
    with torch.no_grad():
        output = model.encoder(text_ids, torch.ones_like(text_ids), output_hidden_states=True)
    mapped, _ = model.bridge([state[0] for state in output.hidden_states[1:]])
    text = [*mapped, model.bridge.boundary]
    if TEXT_SLOT not in ids:
        ids = [TEXT_SLOT, *ids]
    vectors, tokens = [], []
    for token in ids:
        if token == TEXT_SLOT:
            vectors += text
            tokens += [None] * len(text)
        else:
            vectors.append(model.llm.get_input_embeddings()(torch.tensor([token]))[0])
            tokens.append(token)
    return torch.stack(vectors), tokens


@pairs
def test_the_sequence_is_a_plain_concatenation(tiny_model, encoder, llm, options):
    model = tiny_model(encoder, llm, **options)
    rows = model.processor.features(TEXTS, ANSWERS, LANGUAGES)
    joined = model.llm_inputs(**model.processor.pad(rows))
    longest = max(len(row["input_ids"]) + len(row["encoder_input_ids"]) for row in rows)
    assert joined.inputs_embeds.shape[1] == longest
    for index, row in enumerate(rows):
        expected, tokens = plain_sequence(model, row["input_ids"], row["encoder_input_ids"])
        n = len(expected)
        torch.testing.assert_close(joined.inputs_embeds[index, -n:], expected, atol=1e-5, rtol=0)
        assert not joined.inputs_embeds[index, :-n].any()
        assert joined.attention_mask[index].tolist() == [0] * (longest - n) + [1] * n
        assert joined.position_ids[index, -n:].tolist() == list(range(n))
        answer = model.processor.answer_ids(ANSWERS[index])
        assert joined.labels[index].tolist() == [IGNORE] * (longest - len(answer)) + answer
        assert tokens[n - len(answer) :] == answer
        assert tokens.count(None) == len(row["encoder_input_ids"]) + 1


CALM = {family: {"initializer_range": 0.1} for family in tiny.LLMS} | {"opt": {"init_std": 0.1}}


def off_alone(model):
    """How far a batch's logits are from those of its rows alone, at most."""
    with torch.no_grad():
        together = model(**batch_of(model)).logits
        singles = [model(**alone(model, row)).logits[0] for row in range(len(TEXTS))]
    assert (together[0, -1] - together[3, -1]).abs().max() > 0.01  # the rows do differ
    differences = [
        batched[-len(single) :] - single for batched, single in zip(together, singles, strict=True)
    ]
    return max(float(difference.abs().max()) for difference in differences)


@pairs
def test_a_batch_equals_its_rows_alone(tiny_model, base_folder, encoder, llm, options):
    calm_llm = base_folder(llm, **CALM[llm])
    model = tiny_model(encoder, calm_llm, fusion="transformer_softmax", **options)
    assert off_alone(model) <= 1e-5


@pairs
@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_what_remains_is_rounding(tiny_model, encoder, llm, options):
    """The other tests' models, whose large weights blow up fp32's rounding, in fp64.

    It is about 1e-14; early releases of transformers 5 round some steps to fp32 all the same.
    """
    model = tiny_model(encoder, llm, fusion="transformer_softmax", **options)
    assert off_alone(model.double()) <= 5e-6


def test_also_with_eager_attention(tiny_model, base_folder):
    model = tiny_model("bert", base_folder("llama", **CALM["llama"]), attention="eager")
    assert off_alone(model) <= 1e-5


def to_the_right(values, mask):
    """The same rows with their real entries moved to the left side."""
    order = torch.sort(mask, dim=1, descending=True, stable=True).indices
    return values.gather(1, order)


@pairs
def test_where_the_caller_padded_makes_no_difference(
    tiny_model, base_folder, encoder, llm, options
):
    model = tiny_model(encoder, base_folder(llm, **CALM[llm]), **options)
    batch = batch_of(model)
    wider = {}
    for name in ("encoder_input_ids", "encoder_attention_mask"):
        wider[name] = torch.nn.functional.pad(batch[name], (0, 5))
    for name in ("input_ids", "labels", "attention_mask"):
        moved = to_the_right(batch[name], batch["attention_mask"])
        fill = IGNORE if name == "labels" else 0
        wider[name] = torch.nn.functional.pad(moved, (3, 2), value=fill)
    with torch.no_grad():
        output = model(**batch)
        wider_output = model(**wider)
    assert output.logits.shape == wider_output.logits.shape
    assert (output.logits - wider_output.logits).abs().max() <= 1e-5
    assert float(output.loss) == pytest.approx(float(wider_output.loss), abs=1e-5)


@pairs
def test_nothing_padded_reaches_the_llm(tiny_model, encoder, llm, options, monkeypatch):
    model = tiny_model(encoder, llm, **options)
    batch = batch_of(model)
    with torch.no_grad():
        clean = model(**batch)
        poisoned = {name: value.clone() for name, value in batch.items()}
        poisoned["encoder_input_ids"][batch["encoder_attention_mask"] == 0] = 7
        poisoned["input_ids"][batch["attention_mask"] == 0] = 10**9
        poisoned["labels"][batch["attention_mask"] == 0] = 10**9
        real = palam.models.backbones.encoder_pair.encode

        def encode(module, ids, mask):
            states = [state.clone() for state in real(module, ids, mask)]
            for state in states:
                state[mask == 0] = float("nan")
            return states

        monkeypatch.setattr(palam.models.backbones.encoder_pair, "encode", encode)
        output = model(**poisoned)
    assert (batch["encoder_attention_mask"] == 0).any()
    assert (batch["attention_mask"] == 0).any()
    assert (output.logits - clean.logits).abs().max() <= 1e-6
    assert float(output.loss) == pytest.approx(float(clean.loss), abs=1e-6)


def test_without_a_slot_the_text_comes_first(tiny_model):
    model = tiny_model()
    text = model.processor.features(["I am going home."])[0]["encoder_input_ids"]
    text_ids = torch.tensor([text, text])
    joined = model.llm_inputs(
        encoder_input_ids=text_ids,
        encoder_attention_mask=torch.ones_like(text_ids),
        input_ids=torch.tensor([[9, 10, 0], [9, TEXT_SLOT, 10]]),
        attention_mask=torch.tensor([[1, 1, 0], [1, 1, 1]]),
    )
    for row, plain in enumerate(([9, 10], [9, TEXT_SLOT, 10])):
        expected, _ = plain_sequence(model, plain, text)
        torch.testing.assert_close(joined.inputs_embeds[row], expected, atol=1e-5, rtol=0)


def test_the_text_alone(tiny_model):
    model = tiny_model()
    text = model.processor.features(["I am going home."])[0]["encoder_input_ids"]
    joined = model.llm_inputs(encoder_input_ids=torch.tensor([text]))
    expected, _ = plain_sequence(model, [], text)
    torch.testing.assert_close(joined.inputs_embeds[0], expected, atol=1e-5, rtol=0)
    assert joined.labels is None


@pytest.mark.parametrize("llm", tiny.LLMS)
def test_without_the_encoder_the_llm_reads_plain_ids(tiny_model, llm):
    model = tiny_model("bert", llm, mode="prompt", prompt=PROMPT)
    batch = model.processor(TEXTS, llm_only=True)
    assert "encoder_input_ids" not in batch
    with torch.no_grad():
        logits = model(**batch).logits
        for row, text in enumerate(TEXTS):
            ids = model.processor.features([text], llm_only=True)[0]["input_ids"]
            expected = model.llm(torch.tensor([ids])).logits[0]
            assert (logits[row, -len(ids) :] - expected).abs().max() <= 1e-5


def test_wrong_inputs_are_one_line(tiny_model):
    model = tiny_model(llm="gpt2")
    text = torch.tensor([[2, 20, 3]])
    two_slots = torch.tensor([[TEXT_SLOT, 9, TEXT_SLOT]])
    assert "more than once" in refusal(model, encoder_input_ids=text, input_ids=two_slots)
    assert "without a text" in refusal(model, input_ids=torch.tensor([[9, TEXT_SLOT]]))
    assert "nothing to read" in refusal(model)
    assert "nothing to read" in refusal(model, **model.processor(["a", ""], llm_only=True))
    output = model(
        encoder_input_ids=text, input_ids=two_slots, attention_mask=torch.tensor([[0, 1, 1]])
    )
    assert output.logits.shape[1] == 5


# ------------------------------------------------------------------ loss and logits
@pytest.mark.parametrize("llm", tiny.LLMS)
def test_the_loss_is_the_mean_over_labels(tiny_model, llm):
    model = tiny_model("bert", llm, mode="prompt", prompt=PROMPT)
    batch, total, count = batch_of(model), 0.0, 0
    with torch.no_grad():
        for row, answer in enumerate(ANSWERS):
            logits = model(**alone(model, row)).logits[0].double()
            ids = model.processor.answer_ids(answer)
            for place, token in enumerate(ids, start=len(logits) - len(ids)):
                total -= float(logits[place - 1][token] - logits[place - 1].logsumexp(0))
                count += 1
        assert float(model(**batch).loss) == pytest.approx(total / count, rel=1e-5)
        for items in (100, torch.tensor(7)):
            loss = model(**batch, num_items_in_batch=items).loss
            assert float(loss) == pytest.approx(total / int(items), rel=1e-5)


HEADS = [*((family, {}) for family in tiny.LLMS), ("gemma3", {"final_logit_softcapping": 2.0})]


@pytest.mark.parametrize(("llm", "settings"), HEADS)
def test_the_last_logits_are_the_tail_of_all(tiny_model, base_folder, llm, settings):
    model = tiny_model("bert", base_folder(llm, **settings))
    batch = batch_of(model)
    longest = max(len(model.processor.answer_ids(answer)) for answer in ANSWERS)
    with torch.no_grad():
        everything = model(**batch)
        for keep in (1, longest + 1, 10_000):
            logits = model(**batch, logits_to_keep=keep).logits
            expected = everything.logits[:, -keep:]
            assert logits.shape == expected.shape
            assert (logits - expected).abs().max() <= 1e-5
        loss = model(**batch, logits_to_keep=longest + 1).loss
        assert float(loss) == pytest.approx(float(everything.loss), rel=1e-6)
    if settings:
        assert 1.0 < everything.logits.abs().max() <= 2.0  # the model's own head, capping and all


def test_no_label_gives_no_nan(tiny_model):
    model = tiny_model()
    batch = batch_of(model)
    batch["labels"] = torch.full_like(batch["labels"], IGNORE)
    assert float(model(**batch).loss.detach()) == 0.0


def test_trainers_may_pass_more(tiny_model):
    model = tiny_model()
    logits = model(**batch_of(model), rows=[1, 2]).logits
    assert torch.equal(logits, model(**batch_of(model)).logits)


@pytest.mark.parametrize(
    ("encoder", "llm"), [("bert", "llama"), ("t5", "gemma3"), ("xlmr", "gpt2"), ("m2m100", "opt")]
)
def test_bf16_is_close_to_fp32(tiny_model, encoder, llm):
    """Stated tolerance: |Δ logit| within 10 % of the largest logit, and the loss within 2 %."""
    full = tiny_model(encoder, llm, dtype=torch.float32)
    half = tiny_model(encoder, llm, dtype=torch.bfloat16)
    assert half.encoder.dtype == half.llm.dtype == torch.bfloat16
    assert {p.dtype for p in half.bridge.parameters()} == {torch.float32}
    half.bridge.load_state_dict(full.bridge.state_dict())
    with torch.no_grad():
        exact, rough = full(**batch_of(full)), half(**batch_of(half))
    assert rough.loss.dtype == torch.float32
    assert (exact.logits - rough.logits.float()).abs().max() <= 0.1 * exact.logits.abs().max()
    assert float(rough.loss) == pytest.approx(float(exact.loss), rel=0.02)


# ------------------------------------------------------------------ frozen
DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5},
    "t5": {"dropout_rate": 0.5},
    "m2m100": {"dropout": 0.5, "attention_dropout": 0.5, "encoder_layerdrop": 0.5},
    "llama": {"attention_dropout": 0.5},
    "gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    "opt": {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5},
}
dropouts = pytest.mark.parametrize(
    ("encoder", "llm"), [("bert", "gpt2"), ("t5", "llama"), ("m2m100", "opt")]
)


@pytest.fixture
def dropping(tiny_model, base_folder):
    def build(encoder, llm, **options):
        folders = [base_folder(family, **DROPOUT[family]) for family in (encoder, llm)]
        return tiny_model(*folders, **options)

    return build


@dropouts
@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_bases_drop_nothing(dropping, encoder, llm, checkpointing):
    model = dropping(encoder, llm, fusion="mean")
    expected = model(**batch_of(model)).loss
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    assert model.training
    assert model.bridge.training
    assert torch.equal(model(**batch_of(model)).loss, expected)
    assert torch.equal(model(**batch_of(model)).loss, expected)


def test_the_fusions_own_dropout_is_on_in_training_alone(tiny_model):
    model = tiny_model(fusion="transformer_softmax", dropout=0.5)
    batch = batch_of(model)
    assert torch.equal(model(**batch).loss, model(**batch).loss)
    model.train()
    assert not torch.equal(model(**batch).loss, model(**batch).loss)
    with model.evaluating():
        assert torch.equal(model(**batch).loss, model(**batch).loss)
    assert model.training
    with contextlib.suppress(KeyError), model.evaluating():
        raise KeyError
    assert model.training


@pairs
def test_only_the_bridge_learns(tiny_model, encoder, llm, options):
    model = tiny_model(encoder, llm, fusion="transformer_softmax", mapper="mlp", **options).train()
    before = state_hash(model.encoder), state_hash(model.llm)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"bridge.{name}" for name, _ in model.bridge.named_parameters()
    }
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**batch_of(model)).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("bridge."), name
    for name in (
        "boundary",
        "mapper.readout.weight",
        "mapper.hidden.weight",
        "fusion.score.weight",
    ):
        assert model.bridge.get_parameter(name).grad.abs().max() > 0, name
    old = model.bridge.boundary.detach().clone()
    optimiser.step()
    assert not torch.equal(model.bridge.boundary, old)
    assert (state_hash(model.encoder), state_hash(model.llm)) == before


@pytest.mark.parametrize("llm", ["llama", "gpt2"])
def test_compiled_layers_change_no_gradient_and_serve_steps_alone(tiny_model, llm):
    model = tiny_model("bert", llm, fusion="transformer_softmax", dropout=0.0).train()
    gradients = []
    for compiled in (False, True):
        if compiled:
            torch.compiler.reset()
            model.compile_llm()
            assert len(model._compiled_layers) == model.llm.config.num_hidden_layers
        model.bridge.zero_grad()
        model(**batch_of(model)).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.bridge.named_parameters()})
    plain, compiled = gradients
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    calls = []
    model._compiled_layers = [
        CompiledLayer(layer, lambda *_, **__: calls.append(1))
        for layer, _ in model._compiled_layers
    ]
    batch = batch_of(model)
    with torch.no_grad():
        model(**batch)
    del batch["labels"]
    model.generate(**batch, max_new_tokens=2)
    assert not calls
    assert not any("forward" in vars(layer) for layer, _ in model._compiled_layers)


def test_a_missing_compiler_is_said_in_one_line(tiny_model, monkeypatch):
    def broken(*_):
        raise RuntimeError("no C++ compiler\nmore")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    with pytest.raises(
        PalamError, match=r"does not work here \(no C\+\+ compiler\); train without it$"
    ):
        tiny_model("bert", "llama").compile_llm()


@pytest.mark.parametrize("llm", tiny.LLMS)
def test_checkpointing_recomputes_and_changes_no_gradient(tiny_model, llm):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model("bert", llm, fusion="transformer_softmax", dropout=0.0)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        layer = next(m for m in model.llm.modules() if isinstance(m, GradientCheckpointingLayer))
        inside = next(
            module
            for module in layer.modules()
            if isinstance(module, torch.nn.LayerNorm) or "RMSNorm" in type(module).__name__
        )
        calls = []
        inside.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        model(**batch_of(model)).loss.backward()
        assert len(calls) == 1 + checkpointing
        gradients.append({name: p.grad for name, p in model.bridge.named_parameters()})
        model.eval()
        calls.clear()
        model(**batch_of(model)).loss.backward()
        assert len(calls) == 1
    plain, recomputed = gradients
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=0, atol=0, msg=name)
