"""Help, version and completion: immediate, grouped, and true to the settings."""

import os
import subprocess
import sys

import pytest

from palam import Fusion, PalamModel, __version__
from palam.cli.main import COMMANDS, app
from palam.models.fusion.base import mix
from palam.models.registry import FUSIONS
from palam.training.config import DataConfig, ModelConfig, OptimConfig, TrainRuntimeConfig
from palam.utils.registry import Registry

SHOW_IMPORTS = """
import sys
from palam.cli.main import run
code = run(sys.argv[1:])
heavy = [name for name in ("torch", "transformers", "huggingface_hub") if name in sys.modules]
print("heavy:", *heavy)
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 0),
        (("--help",), 0),
        (("--version",), 0),
        (("trian",), 2),
        *[((name, "--help"), 0) for name in COMMANDS],
        (("train", "--out", "x", "--task", "demo", "--fusoin", "mean"), 2),
        (("train", "--out", "x", "--task", "demo", "--fusion", "maen"), 2),
        (("train", "--out", "x", "--task", "demo", "--lr", "0"), 2),
        (("evaluate", "x"), 2),
        (("classify", "x"), 2),
    ],
)
def test_help_and_mistakes_import_neither_torch_nor_transformers(arguments, code):
    command = [sys.executable, "-c", SHOW_IMPORTS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_help_is_immediate():
    before = os.times()
    command = [sys.executable, "-m", "palam", "train", "--help"]
    subprocess.run(command, capture_output=True, check=True)
    after = os.times()
    seconds = after.children_user - before.children_user
    assert seconds + after.children_system - before.children_system < 2  # half of one, mostly


def test_the_version(palam):
    result = palam("--version")
    assert (result.code, result.out, result.err) == (0, f"palam {__version__}\n", "")


def test_the_commands_are_listed_in_the_order_of_use_with_a_line_each(palam):
    lines = palam("--help").out.splitlines()
    start = lines.index("Commands:") + 1
    names = [line.split()[0] for line in lines[start:] if not line.startswith("  -")]
    assert names == list(COMMANDS)
    assert all(len(line) <= 80 for line in lines)


def test_the_options_of_train_are_grouped_and_the_daily_ones_come_first(palam):
    text = palam("train", "--help").out
    groups = {}
    for block in text.split("\n\n"):
        title, *lines = block.splitlines()
        if title.endswith(":"):
            names = [line.split()[0] for line in lines if line.startswith("  --")]
            groups[title.rstrip(":")] = [name.rstrip(",") for name in names]
    assert list(groups) == ["Options", "Data", "Model", "Optimisation", "Run"]
    assert groups["Options"] == ["--out", "--resume", "--config"]
    assert groups["Data"][:2] == ["--task", "--file"]
    assert groups["Model"][:3] == ["--encoder", "--llm", "--fusion"]
    assert groups["Optimisation"][:2] == ["--epochs", "--lr"]
    assert groups["Run"][:2] == ["--device", "--dtype"]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_help_gives_every_setting_with_its_help_and_default(palam):
    result = palam("train", "--help")
    assert (result.code, result.err) == (0, "")
    text = " ".join(result.out.split())
    for owner in (DataConfig, ModelConfig, OptimConfig, TrainRuntimeConfig):
        for name, field in owner.__dataclass_fields__.items():
            suffix = ".NAME" if name.endswith("_options") else ""
            assert f"--{name.replace('_', '-')}{suffix}" in text
            default = field.default
            if isinstance(default, str | int | float) and not isinstance(default, bool):
                assert f"[default: {default}]" in text
    assert f"[choices: {', '.join(FUSIONS)}]" in text


def test_only_a_flag_that_may_be_unset_has_a_negative(palam):
    text = palam("train", "--help").out
    assert text.count("--no-") == 1
    assert "--balance, --no-balance " in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_options_and_choices(palam, tmp_path, monkeypatch, shell):
    monkeypatch.setenv("HOME", str(tmp_path))
    script = tmp_path / "completion"
    result = palam("--install-completion", "--shell", shell, "--output", script)
    assert (result.code, result.err) == (0, "")
    text = script.read_text()
    for word in (*COMMANDS, "average-weights-from", "global_softmax", "4bit"):
        assert word in text


def test_completion_is_valid_bash(tmp_path):
    script = tmp_path / "palam.bash"
    script.write_text(app.generate_completion(shell="bash"))
    subprocess.run(["bash", "-n", script], check=True)
    words = 'COMP_WORDS=(palam train --fusion ""); COMP_CWORD=3; _palam; echo "${COMPREPLY[@]}"'
    command = ["bash", "-c", f'source "{script}"; {words}']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(FUSIONS)


# --------------------------------------------------------------------------- a fusion of one's own
class ScalarMix(Fusion):
    """Fixed weights of the layers, times a factor."""

    def __init__(
        self, hidden_size: int, num_layers: int, normalize: str, factor: float = 1.0
    ) -> None:
        super().__init__(hidden_size, num_layers, normalize)
        self.factor = factor

    def forward(self, states):
        weights = states[0].new_full((len(states),), self.factor / len(states))
        return mix([self.prepare(state) for state in states], weights), None


@pytest.fixture
def scalar_mix(monkeypatch):
    """The fusion `scalar_mix`, registered for the time of a test."""
    monkeypatch.setattr(FUSIONS, "_entries", {**FUSIONS._entries})
    FUSIONS.register("scalar_mix", ScalarMix)
    assert isinstance(FUSIONS, Registry)


@pytest.fixture
def training(data, base_options, tmp_path):
    options = ("--task", "sib200", "--data", data, "--max-steps", 1, "--batch-size", 4)
    return ("train", *options, "--out", tmp_path / "out", *base_options)


def test_a_registered_fusion_takes_its_own_options(palam, scalar_mix, training, tmp_path):
    own = ("--fusion", "scalar_mix", "--fusion-options.factor", 0.5)
    result = palam(*training, *own)
    assert result.code == 0, result.err
    fusion = PalamModel.from_pretrained(tmp_path / "out").bridge.fusion
    assert (type(fusion), fusion.factor) == (ScalarMix, 0.5)
    assert "scalar_mix, factor 1.0" in palam("info").out
    assert "scalar_mix]" in " ".join(palam("train", "--help").out.split())


def test_a_yaml_file_can_hold_them_and_the_command_line_goes_before_it(
    palam, scalar_mix, training, tmp_path
):
    config = tmp_path / "run.yaml"
    config.write_text("fusion: scalar_mix\nfusion_options:\n  factor: 0.25\n")
    assert palam(*training, "--config", config).code == 0
    assert PalamModel.from_pretrained(tmp_path / "out").bridge.fusion.factor == 0.25
    assert palam(*training, "--config", config, "--fusion-options.factor", 2).code == 0
    assert PalamModel.from_pretrained(tmp_path / "out").bridge.fusion.factor == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("factr", "1"), "'factr' is no option of scalar_mix; its options are: factor"),
        (("factor", "much"), "scalar_mix's factor is 'much'; it must be a number"),
    ],
)
def test_options_that_it_does_not_have_are_refused(refused, scalar_mix, training, options, message):
    name, value = options
    own = ("--fusion", "scalar_mix", f"--fusion-options.{name}", value)
    assert message in refused(*training, *own)
