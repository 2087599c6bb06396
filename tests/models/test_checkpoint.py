"""A bridge's start, and its checkpoint: the bridge alone, bit for bit, whole or not at all."""

import os
import shutil
import stat

import pytest
import tiny
import torch
import transformers as tf
from helpers import PROMPT, batch_of, refusal, state_hash

from palam import PalamBridge, PalamConfig, PalamError, PalamModel, PalamProcessor
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.models.encoding import LiveEncoding
from palam.models.registry import FUSIONS, MAPPERS


def rms(x):
    return float(x.detach().float().square().mean().sqrt())


# ------------------------------------------------------------------ the start
@pytest.mark.parametrize("llm", ["llama", "gemma3"])
@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_mapper_starts_at_the_embeddings_scale(tiny_model, monkeypatch, fusion, mapper, llm):
    batches = []
    real = LiveEncoding.layers

    def layers(self, *batch):
        batches.append(batch)
        return real(self, *batch)

    monkeypatch.setattr(LiveEncoding, "layers", layers)
    model = tiny_model("t5", llm, fusion=fusion, mapper=mapper)
    with torch.no_grad():
        first_mapped, _ = model.bridge(model.encode(*batches[0]))
        text = model.processor(list(tiny.TEXT.values()))
        mapped = model.encoding.mapped(text["encoder_input_ids"], text["encoder_attention_mask"])
        english = torch.tensor(model.processor.llm_tokenizer.encode(tiny.TEXT["en"]))
        embedded = model.embed(english)
    assert rms(first_mapped) == pytest.approx(model.config.embedding_rms, rel=1e-4)
    assert rms(mapped) == pytest.approx(model.config.embedding_rms, rel=0.3)
    assert rms(mapped) == pytest.approx(rms(embedded), rel=0.4)
    assert rms(model.bridge.boundary) == pytest.approx(model.config.embedding_rms, rel=0.5)


def test_the_seed_decides_the_start_and_nothing_else(tiny_model):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = tiny_model(fusion="transformer_softmax")
    assert torch.equal(torch.rand(1), expected)
    same = tiny_model(fusion="transformer_softmax")
    other = tiny_model(fusion="transformer_softmax", seed=1)
    assert state_hash(model.bridge) == state_hash(same.bridge) != state_hash(other.bridge)
    assert not model.training


def test_loaded_bases_do_as_well(tiny_model, base_folder):
    encoder = load_encoder(str(base_folder("bert")))
    llm = load_llm(str(base_folder("llama")))
    llm.requires_grad_(True).train()
    encoder.requires_grad_(True).train()
    model = PalamModel.from_bases(
        encoder, llm, fusion="global_softmax", mode="paper", normalize="none"
    )
    assert not any(p.requires_grad for base in (encoder, llm) for p in base.parameters())
    assert not any(module.training for module in model.modules())
    assert model.encoder is encoder
    assert model.llm is llm
    assert state_hash(model.bridge) == state_hash(tiny_model().bridge)
    assert model.config.to_dict() == tiny_model().config.to_dict()


def test_max_length(tiny_model):
    assert tiny_model("bert").processor.max_length == 128
    assert tiny_model("t5").processor.max_length == 256  # its tokenizer's limit is 512
    assert tiny_model("bert", max_length=50).processor.max_length == 50
    assert "at most 128" in refusal(tiny_model, "bert", max_length=200)
    model = tiny_model("bert", llm="gpt2", max_length=10, mode="prompt", prompt=PROMPT)
    row = model.processor.features(["home " * 99], ["an answer " * 20])[0]
    assert len(row["encoder_input_ids"]) == 10
    assert len(row["labels"]) > 40


def test_what_cannot_be_bridged(tiny_model, base_folder, tmp_path):
    assert "left to right" in refusal(tiny_model, base_folder("gpt2"), "llama")
    assert "decoder-only" in refusal(tiny_model, "bert", base_folder("xlmr"))
    assert "encoder-decoder" in refusal(tiny_model, "bert", base_folder("t5"))
    assert "no such folder" in refusal(tiny_model, tmp_path / "nothing")
    assert "must be one of: last" in refusal(tiny_model, fusion="attention")
    assert "no option of" in refusal(tiny_model, fusion="last", rank=3)


# ------------------------------------------------------------------ the checkpoint
CASES = [
    *((fusion, mapper, {}) for fusion in FUSIONS for mapper in MAPPERS),
    ("global_softmax", "linear", {"paper_temperature": True}),
    ("mean", "mlp", {"normalize": "layer", "hidden_size": 8}),
    ("transformer_softmax", "linear", {"rank": 4, "normalize": "layer", "dropout": 0.2}),
]
UNCHANGED = ("model.safetensors", "config.json", "processor_config.json", "README.md")


def trained(model):
    """The same model with weights that no initialisation gives."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.bridge.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def same_file(path, other):
    return path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("fusion", "mapper", "options"), CASES)
def test_saved_then_loaded_is_bit_equal(tiny_model, tmp_path, fusion, mapper, options):
    bridge = {"fusion": fusion, "mapper": mapper, **options}
    model = trained(tiny_model("xlmr", "gemma3", mode="prompt", prompt=PROMPT, **bridge))
    model.config.task = {"name": "x", "family": "x", "text": "{text}", "labels": [["a", "b"]]}
    model.save_pretrained(tmp_path / "out")
    loaded = PalamModel.from_pretrained(tmp_path / "out")
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(model(**batch_of(model)).logits, loaded(**batch_of(loaded)).logits)
    assert loaded.processor.template == model.processor.template
    assert loaded.config.task == model.config.task
    loaded.save_pretrained(tmp_path / "again")
    for name in UNCHANGED:
        assert same_file(tmp_path / "again" / name, tmp_path / "out" / name), name


def test_a_checkpoint_is_the_bridge_alone(tiny_model, tmp_path):
    model = tiny_model("t5", "llama")
    before = os.umask(0o022)
    try:
        model.save_pretrained(tmp_path / "a" / "out")
    finally:
        os.umask(before)
    files = {path.name: path for path in (tmp_path / "a" / "out").iterdir()}
    assert set(files) == set(UNCHANGED)
    weights = 4 * sum(p.numel() for p in model.bridge.parameters())
    assert weights < files["model.safetensors"].stat().st_size < weights + 1000
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o644}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_the_auto_classes_know_it(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path / "out")
    assert isinstance(tf.AutoConfig.from_pretrained(tmp_path / "out"), PalamConfig)
    assert isinstance(tf.AutoModel.from_pretrained(tmp_path / "out"), PalamBridge)
    assert isinstance(tf.AutoProcessor.from_pretrained(tmp_path / "out"), PalamProcessor)


def test_a_crash_while_saving_leaves_the_old_checkpoint(tiny_model, tmp_path, monkeypatch):
    model = tiny_model()
    model.save_pretrained(tmp_path / "out")
    with torch.no_grad():
        before = model(**batch_of(model)).logits

    def fail(self, folder):
        raise OSError(28, "No space left on device")

    trained(model)
    with monkeypatch.context() as patch:
        patch.setattr(PalamProcessor, "save_pretrained", fail)
        with pytest.raises(PalamError, match="no space left"):
            model.save_pretrained(tmp_path / "out")
        with pytest.raises(PalamError, match="no space left"):
            model.save_pretrained(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with torch.no_grad():
        loaded = PalamModel.from_pretrained(tmp_path / "out")
        assert torch.equal(loaded(**batch_of(model)).logits, before)
    model.save_pretrained(tmp_path / "out")
    loaded = PalamModel.from_pretrained(tmp_path / "out")
    assert state_hash(loaded.bridge) == state_hash(model.bridge)


def test_nobodys_folder_is_replaced(tiny_model, tmp_path, base_folder):
    model = tiny_model()
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds other files" in refusal(model.save_pretrained, tmp_path)
    copied = shutil.copytree(base_folder("llama"), tmp_path / "llama")
    assert "holds other files" in refusal(model.save_pretrained, copied)
    assert (copied / "model.safetensors").exists()


def test_bases_that_have_moved(tiny_model, base_folder, tmp_path):
    encoder = shutil.copytree(base_folder("xlmr"), tmp_path / "xlmr")
    llm = shutil.copytree(base_folder("llama"), tmp_path / "llama")
    model = tiny_model(encoder, llm)
    model.save_pretrained(tmp_path / "out")
    encoder = str(shutil.move(encoder, tmp_path / "moved-xlmr"))
    llm = str(shutil.move(llm, tmp_path / "moved-llama"))
    assert "xlmr" in refusal(PalamModel.from_pretrained, tmp_path / "out")
    loaded = PalamModel.from_pretrained(tmp_path / "out", encoder=encoder, llm=llm)
    given = PalamModel.from_pretrained(tmp_path / "out", encoder=loaded.encoder, llm=loaded.llm)
    assert given.llm is loaded.llm
    with torch.no_grad():
        expected = model(**batch_of(model)).logits
        assert torch.equal(loaded(**batch_of(loaded)).logits, expected)
        assert torch.equal(given(**batch_of(given)).logits, expected)
    loaded.save_pretrained(tmp_path / "again")
    for name in UNCHANGED:  # under their old names
        assert same_file(tmp_path / "again" / name, tmp_path / "out" / name), name


def test_a_revision_is_the_models_and_its_tokenizers(tiny_model, base_folder, tmp_path):
    model = tiny_model(encoder_revision="v2")
    assert model.config.encoder_revision == model.processor.encoder_revision == "v2"
    model.save_pretrained(tmp_path / "out")
    moved = PalamModel.from_pretrained(tmp_path / "out", encoder=str(base_folder("bert")))
    moved.save_pretrained(tmp_path / "again")
    for name in UNCHANGED:
        assert same_file(tmp_path / "again" / name, tmp_path / "out" / name), name


def test_another_base_is_refused(tiny_model, base_folder, tmp_path):
    tiny_model().save_pretrained(tmp_path / "out")
    load = PalamModel.from_pretrained
    other = str(base_folder("llama", seed=1))
    message = refusal(load, tmp_path / "out", llm=other)
    assert f"{other} is not the LLM" in message
    assert "(other weights)" in message
    assert "--allow-mismatch" in message
    assert "another vocabulary" in refusal(load, tmp_path / "out", llm=str(base_folder("qwen")))
    assert "is not the encoder" in refusal(
        load, tmp_path / "out", encoder=str(base_folder("bert", seed=1))
    )
    loaded = load(tmp_path / "out", llm=other, allow_mismatch=True)
    assert state_hash(loaded.llm) == state_hash(load_llm(other))
    assert loaded(**batch_of(loaded)).loss.isfinite()
    wide = str(base_folder("llama", hidden_size=16))
    assert "this bridge needs (32, 3, 32)" in refusal(
        load, tmp_path / "out", llm=wide, allow_mismatch=True
    )


def test_any_dtype_is_the_same_base(tiny_model, tmp_path):
    tiny_model("m2m100", "gemma3").save_pretrained(tmp_path / "out")
    loaded = PalamModel.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    assert loaded.llm.dtype == torch.bfloat16


def test_no_checkpoint_there(tmp_path, base_folder):
    for path in (tmp_path / "nothing", base_folder("bert")):
        assert str(path) in refusal(PalamModel.from_pretrained, path)
