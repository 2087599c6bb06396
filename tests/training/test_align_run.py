"""A bridge that is solved and not trained: what its folder holds, and what is compared."""

import copy
import json
import math
import os
import threading

import pytest
import torch
import yaml

from palam import PalamError, PalamModel
from palam.alignment import solve as solving
from palam.alignment.ridge import LinearMap, RidgeStatistics
from palam.inference.scoring import score_labels
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.models.bases import Bases
from palam.models.model_config import ModelConfig
from palam.models.registry import FUSIONS
from palam.training.align_run import AlignmentRun, run_alignment
from palam.training.config import DataConfig, RuntimeConfig, TrainConfig, setting_names

RUNTIME = RuntimeConfig(device="cpu", dtype="fp32")
ROWS = ["layer 1", "layer 2", "layer 3", *FUSIONS]


@pytest.fixture
def model_config(base_folder):
    """`model_config(fusion="last", ...)`: between two tiny base models."""

    def build(**settings):
        bases = {"encoder": str(base_folder("bert")), "llm": str(base_folder("llama"))}
        return ModelConfig(**bases, **settings)

    return build


@pytest.fixture
def task(data_folder):
    return DataConfig(task="sib200", data=data_folder)


def names_of(probe):
    return [row["name"] for row in probe]


def test_a_task_is_solved_and_calibrated(model_config, task, tmp_path):
    out = tmp_path / "aligned"
    model = model_config(fusion="global_softmax")
    results = run_alignment(model, task, RUNTIME, out)
    assert names_of(results["probe"]) == ROWS
    assert json.loads((out / "results.json").read_text()) == results
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "probe.html",
        "processor_config.json",
        "results.json",
        "settings.yaml",
    }
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    parts = (ModelConfig, DataConfig, RuntimeConfig)
    assert list(settings) == [name for part in parts for name in setting_names(part)]
    again = TrainConfig.from_yaml(out / "settings.yaml")
    assert (again.model, again.data) == (model, task)
    loaded = PalamModel.from_pretrained(out)
    assert loaded.config.task["name"] == "sib200"
    labels = [words for _, words in loaded.config.task["labels"]]
    assert loaded.config.label_priors.keys() == set(labels)
    assert score_labels(loaded, ["the match was won"], labels).isfinite().all()


def test_the_page_has_every_row(model_config, task, tmp_path):
    results = run_alignment(model_config(), task, RUNTIME, tmp_path / "out")
    page = (tmp_path / "out" / "probe.html").read_text(encoding="utf-8")
    assert "bert → llama" in page
    for row in results["probe"]:
        assert f">{row['name']}</th>" in page
        assert f"</i>{100 * row['r2']:.1f}</div>" in page
        assert f"</i>{100 * row['nearest_token_accuracy']:.1f}</div>" in page


def test_without_a_folder_it_only_compares(model_config, task, bases, tmp_path):
    results = run_alignment(model_config(), task, RUNTIME, None, bases=bases)
    assert list(results) == ["probe"]
    assert names_of(results["probe"]) == ROWS
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "template"),
    [
        ({}, ("prompt", "", "\n")),
        ({"prompt": "{text} What?"}, ("prompt", "", " What?")),
        ({"mode": "paper"}, ("paper", "", "")),
    ],
)
def test_raw_text_is_read_with_a_prompt_of_its_own(
    model_config, text_file, bases, tmp_path, settings, template
):
    data = DataConfig(text_file=text_file)
    results = run_alignment(model_config(**settings), data, RUNTIME, tmp_path / "out", bases=bases)
    assert "task" not in results
    loaded = PalamModel.from_pretrained(tmp_path / "out", *bases)
    found = loaded.processor.template
    assert (found.mode, found.prefix, found.suffix) == template
    assert loaded.config.task is None


def test_a_mistake_leaves_nothing(model_config, task, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    out = tmp_path / "new" / "out"
    with pytest.raises(PalamError, match="too little text"):
        run_alignment(model_config(), DataConfig(text_file=empty), RUNTIME, out)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]
    with pytest.raises(PalamError, match="holds other files"):
        run_alignment(model_config(), task, RUNTIME, tmp_path)


def test_states_that_are_not_finite_are_told_by_part_and_dtype_and_nothing_is_saved(
    model_config, task, base_folder, tmp_path
):
    encoder = load_encoder(str(base_folder("bert"))).to(torch.float16)
    with torch.no_grad():
        encoder.encoder.layer[1].output.dense.weight.mul_(6e4)
    bases = Bases(encoder, load_llm(str(base_folder("llama"))))
    with pytest.raises(PalamError, match=r"the encoder's states \(layer \d\) .*not finite in fp16"):
        run_alignment(model_config(), task, RUNTIME, tmp_path / "out", bases=bases)
    assert not list(tmp_path.iterdir())


def test_a_solve_that_becomes_nan_is_told_by_part_and_dtype_and_nothing_is_saved(
    model_config, task, base_folder, tmp_path, monkeypatch
):
    embed = PalamModel.embed
    llm = load_llm(str(base_folder("llama"))).to(torch.bfloat16)
    bases = Bases(load_encoder(str(base_folder("bert"))), llm)
    monkeypatch.setattr(AlignmentRun, "probe", lambda run, sample: [])
    monkeypatch.setattr(PalamModel, "embed", lambda model, ids: embed(model, ids) * math.inf)
    with pytest.raises(PalamError, match="the LLM's embeddings are not finite in bf16"):
        run_alignment(model_config(), task, RUNTIME, tmp_path / "out", bases=bases)
    monkeypatch.setattr(PalamModel, "embed", embed)
    weight = torch.full((32, 32), math.nan, dtype=torch.float64)
    nan_map = LinearMap(weight, bias=torch.zeros(32, dtype=torch.float64))
    monkeypatch.setattr(RidgeStatistics, "solve", lambda sums, tried: [nan_map] * len(tried))
    with pytest.raises(PalamError, match=r"the solved mapper's weights .*are not finite"):
        run_alignment(model_config(), task, RUNTIME, tmp_path / "out", bases=bases)
    assert not list(tmp_path.iterdir())


def test_a_probe_changes_nothing_and_a_solve_that_fails_restores(
    model_config, text_file, bases, monkeypatch
):
    data = DataConfig(text_file=text_file)
    run = AlignmentRun.prepare(model_config(fusion="global_softmax"), data, RUNTIME, bases)
    bridge = run.model.bridge
    before = copy.deepcopy(bridge.state_dict())
    sample = run.take_sample()
    rows = {row["name"]: row for row in run.probe(sample)}
    assert_same_weights(bridge, before)
    with monkeypatch.context() as patched:
        patched.setattr(solving, "aligned_batches", lambda *arguments: iter(()))
        with pytest.raises(PalamError, match="too little text"):
            run.solve(sample)
    assert_same_weights(bridge, before)
    solved = run.solve(sample)
    assert not torch.equal(bridge.fusion.scores, before["fusion.scores"])
    assert rows["global_softmax"]["r2"] == pytest.approx(solved.r2, abs=1e-4)


def assert_same_weights(bridge, before):
    for name, weight in bridge.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_a_pipe_is_opened_once(model_config, text_file, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=[text_file.read_bytes()], daemon=True).start()
    data = DataConfig(text_file=pipe, file_format="text")
    from_pipe = run_alignment(model_config(), data, RUNTIME, tmp_path / "out")
    expected = run_alignment(
        model_config(), DataConfig(text_file=text_file), RUNTIME, tmp_path / "same"
    )
    assert from_pipe == expected
