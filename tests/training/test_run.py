"""A run from settings to a folder: what it holds, and what is left when it fails."""

import io
import json
import re
from collections import Counter

import pytest
import torch
from rich.console import Console
from transformers import TrainerCallback

from palam import PalamModel
from palam.alignment.solve import solve_bridge
from palam.errors import PalamError
from palam.inference import evaluation as evaluate
from palam.inference.scoring import score_labels
from palam.training.build import build_model
from palam.training.config import TrainConfig
from palam.training.data import read_training_data
from palam.training.run import train


class Watch(TrainerCallback):
    """Keeps the mapper as training begins, and looks at each step whether a folder is there."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.readout = model.bridge.mapper.readout.weight.detach().clone()

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(self.folder.exists())


@pytest.mark.parametrize("objective", ["answers", "text"])
def test_the_folder_appears_when_it_is_complete(settings, bases, tmp_path, objective):
    chosen, out = settings(objective), tmp_path / "runs" / "out"
    watch = Watch(out)
    model = train(chosen, out, bases=bases, callbacks=[watch])
    assert len(watch.seen) > 5
    assert not any(watch.seen)
    assert {path.name for path in out.iterdir()} == {
        "README.md", "config.json", "log.jsonl", "model.safetensors", "processor_config.json", "results.json",
        "settings.yaml",
    }  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert TrainConfig.from_yaml(out / "settings.yaml") == chosen
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in log if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, len(watch.seen) + 1))
    assert all(entry["tokens_per_second"] > 0 and entry["loss"] > 0 for entry in steps)
    results = json.loads((out / "results.json").read_text())
    validations = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    assert len(validations) == chosen.epochs
    assert results["best_step"] == min(validations, key=validations.get)
    assert results["validation_loss"] == min(validations.values())
    assert results["steps"] == len(watch.seen)
    assert results["rows"] == 21 if objective == "answers" else 20
    assert results["trained_parameters"] == sum(p.numel() for p in model.bridge.parameters())
    loaded = PalamModel.from_pretrained(out)
    for name, value in loaded.bridge.state_dict().items():
        assert torch.equal(value, model.bridge.state_dict()[name]), name


def test_results_count_each_text_once(settings, bases, tmp_path):
    train(settings(max_length=9), tmp_path / "out", bases=bases)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    counted = results["texts"]["eng_Latn"]
    assert counted["texts"] == 21 + 7
    assert 0 < counted["cut"] < 28
    assert 0 <= results["validation_accuracy"] <= 1
    assert results["solved"]["tokens"] > 20


def test_the_solved_start(settings, bases, text_file, tmp_path):
    """Training begins from what `align.solve` finds on the training inputs, or on the text that is named."""
    started = {}
    for name, changes in {
        "inputs": {}, "text": {"solve_text": text_file}, "random": {"init": "random"},
    }.items():  # fmt: skip
        watch = Watch(tmp_path)
        train(settings(max_steps=1, **changes), tmp_path / name, bases=bases, callbacks=[watch])
        started[name] = watch.readout
    data = read_training_data(settings())
    model = build_model(settings(), data, bases)
    expected = {"random": model.bridge.mapper.readout.weight.detach().clone()}
    for name, texts in (
        ("inputs", data.texts(data.train, "prompt")),
        ("text", text_file.read_text().split("\n")),
    ):
        solve_bridge(model, texts)
        expected[name] = model.bridge.mapper.readout.weight.detach().clone()
    assert not torch.allclose(expected["inputs"], expected["text"])
    assert not torch.allclose(expected["inputs"], expected["random"])
    for name, value in expected.items():
        assert torch.allclose(started[name], value, atol=1e-6), name


def test_a_run_goes_on_from_a_bridge(settings, bases, tmp_path):
    before = train(settings(max_steps=1), tmp_path / "first", bases=bases)
    watch = Watch(tmp_path)
    train(
        settings(max_steps=1, start=str(tmp_path / "first")),
        tmp_path / "second",
        bases=bases,
        callbacks=[watch],
    )
    assert torch.equal(watch.readout, before.bridge.mapper.readout.weight)
    assert "solved" not in json.loads((tmp_path / "second" / "results.json").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": "last"}, "has fusion mean, this run last; they must be the same"),
        (
            {"normalize": "none"},
            "has fusion options {'normalize': 'layer'}, this run {'normalize': 'none'}",
        ),
        ({"start": "nowhere"}, "nowhere"),
        ({"encoder": "xlmr"}, "is not the encoder that this bridge was trained with ("),
    ],
)
def test_a_bridge_that_does_not_fit_is_no_start(
    settings, bases, base_folder, tmp_path, changes, message
):
    train(settings(max_steps=1), tmp_path / "first", bases=bases)
    if "encoder" in changes:
        changes, bases = {"encoder": str(base_folder("xlmr"))}, None
    with pytest.raises(PalamError, match=re.escape(message)):
        train(
            settings(**{"start": str(tmp_path / "first")} | changes),
            tmp_path / "second",
            bases=bases,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_limit_is_stratified_and_seeded(settings):
    rows = read_training_data(settings(limit=14)).train
    assert set(Counter(row.label for row in rows).values()) == {2}
    assert (
        len(
            {
                tuple(r.row for r in read_training_data(settings(limit=14, seed=seed)).train)
                for seed in range(4)
            }
        )
        > 1
    )
    lines = read_training_data(settings("text", limit=5)).train
    assert len(lines) == 5
    assert lines == read_training_data(settings("text", limit=5)).train


@pytest.mark.parametrize("changes", [{}, {"fusion": "transformer_softmax", "lora_rank": 2}])
def test_the_same_settings_give_the_same_bridge(settings, tmp_path, changes):
    if changes:
        pytest.importorskip("peft")
    for name in "ab":
        torch.randn(len(name))  # whatever was drawn before
        train(settings(max_steps=2, **changes), tmp_path / name)
        torch.randn(3)
    a, b = (sorted((tmp_path / name).rglob("*.safetensors")) for name in "ab")
    assert len(a) == (2 if changes else 1)
    assert [path.read_bytes() for path in a] == [path.read_bytes() for path in b]


def test_a_file_of_ones_own(settings, bases, tmp_path):
    lines = ["question,answer,kind"] + [
        f"who won match {i}?,the team,{'ab'[i % 2]}" for i in range(20)
    ]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    chosen = settings(
        task=None, data=None, file=tmp_path / "mine.csv", text_column="Q: {question} A: {answer}",
        label_column="kind", prompt="{text}\nKind:", epochs=1,
    )  # fmt: skip
    model = train(chosen, tmp_path / "out", bases=bases)
    assert model.config.task == {
        "name": "mine", "family": "custom", "labels": [["a", "a"], ["b", "b"]], "text": "Q: {question} A: {answer}",
    }  # fmt: skip
    assert model.processor.template.suffix == "\nKind:"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["rows"] == 18
    assert results["validation"] == "held out of mine.csv: 2 of 20 rows"


def test_paper_mode_reads_the_papers_text(settings, bases, tmp_path):
    model = train(settings(mode="paper", max_steps=1), tmp_path / "out", bases=bases)
    assert model.config.task["text"] == "Text: {text} Topic: "
    assert (model.processor.template.prefix, model.processor.template.suffix) == ("", "")


@pytest.mark.parametrize("step", [1, 5])
def test_an_interruption_before_the_first_checkpoint_leaves_nothing(
    settings, interrupted, tmp_path, step
):
    interrupted(settings(), tmp_path / "new" / "deeper" / "out", step)
    assert not list(tmp_path.iterdir())


MISTAKES = {
    "no such task": {"task": "sib2000"},
    "no such data": {"data": "nowhere"},
    "no such language": {"language": "Klingon"},
    "no such encoder": {"encoder": "./nowhere"},
    "an option of another fusion": {"fusion": "mean", "rank": 4},
    "a prompt without its slot": {"prompt": "the topic:"},
    "no such device": {"device": "abacus"},
    "more than the encoder takes": {"max_length": 4096},
    "no such tracker": {"report_to": "abacus"},
    "no such text to solve from": {"solve_text": "nowhere.txt"},
    "no such text": {"task": None, "data": None, "text": "nowhere.txt"},
    "no such file": {"task": None, "data": None, "file": "nowhere.csv"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(settings, tmp_path, mistake):
    with pytest.raises(PalamError) as caught:
        train(settings(**MISTAKES[mistake]), tmp_path / "new" / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_somebodys_folder_is_not_touched(settings, bases, tmp_path):
    for name, content in {"notes.txt": "mine", "config.json": '{"model_type": "llama"}'}.items():
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(PalamError, match="holds other files"):
            train(settings(), folder, bases=bases)
        assert [path.name for path in folder.iterdir()] == [name]
    (tmp_path / "notes").rename(tmp_path / "new.partial")
    with pytest.raises(PalamError, match="holds other files"):
        train(settings(), tmp_path / "new", bases=bases)
    assert {path.name for path in tmp_path.rglob("*")} == {
        "config",
        "config.json",
        "new.partial",
        "notes.txt",
    }


def test_an_older_checkpoint_is_replaced_at_the_end(settings, bases, interrupted, tmp_path):
    train(settings(max_steps=1), tmp_path / "out", bases=bases)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    interrupted(settings(seed=1), tmp_path / "out", 8)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    train(settings(seed=1), tmp_path / "out", bases=bases, resume=True)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_progress_has_loss_speed_and_time_left(settings, bases, tmp_path):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=160, color_system=None)
    train(settings(max_length=9), tmp_path / "out", bases=bases, console=console)
    text = written.getvalue()
    assert "18/18" in text
    for form in (
        r"loss \d+\.\d{3}",
        r"dev \d+\.\d{3}",
        r"\d+ tokens/s",
        r"\d:\d\d:\d\d",
        r"held-out R²",
        r"cut at 9 tok",
    ):
        assert re.search(form, text), form


@pytest.mark.parametrize("fusion", ["mean", "transformer_softmax"])
def test_kept_states_change_nothing_but_the_encoders_work(
    settings, bases, tmp_path, monkeypatch, fusion
):
    read = []
    encode = PalamModel.encode
    monkeypatch.setattr(
        PalamModel,
        "encode",
        lambda self, ids, mask: read.append(len(ids)) or encode(self, ids, mask),
    )
    found = {}
    for name, changes in {
        "none": {"cache_states": 0},
        "memory": {},
        "disk": {"cache_dir": tmp_path / "kept"},
    }.items():
        for again in range(2 if name == "disk" else 1):
            read.clear()
            chosen = settings(fusion=fusion, epochs=3, init="random", **changes)
            model = train(chosen, tmp_path / f"{name}{again}", bases=bases)
            found[f"{name}{again}"] = (
                sum(read),
                {k: v.clone() for k, v in model.bridge.state_dict().items()},
            )
            assert model.cache is None
    expected = found["none0"][1]
    for name, (_, weights) in found.items():
        for key, weight in weights.items():
            torch.testing.assert_close(
                weight, expected[key], atol=2e-4, rtol=1e-3, msg=f"{name}: {key}"
            )
    rest = found["disk1"][0]  # what reads outside the training loop
    assert found["none0"][0] - rest == 3 * (21 + 7)
    data = read_training_data(chosen)
    different = {example.fields["text"] for example in (*data.train, *data.dev)}
    assert found["memory0"][0] - rest == found["disk0"][0] - rest == len(different)


def test_a_lora_that_reads_the_text_itself_uses_no_bridge(settings, bases, tmp_path, base_folder):
    chosen = settings(llm_only=True, lora_rank=2, init="random", lr=1e-2)
    before = build_model(chosen, read_training_data(chosen))
    model = train(chosen, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()
    for key, value in model.bridge.state_dict().items():
        assert torch.equal(value, before.bridge.state_dict()[key]), key
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    lora = {name: p.numel() for name, p in model.llm.named_parameters() if "lora" in name}
    assert results["trained_parameters"] == sum(lora.values())
    loaded = PalamModel.from_pretrained(tmp_path / "out")
    texts, labels = ["the match was won", "rice"], ["sports", "politics"]
    scores = score_labels(loaded, texts, labels)
    torch.testing.assert_close(
        scores, score_labels(model, texts, labels, llm_only=True), atol=1e-4, rtol=0
    )
    assert not torch.allclose(scores, score_labels(before, texts, labels, llm_only=True), atol=1e-3)
    before.config.llm_only = False
    other = PalamModel.from_bases(
        *bases, mode="prompt", prompt=read_training_data(chosen).task.prompt
    )
    plain = [
        score_labels(one, texts, labels, llm_only=True) for one in (before, other)
    ]  # a LoRA begins as nothing
    torch.testing.assert_close(*plain, atol=1e-4, rtol=0)


def test_an_augmented_bridge_reads_the_texts_own_tokens_too(settings, bases, tmp_path):
    model = train(settings(append_source_tokens=True), tmp_path / "out", bases=bases)
    loaded = PalamModel.from_pretrained(tmp_path / "out", *bases)
    texts, labels = ["the match was won", "rice"], ["sports", "politics"]
    found = score_labels(loaded, texts, labels)
    assert torch.equal(found, score_labels(model, texts, labels))
    loaded.processor.append_source_tokens = False
    assert not torch.allclose(found, score_labels(loaded, texts, labels), atol=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"direct": True}, {"direct": True, "lora_rank": 2, "augment": True}]
)
def test_direct_trains_a_lora_alone(settings, wrong):
    with pytest.raises(PalamError, match="give --lora-rank, and no --augment"):
        settings(**wrong)
    for setting in ("augment", "direct"):
        with pytest.raises(PalamError, match="give --task or --file"):
            settings("text", **{setting: True}, lora_rank=2)


def test_it_learns_to_work_out_numbers(settings, bases, tmp_path):
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    rows = [
        {"question": f"the book {n}", "answer": f"a = <<1+{n}=0>>b.\n#### {n}"} for n in range(12)
    ]
    (tmp_path / "data" / "gsm8k" / "train.en.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    chosen = settings(task="gsm8k", data=tmp_path / "data", init="random")
    data = read_training_data(chosen)
    assert (len(data.train), len(data.dev)) == (11, 1)
    model = train(chosen, tmp_path / "out", bases=bases)
    assert model.config.task["labels"] == []
    loaded = PalamModel.from_pretrained(tmp_path / "out", *bases)
    found = evaluate(loaded, data.task, "dev", {"en": data.dev})
    assert {one["label"] for one in found.predictions} <= {str(n) for n in range(12)}
    assert all(type(one["answer"]) is str for one in found.predictions)
