"""A package that is missing is one line that says how to get it, before any work."""

import sys

import pytest
import tiny
import yaml

BRIDGE = "the trained bridge"
CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def hidden(monkeypatch):
    """Let packages be missing."""

    def forget(package):
        for name in list(sys.modules):
            if name == package or name.startswith(f"{package}."):
                monkeypatch.delitem(sys.modules, name)

    def hide(*packages):
        forget("palam.integrations")  # they import their package as they are imported
        for package in packages:
            forget(package)
            monkeypatch.setitem(sys.modules, package, None)

    return hide


@pytest.fixture
def in_a_folder(refused, trained, base_folder, tmp_path, monkeypatch):
    """Run a command in a folder with some files; give its one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    (tmp_path / "rows.xlsx").write_bytes(b"PK\x03\x04")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")

    def run(*arguments):
        command = [trained if part == BRIDGE else part for part in arguments]
        if command[0] == "train":
            command += ["--llm", base_folder("llama")]
            if "--encoder" not in command:
                command += ["--encoder", base_folder("xlmr")]
        return refused(*command)

    return run


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("openpyxl", ("check", "rows.xlsx"), "palam[tables]"),
        ("openpyxl", ("classify", BRIDGE, "--file", "rows.csv", "--out", "o.xlsx"), "[tables]"),
        ("pyarrow", ("check", "rows.parquet"), "palam[tables]"),
        ("pyarrow", ("classify", BRIDGE, "--file", "rows.csv", "--out", "o.parquet"), "[tables]"),
        ("openpyxl", ("lexicon", "--text-file", "absent.txt", "--out", "o.xlsx"), "[tables]"),
        ("pyarrow", ("lexicon", "--text-file", "absent.txt", "--out", "o.parquet"), "[tables]"),
        ("peft", ("train", "--task", "demo", "--lora-rank", 2, "--out", "b", *CPU), "palam[lora]"),
        ("bitsandbytes", ("classify", BRIDGE, "--text", "a", "--load-in", "4bit"), "palam[quant]"),
        ("fastapi", ("serve", BRIDGE), "palam[serve]"),
        ("uvicorn", ("demo", BRIDGE), "palam[serve]"),
        ("prometheus_client", ("serve", BRIDGE), "palam[serve]"),
        ("lm_eval", ("eval-harness", BRIDGE, "--tasks", "xnli_en"), "palam[harness]"),
        (
            "sacrebleu",
            ("evaluate", BRIDGE, "--task", "questions", "--languages", "si", *CPU),
            "palam[reading]",
        ),
        ("datasets", ("train", "--task", "sib200", "--out", "b", *CPU), "palam[hub]"),
        (
            "gguf",
            ("train", "--task", "demo", "--out", "b", "--encoder", "starter:encoder", *CPU),
            "palam[starter]",
        ),
    ],
)
def test_what_is_missing_is_named(package, arguments, message, hidden, in_a_folder):
    hidden(package)
    line = in_a_folder(*arguments)
    assert "pip install" in line
    assert message in line


def test_a_bench_with_a_head_needs_an_extra_before_anything_is_run(
    hidden, refused, tmp_path, base_folder
):
    bases = {"encoder": str(base_folder("xlmr")), "llm": str(base_folder("llama"))}
    train = {"task": "demo", "device": "cpu", "dtype": "fp32", "max_train_samples": 14, **bases}
    recipe = {
        "train": train,
        "methods": {"most": {"baseline": "majority"}, "head": {"baseline": "head"}},
        "read": {"limit": 7, "languages": ["en"]},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    hidden("sklearn")
    bench = ("bench", tmp_path / "recipe.yaml", "--out", tmp_path / "out")
    assert 'pip install "palam[bench]"' in refused(*bench)
    assert not (tmp_path / "out").exists()


def test_a_report_of_paired_tests_needs_an_extra(hidden, refused, results):
    hidden("statsmodels")
    assert 'pip install "palam[bench]"' in refused("report", results / "out")


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (["sentencepiece"], "pip install 'palam[sentencepiece]'"),
        (["sentencepiece", "google.protobuf"], "pip install 'palam[sentencepiece]' protobuf"),
    ],
)
def test_a_tokenizer_of_sentencepiece_needs_packages(hidden, refused, tmp_path, packages, message):
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    folder = tiny.tiny_llm(tmp_path / "llama", "llama")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    (tmp_path / "text.txt").write_text("the dog runs in the garden\n" * 9)
    trainer = sentencepiece.SentencePieceTrainer
    options = {"vocab_size": 40, "hard_vocab_limit": False, "minloglevel": 2}
    prefix = str(folder / "tokenizer")
    trainer.train(input=str(tmp_path / "text.txt"), model_prefix=prefix, **options)
    hidden(*packages)
    bases = ("--encoder", folder, "--llm", folder)
    line = refused("check", tmp_path / "text.txt", *bases[:2]).splitlines()[-1]
    assert f"no tokenizer could be loaded from {str(folder)!r}; " in line
    assert message in line
