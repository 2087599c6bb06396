"""What the campaigns damage: small bridges, a run that was interrupted, a benchmark, files."""

import json
import random
from pathlib import Path

import tiny
import yaml
from transformers import TrainerCallback

from palam.cli.main import run
from palam.tasks.registry import get_task
from palam.training.config import TrainConfig
from palam.training.run import train

CPU = ("--device", "cpu", "--dtype", "fp32")
TASK = "sib200"
TEXTS = ("The match was won.", "මම ගෙදර යනවා.", "The rice price went up.")
BRIDGES = ("bridge", "lora", "solved")
"""Folders of checkpoints: a plain one, one with an adapter, one with priors of its labels."""
ROWS_PER_LABEL = {"train.eng_Latn": 3, "dev.eng_Latn": 1, "dev.sin_Sinh": 1}


class Interruption(TrainerCallback):
    """Ends a run as Ctrl-C does, after its second checkpoint."""

    def on_save(self, args, state, control, **kwargs):
        if state.global_step >= 4:
            raise KeyboardInterrupt


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def write_data(folder):
    """The task's rows, a few words each."""
    generator = random.Random(0)
    for split, count in ROWS_PER_LABEL.items():
        words = tiny.TEXT["si" if "sin" in split else "en"].split()
        rows = [
            {"text": " ".join(generator.sample(words, 5)), "label": label}
            for label in get_task(TASK).labels
            for _ in range(count)
        ]
        write_rows(folder / TASK / f"{split}.jsonl", rows)


def write_inputs(folder):
    """Files of texts, and files of labelled texts, in several formats."""
    write_rows(folder / "texts.jsonl", [{"text": text, "id": i} for i, text in enumerate(TEXTS)])
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    lines = ["text,label", *(f"{text},{'ab'[i % 2]}" for i, text in enumerate(4 * TEXTS))]
    (folder / "labelled.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "options.yaml").write_text("batch-size: 2\nlanguage: en\nresume: false\n")


def settings(folder):
    """The settings of every training run here."""
    return {
        "task": TASK,
        "data": str(folder / "data"),
        "encoder": str(folder / "bases/encoder"),
        "llm": str(folder / "bases/llm"),
        "epochs": 1,
        "batch_size": 4,
        "fusion": "mean",
        "device": "cpu",
        "dtype": "fp32",
    }


def as_options(values):
    """Settings as a command line has them."""
    options = []
    for name, value in values.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    return options


def write_interrupted_run(folder, values):
    """`run.partial`, of a run that was ended after two checkpoints."""
    config = TrainConfig.from_settings({**values, "eval_steps": 2})
    try:
        train(config, folder / "run", callbacks=[Interruption()])
    except KeyboardInterrupt:
        return
    raise AssertionError("the run was not interrupted")


def write_benchmark(folder, values):
    """`recipe.yaml`, and its finished results in `bench`."""
    recipe = {
        "train": {**values, "max_steps": 2},
        "read": {"split": "dev", "languages": ["si", "en"]},
        "seeds": [0],
        "curve": [1],
        "methods": {
            "last": {"fusion": "last", "lr": [1e-3, 1e-2]},
            "mean": {"init": "random"},
            "most": {"baseline": "majority"},
            "head": {"baseline": "head", "layers": "mean"},
            "chosen": {"best_of": ["last", "mean"]},
        },
        "published": {"note": "A note.", "last": {"si": 71.66, "mean": 50}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    palam("bench", folder / "recipe.yaml", "--out", folder / "bench")


def palam(*arguments):
    code = run([str(argument) for argument in arguments])
    assert code == 0, arguments


def write_specimens(folder: Path) -> None:
    """Write all of it into an empty folder."""
    tiny.tiny_encoder(folder / "bases/encoder", "bert")
    tiny.tiny_llm(folder / "bases/llm", "llama")
    write_data(folder / "data")
    write_inputs(folder)
    values = settings(folder)
    palam("train", *as_options(values), "--out", folder / "bridge")
    palam("train", *as_options({**values, "lora_rank": 2}), "--out", folder / "lora")
    solved = {**values, "out": folder / "solved"}
    for name in ("epochs", "batch_size"):
        del solved[name]
    palam("align", *as_options(solved))
    write_interrupted_run(folder, values)
    write_benchmark(folder, values)
