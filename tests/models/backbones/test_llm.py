"""The LLM takes vectors for tokens, stays frozen, and can still recompute its layers."""

import math

import pytest
import tiny
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from transformers.modeling_layers import GradientCheckpointingLayer

from palam.errors import PalamError
from palam.models.backbones.llm import (
    check_llm,
    embedding_rms,
    enable_checkpointing,
    keep_frozen,
    load_llm,
    rounds_much,
)

DROPOUT = {
    "llama": {"attention_dropout": 0.5},
    "opt": {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5},
    "gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        family: tiny.tiny_llm(
            tmp_path_factory.mktemp("base") / family, family, **DROPOUT.get(family, {})
        )
        for family in tiny.LLMS
    }


def refusal(action, *args):
    with pytest.raises(PalamError) as caught:
        action(*args)
    error = caught.value
    assert "\n" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    return str(error)


@pytest.mark.parametrize("family", tiny.LLMS)
def test_loads_frozen_and_complete(folders, family):
    model = load_llm(str(folders[family]))
    reference = tf.AutoModelForCausalLM.from_pretrained(folders[family])
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, reference(ids).logits)
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    check_llm(model)


def edited(source, target, edit):
    tensors = load_file(source / "model.safetensors")
    edit(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text((source / "config.json").read_text())
    return str(target)


def test_a_missing_head_is_an_error_unless_tied(folders, tmp_path):
    folder = edited(folders["llama"], tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    assert refusal(load_llm, folder).endswith("the checkpoint lacks lm_head.weight")
    assert "lm_head.weight" not in load_file(folders["qwen"] / "model.safetensors")
    qwen = load_llm(str(folders["qwen"]))
    assert qwen.lm_head.weight is qwen.model.embed_tokens.weight


def test_refused_when_loading(tmp_path):
    assert "no such folder" in refusal(load_llm, str(tmp_path / "nothing"))
    tiny.tiny_encoder(tmp_path / "t5", "t5")
    assert "encoder-decoder" in refusal(load_llm, str(tmp_path / "t5"))


def test_remote_code_is_never_run(tmp_path, monkeypatch):
    # It has no causal class of its own.
    config = tf.DebertaV2Config(auto_map={"AutoModelForCausalLM": "mine.Mine"})
    config.save_pretrained(tmp_path)
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks where it is not told
    refusal(load_llm, str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_an_encoder_is_no_llm(tmp_path):
    model = load_llm(str(tiny.tiny_encoder(tmp_path, "xlmr")))
    assert "decoder-only" in refusal(check_llm, model)


def test_a_model_without_inputs_embeds_is_refused(folders, monkeypatch):
    model = load_llm(str(folders["llama"]))
    monkeypatch.setattr(model, "forward", lambda input_ids, attention_mask=None: None)
    assert "takes no inputs_embeds" in refusal(check_llm, model)


def test_a_model_with_embeddings_per_layer_is_refused(tmp_path):
    options = {
        "vocab_size_per_layer_input": 420,
        "hidden_size": 32,
        "hidden_size_per_layer_input": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0, 0.0],
        "laurel_rank": 4,
        "layer_types": ["full_attention", "full_attention"],
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    tokenizer = tiny.fast(tiny.byte_bpe(["<pad>", "<eos>", "<bos>"]))
    gemma3n = tiny.Architecture(tokenizer, "Gemma3nText", "Gemma3nForCausalLM", options)
    tiny.build(tmp_path, gemma3n, {})
    assert "needs token ids beside inputs_embeds" in refusal(check_llm, load_llm(str(tmp_path)))


@pytest.mark.parametrize("family", tiny.LLMS)
def test_embedding_rms_is_of_what_the_module_returns(folders, family):
    model = load_llm(str(folders[family]))
    table = model.get_input_embeddings().weight.double()
    plain = math.sqrt(float((table * table).sum()) / table.numel())
    scale = math.sqrt(32) if family == "gemma3" else 1.0
    assert embedding_rms(model) == pytest.approx(plain * scale, rel=1e-4)


def test_embedding_rms_samples_the_whole_of_a_large_vocabulary(tmp_path):
    model = load_llm(str(tiny.tiny_llm(tmp_path, "qwen", vocab_size=20_000)))
    table = model.get_input_embeddings().weight
    table[10_000:] *= 3.0  # so a sample of the first rows alone would be far off
    assert embedding_rms(model) == pytest.approx(float(table.square().mean().sqrt()), rel=0.02)


# ------------------------------------------------------------------ gradient checkpointing
def gradient(model):
    """Loss, the vectors' gradient, and how often a module inside the first layer ran."""
    torch.manual_seed(0)
    ids = torch.arange(10, 34).view(2, 12)
    vectors = model.get_input_embeddings()(ids).detach().requires_grad_()
    layer = next(m for m in model.modules() if isinstance(m, GradientCheckpointingLayer))
    inside = next(
        m
        for m in layer.modules()
        if isinstance(m, torch.nn.LayerNorm) or "RMSNorm" in type(m).__name__
    )
    calls = []
    hook = inside.register_forward_hook(lambda *_: calls.append(1))
    loss = model(inputs_embeds=vectors, labels=ids, use_cache=False).loss
    loss.backward()
    hook.remove()
    return loss.detach(), vectors.grad, len(calls)


@pytest.mark.parametrize("family", tiny.LLMS)
def test_layers_are_recomputed_and_gradients_equal(folders, family):
    model = load_llm(str(folders[family]))
    loss, grad, calls = gradient(model)
    assert calls == 1
    model.train()
    enable_checkpointing(model)
    for _ in range(2):
        again, regrad, recalls = gradient(model)
        assert recalls == 2
        assert torch.equal(again, loss)
        torch.testing.assert_close(regrad, grad, rtol=0, atol=0)
        model.train()  # as Trainer does before every epoch
        keep_frozen(model)
    assert grad.abs().max() > 1e-6
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("family", tiny.LLMS)
def test_only_layers_wake_and_all_sleep_outside_training(folders, family):
    model = load_llm(str(folders[family]))
    ids = torch.arange(10, 18)[None]
    expected = model.generate(ids, max_new_tokens=6, do_sample=False)
    enable_checkpointing(model)
    awake = [module for module in model.modules() if module.training]
    assert len(awake) == 2
    assert all(isinstance(module, GradientCheckpointingLayer) for module in awake)
    keep_frozen(model, training=False)
    assert not any(module.training for module in model.modules())
    assert torch.equal(model.generate(ids, max_new_tokens=6, do_sample=False), expected)


def test_without_checkpointing_nothing_wakes(folders):
    model = load_llm(str(folders["opt"]))
    model.train()
    keep_frozen(model)
    assert not any(module.training for module in model.modules())


def test_a_model_that_cannot_recompute(folders, monkeypatch):
    model = load_llm(str(folders["llama"]))
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    assert "LlamaForCausalLM" in refusal(enable_checkpointing, model)


@pytest.mark.parametrize(
    ("dtype", "is_quantized", "expected"),
    [
        (torch.float32, False, False),
        (torch.bfloat16, False, True),
        (torch.float32, True, True),
    ],
)
def test_weights_in_few_bits_round_much_whatever_is_computed_in(
    tiny_model, monkeypatch, dtype, is_quantized, expected
):
    llm = tiny_model(dtype=dtype).llm
    monkeypatch.setattr(llm, "is_quantized", is_quantized, raising=False)
    assert rounds_much(llm) is expected
