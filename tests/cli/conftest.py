"""The real command, in this process, on tiny models; a small task, and a bridge trained on it."""

import copy
import json
import shutil
from types import SimpleNamespace

import pytest
import tiny
import yaml

from palam.cli.main import run
from palam.models.template import SAME_IN_ENGLISH
from palam.starter import resolve
from palam.tasks.registry import get_task

CPU = ("--device", "cpu", "--dtype", "fp32")

RECIPE = {
    "train": {
        "task": "sib200",
        "epochs": 1,
        "max_train_samples": 20,
        "batch_size": 4,
        "device": "cpu",
        "dtype": "fp32",
    },
    "read": {"split": "dev", "languages": ["si", "en"]},
    "seeds": [0, 1],
    "curve": [0, 3],
    "methods": {
        "last": {"fusion": "last", "lr": [1e-3, 1e-2]},
        "mean": {"fusion": "mean", "init": "random", "average_weights_from": 0.2},
        "lora": {"llm_only": True, "lora_rank": 2},
        "most": {"baseline": "majority"},
        "LLM alone": {"baseline": "llm_only"},
        "translated": {"baseline": "translate"},
        "head": {"baseline": "head", "layers": "mean"},
    },
    "published": {"note": "A note.", "last": {"si": 71.66, "mean": 50}},
}
"""Every kind of method, on the small task; the base models are filled in."""


@pytest.fixture(scope="module")
def untrained(tiny_model, tmp_path_factory):
    """A bridge that reads texts; not to be changed."""
    folder = tmp_path_factory.mktemp("untrained") / "bridge"
    tiny_model(mode="prompt", prompt="{text}\nTopic:").save_pretrained(folder)
    return folder


@pytest.fixture
def general(tiny_model, tmp_path_factory, monkeypatch):
    """A tiny general bridge in the place of the package's."""
    folder = tmp_path_factory.mktemp("package") / "bridge"
    tiny_model(mode="prompt", prompt=SAME_IN_ENGLISH, fusion="mean").save_pretrained(folder)
    monkeypatch.setattr(resolve, "BRIDGE_FOLDER", folder)
    return folder


@pytest.fixture
def palam(capsys):
    """`palam("info", path, ...)`: the exit code and what was written: `.code`, `.out`, `.err`."""

    def call(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return call


@pytest.fixture
def refused(palam, tmp_path):
    """`refused("train", ...)`: the one line after `palam: error: `; `tmp_path` is unchanged."""

    def call(*arguments):
        before = sorted(tmp_path.rglob("*"))
        result = palam(*arguments)
        assert (result.code, result.out) == (2, ""), result
        assert result.err.startswith("palam: error: ")
        assert result.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return result.err.removeprefix("palam: error: ").rstrip("\n")

    return call


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """`sib200`, sorted by topic: 21 English sentences to train on, 21 each in English and Sinhala.

    The latter are for validation.
    """
    folder = tmp_path_factory.mktemp("cli-data")
    (folder / "sib200").mkdir()
    words_by_split = {
        "train.eng_Latn": tiny.TEXT["en"].split(),
        "dev.eng_Latn": tiny.TEXT["en"].split()[3:],
        "dev.sin_Sinh": 9 * tiny.TEXT["si"].split(),
    }
    for split, words in words_by_split.items():
        rows = []
        for i, label in enumerate(get_task("sib200").labels):
            for j in range(3):
                start = 4 * i + j
                text = " ".join(words[start : start + 3 + 3 * j])
                rows.append({"text": text, "label": label})
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path = folder / "sib200" / f"{split}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def base_options(base_folder):
    """The options of `palam train` that name tiny base models."""
    return ("--encoder", base_folder("bert"), "--llm", base_folder("llama"), *CPU)


@pytest.fixture(scope="session")
def trained(data, base_options, tmp_path_factory):
    """A bridge that `palam train` made on the small task; not to be changed."""
    out = tmp_path_factory.mktemp("trained") / "bridge"
    options = ("--task", "sib200", "--data", data, "--out", out, "--batch-size", 4, *base_options)
    assert run(["train", *map(str, options)]) == 0
    return out


@pytest.fixture
def bridge(trained, tmp_path):
    """A copy of the trained bridge, to be changed at will."""
    return shutil.copytree(trained, tmp_path / "bridge")


@pytest.fixture
def jsonl():
    """`jsonl(text)`: its lines as JSON."""
    return lambda text: [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="session")
def results(data, base_folder, tmp_path_factory):
    """A folder with `recipe.yaml` and its finished results in `out`; not to be changed."""
    folder = tmp_path_factory.mktemp("bench")
    recipe = copy.deepcopy(RECIPE)
    recipe["train"]["encoder"] = str(base_folder("bert"))
    recipe["train"]["llm"] = str(base_folder("llama"))
    recipe["train"]["data"] = str(data)
    recipe["methods"]["translated"]["translator"] = str(base_folder("nllb"))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    assert run(["bench", str(folder / "recipe.yaml"), "--out", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def again(results, tmp_path):
    """A copy of the recipe and its results, to be changed at will."""
    return shutil.copytree(results, tmp_path / "again")


@pytest.fixture
def saved(tmp_path):
    """`saved(content, part={...})`: a recipe file with that content and those changes."""

    def save(content, **changed):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content | changed, sort_keys=False))
        return path

    return save
