"""`palam align` and `palam plan`, as commands."""

import json

import pytest
import tiny

from palam import PalamModel
from palam.inference.scoring import score_labels
from palam.models.registry import FUSIONS

CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def english(tmp_path):
    path = tmp_path / "english.txt"
    path.write_text("\n\n".join(tiny.TEXT["en"].split(". ") * 4), encoding="utf-8")
    return path


def test_an_aligned_task_can_be_read_at_once(palam, base_options, data, tmp_path):
    out = tmp_path / "aligned"
    options = ("--task", "sib200", "--data", data, "--fusion", "global_softmax", *base_options)
    result = palam("align", *options, "--out", out)
    assert result.code == 0
    names = [line.split("  ")[0] for line in result.out.splitlines()[1:]]
    assert names == ["layer 1", "layer 2", "layer 3", *FUSIONS]
    assert f"saved to {out}" in result.err
    files = {path.name for path in out.iterdir()}
    assert files >= {"model.safetensors", "README.md", "settings.yaml", "probe.html"}
    results = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in results["probe"]] == names
    assert results["solved"]["tokens"] > 100
    assert results["task"]["factor"] in map(float, results["task"]["losses"])
    model = PalamModel.from_pretrained(out)
    assert model.config.fusion == "global_softmax"
    assert model.processor.template.suffix == "\nTopic:"
    labels = [words for _, words in model.config.task["labels"]]
    train_file = data / "sib200" / "train.eng_Latn.jsonl"
    texts = [json.loads(line)["text"] for line in train_file.open(encoding="utf-8")]
    expected = score_labels(model, texts, labels, calibrated=False).mean(0)
    priors = dict(zip(labels, expected.tolist(), strict=True))
    assert model.config.label_priors == pytest.approx(priors, abs=1e-4)
    task = ("--task", "sib200", "--data", data, "--languages", "si")
    assert palam("evaluate", out, *task, *CPU).code == 0


def test_only_comparing_writes_nothing(palam, base_options, english, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = palam("align", "--text-file", english, *base_options)
    assert (result.code, len(result.out.splitlines())) == (0, 1 + 3 + len(FUSIONS))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bridge_from_raw_text_answers_any_prompt(palam, base_options, english, tmp_path):
    out = tmp_path / "reader"
    assert palam("align", "--text-file", english, "--out", out, *base_options).code == 0
    assert PalamModel.from_pretrained(out).processor.template.mode == "prompt"
    text = ("--text", "මම ගෙදර යනවා.")
    question = ("--prompt", "{text} What?", "--max-new-tokens", 3)
    assert palam("generate", out, *text, *question, *CPU).code == 0
    result = palam("classify", out, *text, "--labels", "good,bad", *CPU)
    assert json.loads(result.out)["prediction"] in ("good", "bad")


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "too little text"), ("one line", "too little text"), (b"a \xff\n", "not UTF-8")],
)
def test_text_that_cannot_be_aligned(refused, base_options, tmp_path, content, message):
    path = tmp_path / "english.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in refused(
        "align", "--text-file", path, "--out", tmp_path / "out", *base_options
    )


def test_an_align_without_text_or_into_other_files(refused, base_options, english, tmp_path):
    assert "give exactly one of --task, --file and --text-file" in refused("align", *base_options)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    options = ("--text-file", english, "--out", tmp_path / "full", *base_options)
    assert "holds other files" in refused("align", *options)


def test_soft_labels_are_for_training(refused, base_options, data, tmp_path):
    task = ("--task", "sib200", "--data", data, "--soft-label-file", tmp_path / "soft.jsonl")
    assert "soft_label_file is learned in training" in refused("align", *task, *base_options)


def test_a_plan(palam, refused, base_options, tmp_path):
    size = ("--rows", 100, "--batch-size", 10, "--epochs", 2)
    result = palam("plan", *size, "--tflops", 1, *base_options)
    assert result.code == 0
    shown = dict(line.split("  ", 1) for line in result.out.splitlines())
    assert shown["matrix rate"].strip() == "1.00 · 10¹² operations a second"
    assert shown["all steps"].strip().startswith("20: ")
    bases = ("--encoder", tmp_path / "none", "--llm", base_options[3])
    assert "no such folder" in refused("plan", *bases, *CPU)
