"""The encoder half equals the full model's; nothing else is in memory, and nothing is random."""

import json
from types import SimpleNamespace

import huggingface_hub
import pytest
import tiny
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from palam.errors import PalamError
from palam.models.backbones.encoder import encode, encoder_max_length, encoder_shape, load_encoder

FULL = {
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "umt5": "UMT5ForConditionalGeneration",
    "m2m100": "M2M100ForConditionalGeneration",
    "nllb": "M2M100ForConditionalGeneration",
    "xlmr": "XLMRobertaForMaskedLM",
    "bert": "BertModel",
    "modernbert": "ModernBertForMaskedLM",
}
QUERY = {  # a weight inside the second layer, as the checkpoint names it
    "t5": "encoder.block.1.layer.0.SelfAttention.q.weight",
    "mt5": "encoder.block.1.layer.0.SelfAttention.q.weight",
    "umt5": "encoder.block.1.layer.0.SelfAttention.q.weight",
    "m2m100": "model.encoder.layers.1.self_attn.q_proj.weight",
    "nllb": "model.encoder.layers.1.self_attn.q_proj.weight",
    "xlmr": "roberta.encoder.layer.1.attention.self.query.weight",
    "bert": "encoder.layer.1.attention.self.query.weight",
    "modernbert": "model.layers.1.attn.Wqkv.weight",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        family: tiny.tiny_encoder(tmp_path_factory.mktemp("base") / family, family)
        for family in tiny.FAMILIES
    }


@pytest.fixture
def copy(folders, tmp_path):
    """Write a family's model anew, its tensors and config edited."""

    def write(family, edit=lambda tensors: None, **settings):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        tensors = load_file(folders[family] / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folders[family] / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return write


def batch(folder):
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    texts = ["The quick brown fox, and its friends.", "මම ගෙදර", "ልጆቹ ጥሩ መጽሐፍ"]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]


def full_states(family, folder, ids, mask):
    full = getattr(tf, FULL[family]).from_pretrained(folder)
    inputs = {"input_ids": ids, "attention_mask": mask, "output_hidden_states": True}
    with torch.no_grad():
        if full.config.is_encoder_decoder:
            return full(**inputs, decoder_input_ids=ids[:, :1]).encoder_hidden_states[1:]
        return full(**inputs).hidden_states[1:]


def refusal(action, *args, **kwargs):
    with pytest.raises(PalamError) as caught:
        action(*args, **kwargs)
    error = caught.value
    assert "\n" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    return str(error)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_states_are_the_full_models(folders, family):
    ids, mask = batch(folders[family])
    model = load_encoder(str(folders[family]))
    states = encode(model, ids, mask)
    expected = full_states(family, folders[family], ids, mask)
    assert encoder_shape(model) == (32, tiny.LAYERS) == (expected[0].shape[-1], len(expected))
    for ours, theirs in zip(states, expected, strict=True):
        assert torch.equal(ours, theirs)
    # The comparison means something: states differ between tokens, texts and layers.
    assert (states[-1][0, 0] - states[-1][0, 1]).abs().max() > 0.1
    assert (states[-1][0, 0] - states[-1][1, 0]).abs().max() > 1e-3
    assert (states[-1] - states[-2]).abs().max() > 0.1


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_encoder_alone_is_in_memory_and_frozen(folders, family):
    model = load_encoder(str(folders[family]))
    for name, _ in model.named_parameters():
        assert not any(part in name for part in ("decoder", "lm_head", "pooler", "head."))
    stored = load_file(folders[family] / "model.safetensors")
    expected = 0
    for name, weight in stored.items():
        if not any(part in name for part in ("decoder", "pooler", "head.")):
            expected += weight.numel()
    assert sum(p.numel() for p in model.parameters()) == expected
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert not encode(model, *batch(folders[family]))[0].requires_grad


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_missing_weight_is_an_error(copy, family):
    folder = copy(family, lambda tensors: tensors.pop(QUERY[family]))
    message = refusal(load_encoder, folder)
    inside = QUERY[family]
    for prefix in ("model.encoder.", "roberta.", "model."):
        inside = inside.removeprefix(prefix)
    assert folder in message
    assert f"lacks {inside}" in message


def test_many_missing_weights_make_one_short_line(copy):
    message = refusal(load_encoder, copy("nllb", lambda tensors: tensors.clear()))
    assert "lacks embed_tokens.weight, layer_norm.bias, layer_norm.weight and 48 more" in message


def test_a_weight_of_another_shape_is_an_error(copy):
    assert "another shape" in refusal(load_encoder, copy("bert", intermediate_size=48))


def test_a_missing_pooler_is_none(folders, copy):
    def drop(tensors):
        for name in [n for n in tensors if n.startswith("pooler")]:
            del tensors[name]

    ids, mask = batch(folders["bert"])
    whole = encode(load_encoder(str(folders["bert"])), ids, mask)
    without = encode(load_encoder(copy("bert", drop)), ids, mask)
    assert all(torch.equal(a, b) for a, b in zip(whole, without, strict=True))


@pytest.mark.parametrize("family", ["m2m100", "nllb"])
def test_m2m100_is_not_random(folders, family):
    stored = load_file(folders[family] / "model.safetensors")
    for seed in (1, 2):
        torch.manual_seed(seed)
        mine = load_encoder(str(folders[family])).state_dict()
        assert torch.equal(mine.pop("embed_tokens.weight"), stored["model.shared.weight"])
        for name, value in mine.items():
            assert torch.equal(value, stored["model.encoder." + name])
    assert len(mine) == 16 * tiny.LAYERS + 2


@pytest.mark.parametrize("kept", ["encoder.embed_tokens", "decoder.embed_tokens", "all three"])
def test_tied_embeddings_under_any_of_their_names(folders, copy, kept):
    def rename(tensors):
        table = tensors.pop("model.shared.weight")
        for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens"):
            if kept in (name, "all three"):
                tensors[f"model.{name}.weight"] = table.clone()

    model = load_encoder(copy("nllb", rename))
    stored = load_file(folders["nllb"] / "model.safetensors")
    assert torch.equal(model.embed_tokens.weight, stored["model.shared.weight"])


def test_a_kind_that_is_named_nowhere(tmp_path):
    config = tf.BartConfig(
        vocab_size=99,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=40,
        init_std=0.3,
    )
    full = tf.BartForConditionalGeneration(config).eval()
    full.save_pretrained(tmp_path)
    model = load_encoder(str(tmp_path))
    ids = torch.arange(5, 25)[None]
    mine = encode(model, ids, torch.ones_like(ids))
    with torch.no_grad():
        theirs = full(ids, output_hidden_states=True).encoder_hidden_states[1:]
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not [n for n, _ in model.named_parameters() if "decoder" in n]
    assert encoder_max_length(model, SimpleNamespace(model_max_length=10**30)) == 40


def test_dtype(folders):
    model = load_encoder(str(folders["nllb"]), dtype=torch.bfloat16, device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert encoder_shape(model) == (32, tiny.LAYERS)


# ------------------------------------------------------------------ how much it can take
TABLE = {"xlmr": 128, "bert": 128, "m2m100": 128, "nllb": 128, "modernbert": 256}


@pytest.mark.parametrize("family", TABLE)
def test_max_length_is_the_models(folders, family):
    model = load_encoder(str(folders[family]))
    assert encoder_max_length(model, SimpleNamespace(model_max_length=10**30)) == TABLE[family]
    assert encoder_max_length(model, SimpleNamespace(model_max_length=100)) == 100
    ids = torch.full((1, TABLE[family]), 7)
    assert encode(model, ids, torch.ones_like(ids))[-1].shape[1] == TABLE[family]
    if family in ("xlmr", "bert"):  # one token more is beyond the table
        ids = torch.full((1, TABLE[family] + 1), 7)
        with pytest.raises((IndexError, RuntimeError)):
            encode(model, ids, torch.ones_like(ids))


@pytest.mark.parametrize("family", ["t5", "mt5", "umt5"])
def test_relative_positions_set_no_limit(folders, family):
    model = load_encoder(str(folders[family]))
    assert encoder_max_length(model, SimpleNamespace(model_max_length=10**30)) == 10**9
    assert encoder_max_length(model, tf.AutoTokenizer.from_pretrained(folders[family])) == 512


# ------------------------------------------------------------------ refusals
def test_no_such_folder(tmp_path):
    assert "no such folder" in refusal(load_encoder, str(tmp_path / "nothing"))


def test_not_a_model_folder(tmp_path):
    assert "config.json" in refusal(load_encoder, str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    assert str(tmp_path) in refusal(load_encoder, str(tmp_path))


def test_a_config_with_a_wrong_value(copy):
    assert "Validation error for field 'hidden_size': TypeError" in refusal(
        load_encoder, copy("bert", hidden_size="x")
    )


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    message = refusal(load_encoder, "someone/an-encoder")
    assert message.startswith(
        "encoder 'someone/an-encoder' cannot be loaded: no such folder, and not in the cache"
    )


def test_pickled_weights_are_refused(folders, tmp_path):
    (tmp_path / "config.json").write_text((folders["bert"] / "config.json").read_text())
    torch.save(load_file(folders["bert"] / "model.safetensors"), tmp_path / "pytorch_model.bin")
    message = refusal(load_encoder, str(tmp_path))
    assert "no model.safetensors" in message
    assert "pickled" in message


def test_damaged_weights(copy, tmp_path):
    folder = copy("bert")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as file:
        file.truncate(20_000)
    assert folder in refusal(load_encoder, folder)


def test_remote_code_is_never_run(copy, tmp_path):
    folder = copy(
        "bert", model_type="mine", auto_map={"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}
    )
    (tmp_path / "model" / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refusal(load_encoder, folder)
    assert not (tmp_path / "ran").exists()


def test_a_decoder_only_model_is_no_encoder(tmp_path):
    model = load_encoder(str(tiny.tiny_llm(tmp_path, "llama")))
    assert "left to right" in refusal(encoder_shape, model)


@pytest.mark.parametrize(
    ("states", "fault"),
    [
        (None, "no hidden states"),
        ([(2, 8, 32)], "no hidden states"),
        ([(2, 8, 32), (2, 8, 32), (2, 4, 32)], "differ in shape"),
        ([(2, 8, 32), (2, 8, 48), (2, 8, 32)], "differ in shape"),
        ([(2, 8, 32), (2, 4, 32), (2, 4, 32)], "differ in shape"),
    ],
)
def test_unusable_states(folders, states, fault):
    model = load_encoder(str(folders["bert"]))
    hidden_states = states and tuple(torch.randn(shape) for shape in states)
    model.forward = lambda **inputs: SimpleNamespace(hidden_states=hidden_states)
    assert fault in refusal(encoder_shape, model)


def test_a_model_that_fails_on_ids(folders):
    model = load_encoder(str(folders["bert"]))

    def forward(**inputs):
        raise ValueError("pixel_values are needed\nsee the manual")

    model.forward = forward
    assert refusal(encoder_shape, model).endswith("as the encoder: pixel_values are needed")
