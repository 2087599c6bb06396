"""Settings are checked before anything is loaded, and come back from YAML as they were."""

from pathlib import Path

import pytest

from palam.errors import PalamError
from palam.training.config import TrainConfig

WRONG = {
    "fusion": ("sum", "one of: last, mean, global_softmax, transformer_softmax"),
    "mapper": ("deep", "one of: linear, mlp"),
    "normalize": ("rms", "one of: none, layer"),
    "mode": ("plain", "one of: paper, prompt, chat"),
    "init": ("zero", "one of: solve, random"),
    "dtype": ("int8", "one of: auto, fp32, bf16, fp16"),
    "epochs": (0.0, "above 0"),
    "lr": (float("nan"), "above 0"),
    "batch_size": (0, "at least 1"),
    "limit": (-3, "at least 1"),
    "max_length": (2, "at least 8"),
    "patience": (-1, "at least 0"),
    "warmup": (1.5, "from 0 to below 1"),
    "average": (1.0, "from 0 to below 1"),
    "seed": (0.5, "a whole number"),
    "accumulate": (True, "a whole number"),
    "mixing_lr": ("fast", "a number"),
    "faithful": ("yes", "true or false"),
    "language": (False, "text"),
    "task": ([], "text"),
    "data": (3.5j, "a path"),
    "encoder": (None, "text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_one_line(name):
    value, right = WRONG[name]
    with pytest.raises(PalamError) as caught:
        TrainConfig(**{"task": "sib200", name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}; it must be ")
    assert str(caught.value).endswith(right)


@pytest.mark.parametrize(
    "sources", [{}, {"task": "sib200", "file": "a.csv"}, {"file": "a.csv", "text": "b.txt"}]
)
def test_exactly_one_source(sources):
    with pytest.raises(PalamError, match="exactly one of --task, --file and --text"):
        TrainConfig(**sources)


def test_settings_come_back_from_yaml(tmp_path):
    settings = TrainConfig(
        file="a b.csv",
        text_column="Q: {q} A: {a}",
        prompt="{text}\nමාතෘකාව:",
        lr=3e-5,
        limit=7,
        paper_temperature=True,
    )
    (tmp_path / "settings.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    assert TrainConfig.from_yaml(tmp_path / "settings.yaml") == settings
    assert settings.file == Path("a b.csv")


def test_a_part_in_yaml(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(
        "task: sib200\nbatch-size: 8\nlr: 1e-3  # YAML takes this for text\nepochs: 1\n"
    )
    settings = TrainConfig.from_yaml(path)
    assert (settings.batch_size, settings.lr, settings.epochs) == (8, 0.001, 1.0)
    assert settings == TrainConfig(task="sib200", batch_size=8, epochs=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rate: 1", "there is no setting 'learning_rate'; the settings are: accumulate, "),
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
