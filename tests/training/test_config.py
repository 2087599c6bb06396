"""Settings: each defined once, checked before anything is loaded, and the same from a file."""

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

import palam
from palam import PalamModel
from palam.bench.named_inputs import FILES
from palam.errors import PalamError
from palam.models.fusion.base import NORMALIZE, Fusion, mix
from palam.models.model_card import PATH_SETTINGS
from palam.models.model_config import ModelConfig
from palam.models.registry import FUSIONS, register_fusion
from palam.models.template import MODES
from palam.training.build import build_model
from palam.training.config import (
    PARTS,
    TRAIN_SETTINGS,
    DataConfig,
    OptimConfig,
    TrainConfig,
    flat_settings,
    setting_names,
)
from palam.training.data import read_training_data
from palam.utils.device import DTYPES

WRONG = {
    "fusion": ("sum", "one of: last, mean, global_softmax, transformer_softmax"),
    "mapper": ("deep", "one of: linear, mlp"),
    "normalize": ("rms", "one of: none, layer"),
    "mode": ("plain", "one of: paper, prompt, chat"),
    "init": ("zero", "one of: solve, random"),
    "dtype": ("int8", "one of: auto, fp32, bf16, fp16"),
    "load_in": ("2bit", "one of: 8bit, 4bit"),
    "epochs": (0.0, "above 0"),
    "lr": (float("nan"), "above 0"),
    "batch_size": (0, "from 1 to 1048576"),
    "eval_steps": (0, "from 1 to 1099511627776"),
    "lora_rank": (0, "from 1 to 16384"),
    "max_train_samples": (-3, "at least 1"),
    "max_eval_samples": (0, "at least 1"),
    "max_length": (2, "at least 8"),
    "patience": (-1, "from 0 to 1099511627776"),
    "passage_words": (-1, "from 0 to 1099511627776"),
    "weight_decay": (-0.1, "at least 0"),
    "max_grad_norm": (-1.0, "at least 0"),
    "cache_states": (-1.0, "from 0 to 1000000.0"),
    "warmup": (1.5, "from 0 to below 1"),
    "average_weights_from": (1.0, "from 0 to below 1"),
    "adam_beta1": (1.0, "from 0 to below 1"),
    "adam_beta2": (-0.5, "from 0 to below 1"),
    "seed": (0.5, "a whole number"),
    "gradient_accumulation_steps": (True, "a whole number"),
    "fusion_lr": ("fast", "a number"),
    "distill": ("yes", "true or false"),
    "fusion_options": ("rank", "`name: value` pairs"),
    "language": (False, "text"),
    "task": ([], "text"),
    "data": (3.5j, "a path"),
    "encoder": (None, "text"),
}


def refusal(**settings):
    """The one line with which settings are refused."""
    with pytest.raises(PalamError) as caught:
        TrainConfig.from_settings(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_one_line(name):
    value, right = WRONG[name]
    message = refusal(**{"task": "sib200", name: value})
    assert message.startswith(f"{name} is {value!r}; it must be ")
    assert message.endswith(right)


OUT_OF_RANGE = {
    "seed": [-5, 2**32, 10**30],
    "batch_size": [10**30, 2**40],
    "gradient_accumulation_steps": [0, 10**30],
    "lora_rank": [10**6, 10**30],
    "max_steps": [-2, 0, 10**30],
    "adam_beta1": [2.0, float("nan")],
    "adam_beta2": [2.0, float("inf")],
    "cache_states": [float("inf"), float("nan"), 1e9],
    "epochs": [float("inf"), -1.0],
    "lr": [float("inf"), -1.0],
    "fusion_lr": [float("inf"), float("nan")],
    "weight_decay": [float("inf"), float("nan")],
    "hidden_weight": [float("inf"), float("nan"), -1.0],
    "max_grad_norm": [float("nan")],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in OUT_OF_RANGE for value in OUT_OF_RANGE[name]]
)
def test_a_setting_out_of_range_is_one_line(name, value):
    message = refusal(task="sib200", **{name: value})
    assert message.startswith(f"{name} is ")
    assert "; it must be " in message


@pytest.mark.parametrize(
    "sources", [{}, {"task": "sib200", "file": "a.csv"}, {"file": "a.csv", "text_file": "b.txt"}]
)
def test_exactly_one_source(sources):
    assert refusal(**sources) == "give exactly one of --task, --file and --text-file"


TASK = {"task": "sib200"}
TEXT = {"text_file": "a.txt"}
LLM_ONLY = "--llm-only trains a LoRA and no bridge: give --lora-rank, and no --append-source-tokens"
RAW_TEXT = "the LLM reads the first part by the bridge alone; give --task or --file"
PROMPTS = "prompts are for --distill, in the mode prompt or chat"
EXCLUDING = [
    ({**TASK, "distill": True}, "distill needs raw text to learn from; give --text-file"),
    ({**TEXT, "prompts_file": "p.txt"}, PROMPTS),
    ({**TEXT, "prompts_file": "p.txt", "distill": True, "mode": "paper"}, PROMPTS),
    ({**TEXT, "hidden_weight": 0.1}, "hidden_weight is for --distill"),
    ({**TEXT, "label_tasks": ["demo"]}, "label_tasks needs the objective label"),
    ({**TEXT, "soft_label_file": "x.jsonl"}, "soft_label_file needs the objective label"),
    ({**TASK, "code_switch": 0.5}, "code_switch needs words of other languages; give --lexicon"),
    (
        {**TASK, "lexicon": "l.csv", "llm_only": True, "lora_rank": 2},
        "a lexicon is for what the encoder reads, and --llm-only has none",
    ),
    *[
        ({**TASK, name: 0.1, "llm_only": True, "lora_rank": 2}, "needs raw text to learn from")
        for name in ("swap_words", "drop_words")
    ],
    *[
        ({**TEXT, name: 0.1, "llm_only": True, "lora_rank": 2}, RAW_TEXT)
        for name in ("swap_words", "drop_words")
    ],
    (
        {**TEXT, "objectives": {"label": 1}},
        "the objective label needs label_tasks or soft_label_file",
    ),
    (
        {**TEXT, "objectives": {"label": 1}, "label_tasks": ["reading"]},
        "label_tasks has reading, a task without labels",
    ),
    (
        {**TASK, "objectives": {"label": 1}, "label_tasks": ["demo"]},
        "objectives needs raw text to learn from; give --text-file",
    ),
    ({**TEXT, "append_source_tokens": True}, RAW_TEXT),
    ({**TEXT, "llm_only": True, "lora_rank": 2}, RAW_TEXT),
    ({**TASK, "llm_only": True}, LLM_ONLY),
    ({**TASK, "llm_only": True, "lora_rank": 2, "append_source_tokens": True}, LLM_ONLY),
    (
        {**TASK, "compile": True, "gradient_checkpointing": True},
        "give one of compile and gradient_checkpointing",
    ),
    (
        {**TASK, "fusion_options": {"normalize": "none"}},
        "normalize is a setting of its own, not one of the fusion's options",
    ),
    (
        {**TASK, "fusion": "last", "fusion_options": {"rank": 4}},
        "'rank' is no option of last; its options are: none",
    ),
    (
        {**TASK, "mapper": "mlp", "mapper_options": {"width": 4}},
        "'width' is no option of mlp; its options are: hidden_size",
    ),
    (
        {**TASK, "fusion": "transformer_softmax", "fusion_options": {"rank": "wide"}},
        "transformer_softmax's rank is 'wide'; it must be a whole number",
    ),
]


@pytest.mark.parametrize(("settings", "message"), EXCLUDING)
def test_settings_that_exclude_each_other_are_one_line(settings, message):
    assert message in refusal(**settings)


def test_an_unknown_setting_is_one_line():
    message = refusal(task="sib200", learning_rate=1)
    assert message.startswith("there is no setting 'learning_rate'; the settings are: adam_beta1, ")


def test_settings_come_back_from_yaml(tmp_path):
    config = TrainConfig.from_settings(
        {
            "file": "a b.csv",
            "text_column": "Q: {q} A: {a}",
            "prompt": "{text}\nමාතෘකාව:",
            "lr": 3e-5,
            "max_train_samples": 7,
            "fusion": "global_softmax",
            "fusion_options": {"paper_temperature": True},
        }
    )
    (tmp_path / "settings.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert TrainConfig.from_yaml(tmp_path / "settings.yaml") == config
    assert config.data.file == Path("a b.csv")


def test_a_part_in_yaml(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(
        "task: sib200\nbatch-size: 8\nlr: 1e-3  # YAML takes this for text\nepochs: 1\n"
    )
    config = TrainConfig.from_yaml(path)
    optim = config.optim
    assert (optim.batch_size, optim.lr, optim.epochs) == (8, 0.001, 1.0)
    expected = TrainConfig(
        data=DataConfig(task="sib200"), optim=OptimConfig(batch_size=8, epochs=1)
    )
    assert config == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "learning_rate: 1",
            "there is no setting 'learning_rate'; the settings are: adam_beta1, ",
        ),
        ("- task", "must hold settings as `name: value` lines"),
        ("task: [", "cannot be read as YAML"),
        (None, "cannot be read as YAML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "my.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PalamError) as caught:
        TrainConfig.from_yaml(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------- the flat form
CHANGED = {
    "task": "demo",
    "data": "somewhere",
    "fusion": "transformer_softmax",
    "fusion_options": {"rank": 4, "dropout": 0.0},
    "mapper": "mlp",
    "mapper_options": {"hidden_size": 9},
    "language": "de",
    "balance": False,
    "lora_rank": 3,
    "fusion_lr": 0.0,
    "cache_dir": "kept",
    "load_in": "8bit",
}


@pytest.mark.parametrize("settings", [TASK, CHANGED])
def test_the_flat_form_is_the_whole_configuration(settings):
    config = TrainConfig.from_settings(settings)
    assert TrainConfig.from_settings(config.settings()) == config
    assert config.settings().keys() == TRAIN_SETTINGS
    assert config.settings().items() >= settings.items()


def test_other_values_of_some_settings():
    config = TrainConfig.from_settings(CHANGED)
    changed = config.with_settings(lr=0.5, fusion="mean", fusion_options={})
    assert changed.settings() == {
        **config.settings(),
        "lr": 0.5,
        "fusion": "mean",
        "fusion_options": {},
    }
    with pytest.raises(PalamError, match="no setting 'rate'"):
        config.with_settings(rate=0.5)


def test_the_flat_form_of_some_parts():
    data = DataConfig(task="demo", data="somewhere")
    settings = flat_settings(ModelConfig(), data)
    assert list(settings) == [*setting_names(ModelConfig), *setting_names(DataConfig)]
    assert settings["data"] == "somewhere"


def test_a_configuration_does_not_change_with_what_it_was_made_of():
    options = {"rank": 4}
    config = TrainConfig.from_settings(
        {"task": "demo", "fusion": "transformer_softmax", "fusion_options": options}
    )
    options["rank"] = 5
    config.settings()["fusion_options"]["rank"] = 6
    assert config.model.fusion_options == {"rank": 4}


# --------------------------------------------------------------------------- defined once
def test_a_setting_belongs_to_one_part():
    names = [name for part in PARTS.values() for name in setting_names(part)]
    assert len(names) == len(set(names))


def test_choices_are_those_of_the_module_that_takes_them():
    choices = {}
    for part in PARTS.values():
        for name, annotation in get_type_hints(part).items():
            choices[name] = get_args(annotation)
    assert choices["mode"] == MODES
    assert choices["normalize"] == NORMALIZE
    assert choices["dtype"] == ("auto", *DTYPES)


def test_every_setting_has_its_help():
    for part in PARTS.values():
        for owner in part.__mro__[:-1]:
            (definition,) = ast.parse(inspect.getsource(owner)).body
            for statement, following in zip(definition.body, definition.body[1:], strict=False):
                if isinstance(statement, ast.AnnAssign):
                    assert isinstance(following, ast.Expr), ast.unparse(statement)
                    assert isinstance(following.value.value, str)


def defaults_in_signatures():
    """Every `name=default` of the package's functions, as `(name, default, where)`."""
    root = Path(palam.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            arguments = node.args
            positional = [*arguments.posonlyargs, *arguments.args]
            count = len(arguments.defaults)
            pairs = list(
                zip(positional[len(positional) - count :], arguments.defaults, strict=True)
            )
            pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            for argument, default in pairs:
                if default is not None:
                    where = f"{path.relative_to(root)}, {node.name}"
                    yield argument.arg, ast.unparse(default), where


# Words that mean something else in these functions: (name, default).
OTHER_MEANINGS = {
    ("batch_size", "32"),  # of reading, where no gradient is kept
    ("batch_size", "16"),
    ("batch_size", "DEFAULT_BATCH_SIZE"),
    ("device", "'cpu'"),  # where a tensor is put
    ("dtype", "torch.float32"),  # of a model that is loaded outside a run
    ("data", "WHOLE_FILE"),  # the options of a file that is looked at
    ("mode", "True"),  # `train(mode)`, as torch has it
}


def test_a_setting_has_one_default():
    """A function's default of the same name is the setting's own, or None: not given."""
    defaults = {}
    for part in PARTS.values():
        for field in dataclasses.fields(part):
            if field.default is not dataclasses.MISSING:
                defaults[field.name] = repr(field.default)
    others = []
    for name, default, where in defaults_in_signatures():
        if name not in defaults or (name, default) in OTHER_MEANINGS:
            continue
        if default.endswith(f"Config.{name}"):  # the setting's own, by its name
            continue
        if default not in ("None", defaults[name]):
            others.append(f"{where}: {name}={default}, not {defaults[name]}")
    assert not others


def test_a_bridge_made_without_options_is_the_default_one(base_folder):
    encoder, llm = str(base_folder("bert")), str(base_folder("llama"))
    model = PalamModel.from_bases(encoder, llm)
    defaults = ModelConfig(encoder=encoder, llm=llm)
    same = PalamModel.from_config(defaults)
    assert model.config.to_dict() == same.config.to_dict()
    assert model.processor.template == same.processor.template
    assert model.processor.max_length == same.processor.max_length
    assert (model.config.fusion, model.config.mapper) == (defaults.fusion, defaults.mapper)
    assert model.config.fusion_options == {"normalize": defaults.normalize}
    assert model.processor.template.mode == defaults.mode
    for name, value in model.bridge.state_dict().items():
        assert torch.equal(value, same.bridge.state_dict()[name]), name


# --------------------------------------------------------------------------- a fusion's own option
class ScalarMix(Fusion):
    """A learned factor, times the mean by learned weights."""

    def __init__(self, hidden_size, num_layers, normalize, factor: float = 1.0):
        super().__init__(hidden_size, num_layers, normalize)
        self.scores = nn.Parameter(torch.zeros(num_layers))
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, states):
        weights = self.scores.softmax(-1)
        fused = self.factor * mix([self.prepare(state) for state in states], weights)
        return fused, weights.expand(*fused.shape[:-1], -1)


@pytest.fixture
def scalar_mix(monkeypatch):
    """`scalar_mix` among the fusions, for one test."""
    monkeypatch.setattr(FUSIONS, "_entries", dict(FUSIONS._entries))
    register_fusion("scalar_mix", ScalarMix)


@pytest.mark.usefixtures("scalar_mix")
def test_a_registered_fusions_own_option_reaches_the_model(settings, bases, tmp_path):
    config = settings(fusion="scalar_mix", fusion_options={"factor": "2.5"})
    path = tmp_path / "settings.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert TrainConfig.from_yaml(path) == config
    path.write_text(
        f"task: sib200\ndata: {config.data.data}\ndevice: cpu\ndtype: fp32\n"
        "fusion: scalar_mix\nfusion-options: {factor: 2.5}\n"
    )
    for same in (config, TrainConfig.from_yaml(path)):
        data = read_training_data(same.data, seed=0)
        model = build_model(same.model, data, same.runtime, bases)
        assert model.bridge.fusion.factor.item() == 2.5
        assert model.config.fusion_options == {"normalize": "layer", "factor": 2.5}
    assert "'width' is no option of scalar_mix; its options are: factor" in refusal(
        task="sib200", fusion="scalar_mix", fusion_options={"width": 1}
    )


def test_a_setting_that_names_a_file_is_told_by_its_content_and_its_folder_is_not_made_public():
    files = set()
    for part in PARTS.values():
        files |= {name for name, kind in get_type_hints(part).items() if kind == Path | None}
    assert files <= set(PATH_SETTINGS)
    have_hashes_of_their_rows = {"file", "text_file", "data"}
    change_no_result = {"cache_dir"}
    assert files - have_hashes_of_their_rows - change_no_result == set(FILES)
