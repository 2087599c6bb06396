"""A run from its configuration to a folder: what it holds, and what is left when it fails."""

import io
import json
import re
from collections import Counter

import pytest
import torch
from helpers import read_jsonl
from rich.console import Console
from safetensors.torch import load_file
from transformers import TrainerCallback

from palam import PalamModel
from palam.alignment.solve import solve_bridge
from palam.errors import PalamError
from palam.inference.evaluation import evaluate
from palam.inference.scoring import score_labels
from palam.models.encoding import LiveEncoding
from palam.training.build import build_model, prepare_for_training
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


def data_of(config):
    """What a run of this configuration reads."""
    return read_training_data(config.data, seed=config.runtime.seed, prompt=config.model.prompt)


def model_of(config, bases=None):
    """The model of such a run before training, with random weights."""
    model = build_model(config.model, data_of(config), config.runtime, bases)
    prepare_for_training(model, config.optim, config.runtime)
    return model


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("objective", ["answers", "text"])
def test_the_folder_appears_when_it_is_complete(settings, bases, tmp_path, objective):
    config = settings(objective)
    out = tmp_path / "runs" / "out"
    watch = Watch(out)
    model = train(config, out, bases=bases, callbacks=[watch])
    assert len(watch.seen) > 5
    assert not any(watch.seen)
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "processor_config.json",
        "results.json",
        "settings.yaml",
    }
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert TrainConfig.from_yaml(out / "settings.yaml") == config
    log = read_jsonl(out / "log.jsonl")
    steps = [entry for entry in log if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, len(watch.seen) + 1))
    assert all(entry["tokens_per_second"] > 0 and entry["loss"] > 0 for entry in steps)
    results = results_of(out)
    validations = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    assert len(validations) == config.optim.epochs
    assert results["best_step"] == min(validations, key=validations.get)
    assert results["validation_loss"] == min(validations.values())
    assert results["steps"] == len(watch.seen)
    assert results["rows"] == {"answers": 21, "text": 19}[objective]
    assert results["trained_parameters"] == sum(p.numel() for p in model.bridge.parameters())
    loaded = PalamModel.from_pretrained(out)
    for name, value in loaded.bridge.state_dict().items():
        assert torch.equal(value, model.bridge.state_dict()[name]), name


def test_the_card_has_the_runs_settings_and_results(settings, bases, tmp_path):
    config = settings(max_steps=1)
    train(config, tmp_path / "out", bases=bases)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "trained on English text alone" in card
    assert "lr: 0.005\n" in card
    assert "| rows | 21 |" in card
    train(settings("text", max_steps=1, language="de"), tmp_path / "german", bases=bases)
    card = (tmp_path / "german" / "README.md").read_text(encoding="utf-8")
    assert "trained on English text alone" not in card


def test_results_count_each_text_once(settings, bases, tmp_path):
    train(settings(max_length=9), tmp_path / "out", bases=bases)
    results = results_of(tmp_path / "out")
    counted = results["texts"]["eng_Latn"]
    assert counted["texts"] == 21 + 7
    assert 0 < counted["cut"] < 28
    assert 0 <= results["validation_accuracy"] <= 1
    assert results["solved"]["tokens"] > 20


def test_the_solved_start(settings, bases, text_file, lexicon, tmp_path):
    """Training begins from what is solved on the training inputs, or on the text that is named."""
    starts = {
        "inputs": {},
        "inputs, of which the encoder reads words in other languages": {"lexicon": str(lexicon)},
        "text": {"solve_text_file": text_file},
        "random": {"init": "random"},
    }
    started = {}
    for name, changes in starts.items():
        watch = Watch(tmp_path)
        train(settings(max_steps=1, **changes), tmp_path / name, bases=bases, callbacks=[watch])
        started[name] = watch.readout
    data = data_of(settings())
    model = model_of(settings(), bases)
    expected = {"random": model.bridge.mapper.readout.weight.detach().clone()}
    texts_by_name = {
        "inputs": data.texts(data.train, "prompt"),
        "text": text_file.read_text().split("\n"),
    }
    for name, texts in texts_by_name.items():
        solve_bridge(model, texts)
        expected[name] = model.bridge.mapper.readout.weight.detach().clone()
    assert not torch.allclose(expected["inputs"], expected["text"])
    assert not torch.allclose(expected["inputs"], expected["random"])
    expected["inputs, of which the encoder reads words in other languages"] = expected["inputs"]
    for name, value in expected.items():
        assert torch.allclose(started[name], value, atol=1e-6), name


def test_a_run_starts_from_a_bridge(settings, bases, tmp_path):
    before = train(settings(max_steps=1), tmp_path / "first", bases=bases)
    watch = Watch(tmp_path)
    config = settings(max_steps=1, init_from=str(tmp_path / "first"))
    train(config, tmp_path / "second", bases=bases, callbacks=[watch])
    assert torch.equal(watch.readout, before.bridge.mapper.readout.weight)
    assert "solved" not in results_of(tmp_path / "second")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": "last"}, "has fusion mean, this run last; they must be the same"),
        (
            {"normalize": "none"},
            "has fusion options {'normalize': 'layer'}, this run {'normalize': 'none'}",
        ),
        ({"init_from": "nowhere"}, "nowhere"),
        ({"encoder": "xlmr"}, "is not the encoder that this bridge was trained with ("),
    ],
)
def test_a_bridge_that_does_not_fit_is_no_start(
    settings, bases, base_folder, tmp_path, changes, message
):
    train(settings(max_steps=1), tmp_path / "first", bases=bases)
    if "encoder" in changes:
        changes = {"encoder": str(base_folder("xlmr"))}
        bases = None
    config = settings(**{"init_from": str(tmp_path / "first")} | changes)
    with pytest.raises(PalamError, match=re.escape(message)):
        train(config, tmp_path / "second", bases=bases)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def lora_of(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_lora_is_trained_on_with_its_bridge(settings, tmp_path):
    pytest.importorskip("peft")
    train(settings(max_steps=3, lora_rank=2), tmp_path / "first")
    start = {"init_from": str(tmp_path / "first"), "lora_rank": 2}
    still = settings(max_steps=1, lr=1e-12, **start)
    same = train(still, tmp_path / "same")
    first, second = lora_of(tmp_path / "first"), lora_of(tmp_path / "same")
    assert any(weight.abs().max() > 0 for name, weight in first.items() if "lora_B" in name)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=1e-7, rtol=0)
    loaded = PalamModel.from_pretrained(tmp_path / "first")
    texts = ["a text", "another one"]
    torch.testing.assert_close(
        score_labels(same, texts, ["yes", "no"]),
        score_labels(loaded, texts, ["yes", "no"]),
        atol=1e-5,
        rtol=1e-5,
    )
    moved = settings(max_steps=3, **start)
    train(moved, tmp_path / "moved")
    third = lora_of(tmp_path / "moved")
    assert any(not torch.equal(third[name], weight) for name, weight in first.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "has a LoRA, without which its bridge is of no use; give --lora-rank 2"),
        ({"lora_rank": 3}, "has a LoRA of rank 2, this run one of 3; they must be the same"),
    ],
)
def test_a_lora_that_does_not_fit_is_no_start(settings, tmp_path, changes, message):
    pytest.importorskip("peft")
    train(settings(max_steps=1, lora_rank=2), tmp_path / "first")
    config = settings(init_from=str(tmp_path / "first"), **changes)
    with pytest.raises(PalamError, match=re.escape(message)):
        train(config, tmp_path / "second")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_lora_whose_steps_are_scaled_otherwise_is_no_start(settings, tmp_path):
    pytest.importorskip("peft")
    train(settings(max_steps=1, lora_rank=2), tmp_path / "first")
    (file,) = (tmp_path / "first").rglob("adapter_config.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"use_rslora": True}))
    message = "has a LoRA of use_rslora True, this run one of False; they must be the same"
    with pytest.raises(PalamError, match=message):
        train(settings(init_from=str(tmp_path / "first"), lora_rank=2), tmp_path / "second")


def test_a_lora_on_the_llm_alone_is_no_start_of_a_bridge(settings, tmp_path):
    pytest.importorskip("peft")
    alone = {"lora_rank": 2, "llm_only": True, "max_steps": 1}
    train(settings(**alone), tmp_path / "first")
    start = {"init_from": str(tmp_path / "first")}
    with pytest.raises(PalamError, match="is a LoRA on the LLM alone"):
        train(settings(max_steps=1, lora_rank=2, **start), tmp_path / "second")
    train(settings(**alone, **start), tmp_path / "third")
    assert lora_of(tmp_path / "third").keys() == lora_of(tmp_path / "first").keys()


def test_a_limit_is_stratified_and_seeded(settings):
    rows = data_of(settings(max_train_samples=14)).train
    assert set(Counter(row.label for row in rows).values()) == {2}
    samples = set()
    for seed in range(4):
        data = data_of(settings(max_train_samples=14, seed=seed))
        samples.add(tuple(row.row for row in data.train))
    assert len(samples) > 1
    lines = data_of(settings("text", max_train_samples=5)).train
    assert len(lines) == 5
    assert lines == data_of(settings("text", max_train_samples=5)).train


@pytest.mark.parametrize("changes", [{}, {"fusion": "transformer_softmax", "lora_rank": 2}])
def test_the_same_settings_give_the_same_bridge(settings, tmp_path, changes):
    if changes:
        pytest.importorskip("peft")
    for name in "ab":
        torch.randn(len(name))  # whatever was drawn before
        train(settings(max_steps=2, **changes), tmp_path / name)
        torch.randn(3)
    first = sorted((tmp_path / "a").rglob("*.safetensors"))
    second = sorted((tmp_path / "b").rglob("*.safetensors"))
    assert len(first) == (2 if changes else 1)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_file_of_ones_own(settings, bases, tmp_path):
    lines = ["question,answer,kind"]
    lines += [f"who won match {i}?,the team,{'ab'[i % 2]}" for i in range(20)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    config = settings(
        task=None,
        data=None,
        file=tmp_path / "mine.csv",
        text_column="Q: {question} A: {answer}",
        label_column="kind",
        prompt="{text}\nKind:",
        epochs=1,
    )
    model = train(config, tmp_path / "out", bases=bases)
    assert model.config.task == {
        "name": "mine",
        "family": "custom",
        "labels": [["a", "a"], ["b", "b"]],
        "text": "Q: {question} A: {answer}",
        "columns": {"question": "question", "answer": "answer", "label": "kind"},
    }
    assert model.processor.template.suffix == "\nKind:"
    results = results_of(tmp_path / "out")
    assert results["rows"] == 18
    assert results["validation"] == "held out of mine.csv: 2 of 20 rows"


def test_paper_mode_reads_the_papers_text(settings, bases, tmp_path):
    model = train(settings(mode="paper", max_steps=1), tmp_path / "out", bases=bases)
    assert model.config.task["text"] == "Text: {text} Topic: "
    template = model.processor.template
    assert (template.prefix, template.suffix) == ("", "")


@pytest.mark.parametrize("step", [1, 5])
def test_an_interruption_before_the_first_checkpoint_leaves_nothing(
    settings, interrupted, tmp_path, step
):
    interrupted(settings(), tmp_path / "new" / "deeper" / "out", step)
    assert not list(tmp_path.iterdir())


def test_states_that_cannot_be_kept_leave_nothing(settings, bases, tmp_path, monkeypatch):
    def full(shard, metadata):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palam.training.encoder_cache.save", full)
    with pytest.raises(PalamError, match="cannot be written: No space left"):
        train(settings(cache_dir=tmp_path / "kept"), tmp_path / "new" / "out", bases=bases)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


RAW = {"task": None, "data": None}
MISTAKES = {
    "no such task": {"task": "sib2000"},
    "no such data": {"data": "nowhere"},
    "no such language": {"language": "Klingon"},
    "no such encoder": {"encoder": "./nowhere"},
    "an option of another fusion": {"fusion": "mean", "fusion_options": {"rank": 4}},
    "a prompt without its slot": {"prompt": "the topic:"},
    "no such device": {"device": "abacus"},
    "more than the encoder takes": {"max_length": 4096},
    "no such tracker": {"report_to": "abacus"},
    "no such text to solve from": {"solve_text_file": "nowhere.txt"},
    "no such text": {**RAW, "text_file": "nowhere.txt"},
    "no such file": {**RAW, "file": "nowhere.csv"},
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
    names = {path.name for path in tmp_path.rglob("*")}
    assert names == {"config", "config.json", "new.partial", "notes.txt"}


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
    seen = []
    layers = LiveEncoding.layers

    def counted(self, ids, mask):
        seen.append(len(ids))
        return layers(self, ids, mask)

    monkeypatch.setattr(LiveEncoding, "layers", counted)
    runs = {
        "none": {"cache_states": 0},
        "memory": {},
        "disk": {"cache_dir": tmp_path / "kept"},
        "disk again": {"cache_dir": tmp_path / "kept"},
    }
    rows_read = {}
    weights = {}
    for name, changes in runs.items():
        seen.clear()
        config = settings(fusion=fusion, epochs=3, init="random", **changes)
        model = train(config, tmp_path / name, bases=bases)
        rows_read[name] = sum(seen)
        weights[name] = {key: value.clone() for key, value in model.bridge.state_dict().items()}
        assert model.encoding is model.live_encoding
    expected = weights["none"]
    for name in runs:
        for key, weight in weights[name].items():
            message = f"{name}: {key}"
            torch.testing.assert_close(weight, expected[key], atol=2e-4, rtol=1e-3, msg=message)
    outside_training = rows_read["disk again"]
    assert rows_read["none"] - outside_training == 3 * (21 + 7)
    data = data_of(settings())
    different = {example.fields["text"] for example in (*data.train, *data.dev)}
    assert rows_read["memory"] - outside_training == len(different)
    assert rows_read["disk"] - outside_training == len(different)


def test_a_lora_that_reads_the_text_itself_uses_no_bridge(settings, bases, tmp_path):
    config = settings(llm_only=True, lora_rank=2, init="random", lr=1e-2)
    before = model_of(config)
    model = train(config, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()
    for key, value in model.bridge.state_dict().items():
        assert torch.equal(value, before.bridge.state_dict()[key]), key
    results = results_of(tmp_path / "out")
    lora = {name: p.numel() for name, p in model.llm.named_parameters() if "lora" in name}
    assert results["trained_parameters"] == sum(lora.values())
    loaded = PalamModel.from_pretrained(tmp_path / "out")
    texts, labels = ["the match was won", "rice"], ["sports", "politics"]
    scores = score_labels(loaded, texts, labels)
    expected = score_labels(model, texts, labels, llm_only=True)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    untrained = score_labels(before, texts, labels, llm_only=True)
    assert not torch.allclose(scores, untrained, atol=1e-3)
    before.config.llm_only = False
    prompt = data_of(config).task.prompt
    without_lora = PalamModel.from_bases(*bases, mode="prompt", prompt=prompt)
    # A LoRA begins as nothing.
    torch.testing.assert_close(
        score_labels(before, texts, labels, llm_only=True),
        score_labels(without_lora, texts, labels, llm_only=True),
        atol=1e-4,
        rtol=0,
    )


def test_a_bridge_with_source_tokens_reads_the_texts_own_tokens_too(settings, bases, tmp_path):
    model = train(settings(append_source_tokens=True), tmp_path / "out", bases=bases)
    loaded = PalamModel.from_pretrained(tmp_path / "out", *bases)
    texts, labels = ["the match was won", "rice"], ["sports", "politics"]
    scores = score_labels(loaded, texts, labels)
    assert torch.equal(scores, score_labels(model, texts, labels))
    loaded.processor.append_source_tokens = False
    assert not torch.allclose(scores, score_labels(loaded, texts, labels), atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [{"llm_only": True}, {"llm_only": True, "lora_rank": 2, "append_source_tokens": True}],
)
def test_llm_only_trains_a_lora_alone(settings, wrong):
    with pytest.raises(PalamError, match="give --lora-rank, and no --append-source-tokens"):
        settings(**wrong)
    for setting in ("append_source_tokens", "llm_only"):
        with pytest.raises(PalamError, match="give --task or --file"):
            settings("text", **{setting: True}, lora_rank=2)


def test_it_learns_to_work_out_numbers(settings, bases, tmp_path):
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    lines = []
    for number in range(12):
        answer = f"a = <<1+{number}=0>>b.\n#### {number}"
        lines.append(json.dumps({"question": f"the book {number}", "answer": answer}) + "\n")
    (folder / "train.en.jsonl").write_text("".join(lines))
    config = settings(task="gsm8k", data=tmp_path / "data", init="random")
    data = data_of(config)
    assert (len(data.train), len(data.dev)) == (11, 1)
    model = train(config, tmp_path / "out", bases=bases)
    assert model.config.task["labels"] == []
    loaded = PalamModel.from_pretrained(tmp_path / "out", *bases)
    evaluation = evaluate(loaded, data.task, "dev", {"en": data.dev})
    numbers = {str(number) for number in range(12)}
    assert {prediction["label"] for prediction in evaluation.predictions} <= numbers
    assert all(type(prediction["answer"]) is str for prediction in evaluation.predictions)
