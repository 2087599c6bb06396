"""A checkpoint's files may be anyone's: what is wrong in them is one line, and nothing is run."""

import json
import pickle
import shutil
import time
import tracemalloc

import pytest
import torch
from helpers import PROMPT, batch_of, refusal
from safetensors.torch import load_file, save_file

from palam import PalamModel, PalamProcessor
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.models.checkpoint import load_bridge


class Trap:
    """What a pickle can do when it is read."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was read')",))


def set_trap(file):
    file.write_bytes(pickle.dumps(Trap()))


def edit(file, **changes):
    content = json.loads(file.read_text(encoding="utf-8"))
    content.update(changes)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "out"
    tiny_model(fusion="mean", mode="prompt", prompt=PROMPT).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "out")


@pytest.fixture(scope="module")
def saved_with_lora(tiny_model, tmp_path_factory):
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("lora") / "out"
    model = tiny_model(fusion="mean", mode="prompt", prompt=PROMPT)
    model.add_lora(rank=2)
    with torch.no_grad():
        for name, parameter in model.llm.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture
def with_lora(saved_with_lora, tmp_path):
    return shutil.copytree(saved_with_lora[0], tmp_path / "out")


# ------------------------------------------------------------------ adapters
@torch.no_grad()
def test_an_adapter_loads_as_it_was(saved_with_lora, with_lora, tmp_path):
    model = saved_with_lora[1]
    loaded = PalamModel.from_pretrained(with_lora)
    assert torch.equal(loaded(**batch_of(loaded)).logits, model(**batch_of(model)).logits)
    assert not any(parameter.requires_grad for parameter in loaded.llm.parameters())
    loaded.save_pretrained(tmp_path / "again")
    weights = [
        load_file(f / "adapter/adapter_model.safetensors") for f in (with_lora, tmp_path / "again")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    again = PalamModel.from_pretrained(tmp_path / "again")
    assert torch.equal(again(**batch_of(again)).logits, model(**batch_of(model)).logits)


def drop(weights, name):
    del weights[name]


def rename(weights, name):
    weights[name.replace("layers.0", "layers.7")] = weights.pop(name)


def reshape(weights, name):
    weights[name] = torch.zeros(3, 5)


def drop_module(weights, name):
    for other in [key for key in weights if key.startswith(name.rsplit(".", 2)[0])]:
        del weights[other]


def add(weights, name):
    weights["base_model.model.other.lora_A.weight"] = torch.zeros(2, 2)


@pytest.mark.parametrize("change", [drop, rename, reshape, drop_module, add])
def test_an_adapter_whose_weights_do_not_fit_is_refused(with_lora, change):
    file = with_lora / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights, min(weights))
    save_file(weights, file)
    line = refusal(PalamModel.from_pretrained, with_lora)
    assert "adapter" in line
    assert "the weight base_model.model." in line


CATASTROPHE = "(" + "a|" * 3 + "(.*a){25})+b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 10**6}, "its rank r is 1000000; it must be a number from 1 to 4096"),
        ({"r": 4096}, "has the shape"),
        ({"r": -1}, "its rank r is -1"),
        ({"r": "8"}, "its rank r is '8'"),
        ({"r": True}, "its rank r is True"),
        ({"lora_alpha": "x"}, "its lora_alpha is 'x'"),
        ({"lora_alpha": float("nan")}, "are not finite"),
        ({"target_modules": CATASTROPHE}, "list the modules' names"),
        ({"target_modules": ".*" * 30 + "x"}, "list the modules' names"),
        ({"target_modules": "("}, "no pattern"),
        ({"target_modules": 3}, "neither a text nor a list"),
        ({"target_modules": [3]}, "neither a text nor a list"),
        ({"target_modules": ["nothing"]}, "no modules of this LLM"),
        ({"target_modules": ["q_proj"]}, "belongs to none of its target_modules"),
        ({"peft_type": "IA3"}, "is not that of a LoRA"),
        ({"peft_type": 3}, "is not that of a LoRA"),
        ({"rank_pattern": {"(a+)+b": 3}}, "ranks by pattern"),
        ({"modules_to_save": ["lm_head"]}, "it has modules_to_save"),
        ({"use_rslora": "yes"}, "its use_rslora is 'yes'"),
    ],
)
def test_wrong_settings_of_an_adapter_are_one_line(with_lora, changes, message):
    edit(with_lora / "adapter" / "adapter_config.json", **changes)
    start = time.monotonic()
    assert message in refusal(PalamModel.from_pretrained, with_lora)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff\xfe"])
def test_a_damaged_file_of_an_adapter_is_one_line(with_lora, name, content):
    file = with_lora / "adapter" / name
    file.unlink() if content is None else file.write_bytes(content)
    assert "adapter" in refusal(PalamModel.from_pretrained, with_lora)


def test_other_keys_of_an_adapters_settings_are_no_matter(with_lora):
    edit(with_lora / "adapter" / "adapter_config.json", later_setting=[1], revision={"x": 1})
    PalamModel.from_pretrained(with_lora)


# ------------------------------------------------------------------ pickles
def test_no_pickle_is_read_in_an_adapters_place(with_lora):
    (with_lora / "adapter" / "adapter_model.safetensors").unlink()
    set_trap(with_lora / "adapter" / "adapter_model.bin")
    assert "adapter" in refusal(PalamModel.from_pretrained, with_lora)


INDEX = {"metadata": {}, "weight_map": {}}


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../x.safetensors", "/tmp/x.safetensors"])
@pytest.mark.parametrize("role", ["bridge", "encoder", "llm"])
def test_an_index_leads_to_no_pickle_and_out_of_no_folder(
    saved, base_folder, tmp_path, role, shard
):
    source = {"bridge": saved, "encoder": base_folder("bert"), "llm": base_folder("llama")}[role]
    load = {
        "bridge": load_bridge,
        "encoder": lambda path: load_encoder(str(path)),
        "llm": lambda path: load_llm(str(path)),
    }[role]
    folder = shutil.copytree(source, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(tmp_path / "x.safetensors")
    set_trap(folder / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    line = refusal(load, folder)
    assert role == "bridge" or "only safetensors beside it are read" in line


@pytest.mark.parametrize("load", [load_encoder, load_llm])
def test_an_adapter_in_a_base_models_folder_is_not_read(base_folder, tmp_path, load):
    family = "bert" if load is load_encoder else "llama"
    folder = shutil.copytree(base_folder(family), tmp_path / "model")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    set_trap(folder / "adapter_model.bin")
    assert "merge that into its model" in refusal(load, str(folder))


# ------------------------------------------------------------------ configurations
@pytest.mark.parametrize("count", [10**9, 10**30, -1, "many", [1]])
def test_a_number_of_labels_costs_no_memory(checkpoint, base_folder, tmp_path, count):
    folder = shutil.copytree(base_folder("bert"), tmp_path / "model")
    for path, load in ((checkpoint, load_bridge), (folder, load_encoder)):
        edit(path / "config.json", num_labels=count)
        tracemalloc.start()
        assert "num_labels in its config.json is" in refusal(load, str(path))
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()


TASK = {"name": "x", "family": "topic", "text": "{text}", "labels": [["a", "b"]]}


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion_options": 3},
        {"fusion_options": {"normalize": 3}},
        {"fusion_options": {"unknown": 3}},
        {"mapper_options": [1]},
        {"mapper": "mlp", "mapper_options": {"hidden_size": 10**9}},
        {"mapper": "mlp", "mapper_options": {"hidden_size": "x"}},
        {"fusion": 3},
        {"fusion": "nothing"},
        {"encoder": None},
        {"llm": ["x"]},
        {"encoder_revision": 3},
        {"encoder_hidden_size": "32"},
        {"encoder_hidden_size": 10**9},
        {"encoder_num_layers": 10**12},
        {"encoder_num_layers": 2.5},
        {"llm_hidden_size": 10**6},
        {"second_encoder": 3},
        {"second_encoder": "x"},
        {"second_encoder": "x", "second_encoder_hidden_size": 32},
        {"second_encoder_num_layers": 3},
        {"second_encoder_hidden_size": "x"},
        {"second_encoder_revision": 3},
        {"embedding_rms": "x"},
        {"embedding_rms": float("inf")},
        {"fingerprints": [1]},
        {"fingerprints": {"llm": 3}},
        {"fingerprints": {"llm": {"shapes": 3, "vocabulary": "", "embeddings": ""}}},
        {"label_priors": [1]},
        {"label_priors": 3},
        {"task": 3},
        {"task": {**TASK, "name": 3}},
        {"task": {**TASK, "family": None}},
        {"task": {**TASK, "text": 3}},
        {"task": {**TASK, "text": "no slot"}},
        {"task": {**TASK, "text": "{text"}},
        {"task": {**TASK, "label_type": 3}},
        {"task": {**TASK, "labels": 3}},
        {"task": {**TASK, "labels": [["a", "b"], ["a", "c"]]}},
        {"task": {**TASK, "labels": ["ab"]}},
        {"task": {**TASK, "labels": [["a", 3]]}},
        {"task": {**TASK, "labels": {"a": "b"}}},
        {"task": {**TASK, "columns": ["text"]}},
        {"task": {**TASK, "columns": {"text": 3}}},
        {"id2label": 3},
        {"model_type": 3},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_wrong_types_in_a_bridges_configuration_are_one_line(checkpoint, changes):
    edit(checkpoint / "config.json", **changes)
    refusal(PalamModel.from_pretrained, checkpoint)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": 3},
        {"llm": None},
        {"max_length": "256"},
        {"max_length": None},
        {"max_length": True},
        {"llm_only_max_length": [1]},
        {"append_source_tokens": "no"},
        {"tokenization": "2"},
        {"tokenization": 99},
        {"llm_revision": 3},
        {"second_encoder": 3},
        {"second_max_length": "512"},
        {"template": [1]},
        {"template": {"mode": 3, "prefix": "", "suffix": ""}},
        {"template": {"mode": "other", "prefix": "", "suffix": ""}},
        {"template": {"mode": "prompt", "prefix": 3, "suffix": ""}},
        {"template": {"mode": "prompt", "prefix": "", "suffix": "", "answer_end": 3}},
        {"template": {"mode": "prompt", "prefix": "", "suffix": "", "other": 3}},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_wrong_types_in_a_processors_configuration_are_one_line(checkpoint, changes):
    edit(checkpoint / "processor_config.json", **changes)
    refusal(PalamProcessor.from_pretrained, checkpoint)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"{", b"3", b"caf\xe9"])
def test_a_damaged_processors_configuration_is_one_line(checkpoint, content):
    (checkpoint / "processor_config.json").write_bytes(content)
    assert "processor_config.json" in refusal(PalamProcessor.from_pretrained, checkpoint)


def test_a_prompt_of_a_length_that_nobody_writes_is_said(checkpoint):
    template = {"mode": "prompt", "prefix": "word " * 100_000, "suffix": ""}
    edit(checkpoint / "processor_config.json", template=template)
    line = refusal(PalamProcessor.from_pretrained, checkpoint)
    assert "the prompt has 500,000 characters" in line


def test_a_model_card_that_is_not_utf8_is_no_hindrance(checkpoint):
    (checkpoint / "README.md").write_bytes(b"caf\xe9 \xff")
    assert PalamModel.from_pretrained(checkpoint).card == "caf\ufffd \ufffd"
