import json
import re
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from palam import PalamBridge, PalamConfig, PalamError, PalamProcessor, Template
from palam.models.checkpoint import load_bridge
from palam.models.registry import FUSIONS, MAPPERS

SHAPES = {
    "encoder_hidden_size": 8,
    "encoder_num_layers": 3,
    "llm_hidden_size": 12,
    "embedding_rms": 0.1,
}


def some_states(*shape):
    return [torch.randn(*shape, 8) for _ in range(3)]


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    config = PalamConfig(**SHAPES, fusion="transformer_softmax", fusion_options={"rank": 4})
    PalamBridge(config).save_pretrained(tmp_path / "bridge")
    return tmp_path / "bridge"


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_bridge_is_the_mapper_of_the_fusion_and_loads_bit_equal(tmp_path, fusion, mapper):
    options = {
        "fusion_options": {"normalize": "layer"},
        "mapper_options": {"hidden_size": 10} if mapper == "mlp" else {},
    }
    bridge = PalamBridge(PalamConfig(**SHAPES, fusion=fusion, mapper=mapper, **options)).eval()
    states = some_states(2, 5)
    fused, weights = bridge.fusion(states)
    mapped, mapped_weights = bridge(states)
    assert mapped.shape == (2, 5, 12)
    assert torch.equal(mapped, bridge.mapper(fused))
    bridge.save_pretrained(tmp_path)
    loaded = load_bridge(tmp_path).eval()
    assert loaded.state_dict().keys() == bridge.state_dict().keys()
    for key, value in bridge.state_dict().items():
        assert loaded.state_dict()[key].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[key], value), key
    again, weights_again = loaded(states)
    assert torch.equal(again, mapped)
    if weights is None:
        assert weights_again is None
    else:
        assert torch.equal(weights_again, mapped_weights)
    assert loaded.config.fusion_options == {"normalize": "layer"}


def test_the_boundary_starts_at_the_rms_of_the_embeddings():
    torch.manual_seed(0)
    boundary = PalamBridge(PalamConfig(**SHAPES | {"llm_hidden_size": 4000})).boundary
    assert boundary.shape == (4000,)
    assert boundary.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_half_precision_states_keep_the_weights_in_float32(fusion):
    config = PalamConfig(**SHAPES, fusion=fusion, fusion_options={"normalize": "layer"})
    bridge = PalamBridge(config).eval()
    states = some_states(2, 5)
    exact, _ = bridge(states)
    rough, _ = bridge([state.bfloat16() for state in states])
    assert (rough.float() - exact).norm() < 0.02 * exact.norm()
    rough.float().sum().backward()
    assert {parameter.dtype for parameter in bridge.parameters()} == {torch.float32}
    assert bridge.mapper.readout.weight.grad.dtype == torch.float32


def test_the_auto_classes_know_a_checkpoint(saved, base_folder):
    assert type(AutoConfig.from_pretrained(saved)) is PalamConfig
    model = AutoModel.from_pretrained(saved)
    assert type(model) is PalamBridge
    assert torch.equal(model.boundary, load_bridge(saved).boundary)
    bases = {"encoder": str(base_folder("bert")), "llm": str(base_folder("llama"))}
    tokenizers = [AutoProcessor.from_pretrained(folder) for folder in bases.values()]
    template = Template("prompt", "", " is")
    PalamProcessor(*tokenizers, **bases, template=template).save_pretrained(saved)
    processor = AutoProcessor.from_pretrained(saved)
    assert type(processor) is PalamProcessor
    assert processor.template == template


def test_a_loaded_model_gives_the_same_bits(tiny_model, tmp_path):
    """Weights at another alignment in memory, as in a mapped file, would change its last bits."""
    model = tiny_model("nllb", fusion="transformer_softmax", mode="prompt", prompt="{text} is")
    model.save_pretrained(tmp_path / "bridge")
    loaded = type(model).from_pretrained(tmp_path / "bridge")
    batch = model.processor(["මම ගෙදර යනවා.", "The dog."], languages=["si", None])
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"fusion": "first"},
            f"fusion 'first' is not known; it must be one of: {', '.join(FUSIONS)}",
        ),
        (
            {"mapper": "conv"},
            f"mapper 'conv' is not known; it must be one of: {', '.join(MAPPERS)}",
        ),
    ],
)
def test_an_unknown_name_is_refused(settings, message):
    with pytest.raises(PalamError) as error:
        PalamBridge(PalamConfig(**SHAPES, **settings))
    assert str(error.value) == message


def without(key):
    def damage(folder):
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        del tensors[key]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def config(**changes):
    def damage(folder):
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | changes))

    return damage


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


DAMAGE = {
    "lost weight": (without("boundary"), "the weight boundary is missing or does not fit"),
    "cut weights": (cut("model.safetensors", 300), "invalid header length"),
    "empty weights": (cut("model.safetensors", 0), "header too small"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "it has no model.safetensors",
    ),
    "pickled weights": (pickled, "it has no model.safetensors"),
    "cut config": (cut("config.json", 20), "not a valid JSON file"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "another model": (config(model_type="bert"), "holds a bert model, not a Palam checkpoint"),
    "other width": (config(llm_hidden_size=13), "the weight boundary is missing or does not fit"),
    "other fusion": (
        config(fusion="mean", fusion_options={}),
        "the weight fusion.cls is missing or does not fit",
    ),
    "unknown fusion": (config(fusion="first"), "fusion 'first' is not known"),
    "unknown option": (config(fusion_options={"x": 1}), "unexpected keyword argument 'x'"),
    "nothing": (shutil.rmtree, "no such folder"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_one_line(saved, damage, message, capfd):
    damage(saved)
    with pytest.raises(PalamError, match=re.escape(message)) as error:
        load_bridge(saved)
    assert "\n" not in str(error.value)
    assert str(saved) in str(error.value)
    assert "LOAD REPORT" not in capfd.readouterr().err
