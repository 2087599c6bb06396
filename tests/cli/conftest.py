"""The real command, in this process, on tiny models; a small task on disk, and a bridge that it trained."""

import json
import shutil
from types import SimpleNamespace

import pytest
import tiny

from palam.cli import run
from palam.tasks.registry import get_task

HERE = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def palam(capsys):
    """`palam("info", path, ...)`: the command's exit code and what it wrote: `.code`, `.out`, `.err`."""

    def call(*arguments):
        capsys.readouterr()
        code = run([str(one) for one in arguments])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return call


@pytest.fixture
def refused(palam, tmp_path):
    """`refused("train", ...)`: the one line after `palam: error: `; nothing is left behind in `tmp_path`."""

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
    """`sib200`: 21 English training sentences, and 21 for validation in English and Sinhala, sorted by topic."""
    folder = tmp_path_factory.mktemp("cli-data")
    (folder / "sib200").mkdir()
    for split, language, words in (
        ("train", "eng_Latn", tiny.TEXT["en"].split()),
        ("dev", "eng_Latn", tiny.TEXT["en"].split()[3:]),
        ("dev", "sin_Sinh", 9 * tiny.TEXT["si"].split()),
    ):
        rows = [
            {"text": " ".join(words[4 * i + j : 4 * i + j + 3 + 3 * j]), "label": label}
            for i, label in enumerate(get_task("sib200").labels)
            for j in range(3)
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "sib200" / f"{split}.{language}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def base_options(base_folder):
    """The options of `palam train` that name tiny base models."""
    return ("--encoder", base_folder("bert"), "--llm", base_folder("llama"), *HERE)


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
