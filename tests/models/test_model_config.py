"""A configuration holds what a user chose, as the right types, or one line says what is wrong."""

import dataclasses
import inspect
import re
import subprocess
import sys

import pytest
import torch
from helpers import refusal

from palam.models.configuration import PalamConfig
from palam.models.fusion.base import Fusion
from palam.models.fusion.mean import Mean
from palam.models.mapper import LinearMapper
from palam.models.model_config import ModelConfig, option_defaults
from palam.models.registry import FUSIONS, MAPPERS, register_fusion, register_mapper


def test_defaults():
    config = ModelConfig()
    assert (config.encoder, config.llm) == ("starter:encoder", "starter:llm")
    assert (config.fusion, config.mapper, config.mode) == ("mean", "linear", "prompt")
    assert config.normalize == "layer"
    assert config.fusion_options == config.mapper_options == {}
    assert config.all_fusion_options == {"normalize": "layer"}
    assert config.prompt is config.max_length is config.encoder_revision is None
    assert not config.append_source_tokens


def test_a_bridges_configuration_has_the_same_defaults():
    config = PalamConfig()
    assert (config.fusion, config.mapper) == (ModelConfig().fusion, ModelConfig().mapper)


def test_text_becomes_the_options_type():
    config = ModelConfig(
        fusion="transformer_softmax",
        fusion_options={"rank": "32", "dropout": "1e-1", "feedforward": None},
        mapper="mlp",
        mapper_options={"hidden_size": "20"},
        max_length="64",
        append_source_tokens="true",
    )
    assert config.fusion_options == {"rank": 32, "dropout": 0.1, "feedforward": None}
    assert config.mapper_options == {"hidden_size": 20}
    assert config.max_length == 64
    assert config.append_source_tokens is True
    paper = ModelConfig(fusion="global_softmax", fusion_options={"paper_temperature": "true"})
    assert paper.all_fusion_options == {"normalize": "layer", "paper_temperature": True}
    message = refusal(ModelConfig, fusion="transformer_softmax", fusion_options={"rank": "several"})
    assert message.startswith("transformer_softmax's rank is 'several'; it must be a whole number")


def test_an_unknown_name_lists_those_there_are():
    known = ", ".join(FUSIONS)
    assert refusal(ModelConfig, fusion="first") == f"fusion is 'first'; it must be one of: {known}"
    known = ", ".join(MAPPERS)
    assert refusal(ModelConfig, mapper="conv") == f"mapper is 'conv'; it must be one of: {known}"
    assert "none, layer" in refusal(ModelConfig, normalize="batch")
    assert "paper, prompt, chat" in refusal(ModelConfig, mode="Chat")
    assert refusal(ModelConfig, max_length=7) == "max_length is 7; it must be at least 8"


def test_an_unknown_option_lists_those_there_are():
    message = refusal(ModelConfig, fusion="transformer_softmax", fusion_options={"ranks": 4})
    assert message == (
        "'ranks' is no option of transformer_softmax; its options are: rank, feedforward, dropout"
    )
    message = refusal(ModelConfig, fusion_options={"rank": 4})
    assert message == "'rank' is no option of mean; its options are: first_layer"
    message = refusal(ModelConfig, mapper="mlp", mapper_options={"rank": 4})
    assert message == "'rank' is no option of mlp; its options are: hidden_size"


def test_the_normalisation_is_a_setting_of_its_own():
    message = refusal(ModelConfig, fusion_options={"normalize": "layer"})
    assert message == "normalize is a setting of its own, not one of the fusion's options"
    assert ModelConfig(normalize="none").all_fusion_options == {"normalize": "none"}


# ------------------------------------------------------------------ flat options
def test_options_go_to_the_fusion_or_the_mapper():
    config = ModelConfig.from_options(
        fusion="transformer_softmax", mapper="mlp", rank=4, normalize="layer", hidden_size=20
    )
    assert config.all_fusion_options == {"normalize": "layer", "rank": 4}
    assert config.mapper_options == {"hidden_size": 20}
    assert ModelConfig.from_options() == ModelConfig()
    config = ModelConfig.from_options(
        fusion="transformer_softmax", fusion_options={"rank": 4}, dropout=0.5
    )
    assert config.fusion_options == {"rank": 4, "dropout": 0.5}


def test_an_option_that_neither_has_is_refused():
    options = {"fusion": "mean", "mapper": "mlp", "rank": 4}
    assert refusal(ModelConfig.from_options, **options) == (
        "'rank' is no option of mean and mlp; their options are: first_layer, hidden_size"
    )
    assert refusal(ModelConfig.from_options, fusion="last", num_layers=4) == (
        "'num_layers' is no option of last and linear; their options are: none"
    )


# ------------------------------------------------------------------ a fusion of one's own
class Scaled(Mean):
    """The mean times a factor."""

    def __init__(self, hidden_size, num_layers, normalize, factor: float = 1.0):
        super().__init__(hidden_size, num_layers, normalize)
        self.factor = factor

    def forward(self, states):
        """See [`Fusion.forward`]."""
        fused, weights = super().forward(states)
        return self.factor * fused, weights


class Doubled(LinearMapper):
    """The fused states, some times over."""

    def __init__(self, input_size, output_size, times: int = 2):
        super().__init__(times * input_size, output_size)
        self.times = times

    def features(self, fused):
        """What the readout reads."""
        return torch.cat([fused] * self.times, -1)


@pytest.fixture
def registered(monkeypatch):
    """A fusion `scaled` and a mapper `doubled`, for one test."""
    for registry in (FUSIONS, MAPPERS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    register_fusion("scaled", Scaled)
    register_mapper("doubled", Doubled)


def test_a_registered_fusions_options_reach_it(registered, tiny_model, tmp_path):
    assert option_defaults(FUSIONS, "scaled") == {"factor": 1.0}
    config = ModelConfig(fusion="scaled", fusion_options={"factor": "2"}, mapper="doubled")
    assert config.fusion_options == {"factor": 2.0}
    model = tiny_model(fusion="scaled", factor="2", mapper="doubled", times="3")
    assert isinstance(model.bridge.fusion, Fusion)
    assert model.bridge.fusion.factor == 2.0
    assert model.bridge.mapper.readout.in_features == 3 * 32
    assert model.config.fusion_options == {"normalize": "none", "factor": 2.0}
    model.save_pretrained(tmp_path / "out")
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert loaded.bridge.fusion.factor == 2.0
    batch = model.processor("I am going home.")
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    message = refusal(ModelConfig, fusion="scaled", fusion_options={"rank": 4})
    assert message == "'rank' is no option of scaled; its options are: factor"


@pytest.mark.parametrize(
    ("register", "own"), [(register_fusion, Scaled), (register_mapper, Doubled)]
)
def test_they_are_written_as_the_documentation_says(register, own):
    rule = register.__doc__.split("takes ")[1].split(", as that of")[0]
    parameters = list(inspect.signature(own).parameters)
    assert re.findall(r"`(\w+)`", rule) == parameters[:-1]  # the last one is its option


# ------------------------------------------------------------------ no torch
def test_it_is_made_without_torch():
    code = (
        "import sys; from palam.models.model_config import ModelConfig; ModelConfig();"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_field_can_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().fusion = "last"
