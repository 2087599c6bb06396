"""A LoRA on the LLM trains and is saved beside the bridge, and leaves the base weights alone."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file

from palam import PalamError, PalamModel

TEXTS = ["I am going home.", "මම ගෙදර යනවා.", ""]
ANSWERS = ["travel", "health", "a"]
DROPOUT = {"llama": {"attention_dropout": 0.5}, "gpt2": {"resid_pdrop": 0.5}, "gemma3": {}}


def batch_of(model):
    return dict(model.processor(TEXTS, ANSWERS))


def base_hash(model):
    """Of the LLM's own weights, in order, whatever they are called inside a LoRA."""
    digest = hashlib.sha256()
    for name, value in model.llm.named_parameters():
        if "lora_" not in name:
            digest.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def step(model, lr=0.05):
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    loss = model(**batch_of(model)).loss
    loss.backward()
    optimiser.step()
    return loss.detach()


@pytest.fixture(params=DROPOUT)
def model(tiny_model, base_folder, request):
    llm = base_folder(request.param, **DROPOUT[request.param])
    adapted = tiny_model("bert", llm)
    torch.manual_seed(0)
    adapted.add_lora(rank=2)
    return adapted


def test_starts_as_the_base(tiny_model, model):
    plain = tiny_model("bert", model.config.llm)
    assert torch.equal(plain(**batch_of(plain)).logits, model(**batch_of(model)).logits)
    assert base_hash(plain) == base_hash(model)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bridge_and_adapter_learn_and_the_base_does_not(model, checkpointing):
    before = base_hash(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"bridge", "llm"}
    assert all("lora_" in name for name in learning if name.startswith("llm."))
    assert torch.equal(
        model(**batch_of(model)).loss, model(**batch_of(model)).loss
    )  # the base drops nothing
    first = step(model)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in learning), name
    for _ in range(5):
        last = step(model)
    assert last < first
    assert base_hash(model) == before
    adapted = [p for name, p in model.llm.named_parameters() if "lora_B" in name]
    assert all(p.abs().max() > 0 for p in adapted)


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_saved_beside_the_bridge_and_loaded_equal(model, tmp_path):
    model.train()
    for _ in range(2):
        step(model)
    model.eval()
    model.save_pretrained(tmp_path / "out")
    assert files_in(tmp_path / "out") == {
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    weights = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    assert "adapter/" in (tmp_path / "out" / "README.md").read_text()
    loaded = PalamModel.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(loaded(**batch_of(loaded)).logits, model(**batch_of(model)).logits)
    assert base_hash(loaded) == base_hash(model)
    options = {"max_new_tokens": 4, "do_sample": False}
    expected = model.generate(**model.processor(TEXTS), **options)
    assert torch.equal(loaded.generate(**loaded.processor(TEXTS), **options), expected)
    loaded.save_pretrained(tmp_path / "again")
    assert files_in(tmp_path / "again") == files_in(tmp_path / "out")


def test_a_loaded_bridge_can_get_one(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path / "out")
    loaded = PalamModel.from_pretrained(tmp_path / "out")
    loaded.add_lora(rank=2)
    loaded.save_pretrained(tmp_path / "out")
    assert "adapter/" in (tmp_path / "out" / "README.md").read_text()
    assert PalamModel.from_pretrained(tmp_path / "out").config.adapter


def test_only_peft_reads_it_too(model, tmp_path):
    peft = pytest.importorskip("peft")
    from palam.models.backbones.llm import load_llm

    model.train()
    step(model)
    model.eval()
    model.save_pretrained(tmp_path / "out")
    bare = load_llm(model.config.llm)
    llm = peft.PeftModel.from_pretrained(bare, str(tmp_path / "out" / "adapter"))
    ids = torch.arange(10, 20)[None]
    with torch.no_grad():
        assert torch.equal(llm(ids).logits, model.llm(ids).logits)


def test_one_adapter_at_most(model):
    with pytest.raises(PalamError, match="already"):
        model.add_lora()


def test_without_peft(tiny_model, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PalamError, match=r'pip install "palam\[lora\]"'):
        tiny_model().add_lora()
