"""Mutants: damaged checkpoints, runs, benchmarks and files, each with the command that reads it.

A mutant is made from a seed and a number alone, so that a fault can be seen again.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import damage
from specimens import BRIDGES, CPU, TASK, as_options, settings

from palam.training.checksums import file_sha256

COPIED = (*BRIDGES, "run.partial", "bench")
CHECKPOINT_FILES = (
    "config.json",
    "processor_config.json",
    "results.json",
    "settings.yaml",
    "log.jsonl",
    "README.md",
    "model.safetensors",
)
RUN_FILES = ("inputs.json", "results.json", "settings.yaml", "log.jsonl")
TRAINING_STATE = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "read_texts.json",
)
BENCH_FILES = ("cells.jsonl", "rates.jsonl", "curve.jsonl", "run.json", "recipe.yaml")


class Mutant(NamedTuple):
    """Something damaged, and the command that reads it.

    Attributes:
        name: what was damaged, and how.
        command: the command line.
        outputs: files that it writes, if it succeeds.
    """

    name: str
    command: list[str]
    outputs: list[Path]


class Bench(NamedTuple):
    """Where a mutant is made.

    Attributes:
        root: with the bases and the data, which are not to be changed.
        folder: with a copy of all else.
        rng: decides what is damaged and how.
    """

    root: Path
    folder: Path
    rng: random.Random


# ------------------------------------------------------------------ commands
def reading(bench: Bench, checkpoint: Path) -> tuple[list, list[Path]]:
    """A command that reads a checkpoint."""
    out = bench.folder / "out.jsonl"
    texts = ["--file", bench.folder / "texts.jsonl", "--out", out]
    data = ["--task", TASK, "--data", bench.root / "data", "--languages", "si"]
    results = bench.folder / "results.json"
    page = bench.folder / "page.json"
    start = {**settings(bench.root), "max_steps": 1, "init_from": checkpoint}
    new = bench.folder / "new"
    commands = (
        (["classify", checkpoint, *texts, *CPU], [out]),
        (["classify", checkpoint, *texts, *CPU], [out]),
        (["classify", checkpoint, *texts, "--labels", "good,bad", *CPU], [out]),
        (["generate", checkpoint, *texts, "--max-new-tokens", 4, *CPU], [out]),
        (["evaluate", checkpoint, *data, "--json", results, *CPU], [results]),
        (["info", checkpoint], []),
        (["inspect", checkpoint, "--text", "Some text", "--out", page, *CPU], [page]),
        (["train", *as_options(start), "--out", new], [new / "results.json"]),
    )
    return bench.rng.choice(commands)


def resuming(bench: Bench) -> tuple[list, list[Path]]:
    options = as_options({**settings(bench.root), "eval_steps": 2})
    out = bench.folder / "run"
    return ["train", *options, "--out", out, "--resume"], [out / "results.json"]


def benchmarking(bench: Bench) -> tuple[list, list[Path]]:
    results = bench.folder / "bench"
    page = bench.folder / "report.html"
    recipe = bench.folder / "recipe.yaml"
    commands = (
        (["report", results], []),
        (["report", results, "--latex"], []),
        (["report", results, "--html", page], []),
        (["bench", recipe, "--out", results], []),
        (["bench", recipe, "--out", results, "--set", "methods=most,head"], []),
    )
    return bench.rng.choice(commands)


# ------------------------------------------------------------------ what is damaged
def damaged(path: Path, bench: Bench) -> str:
    """Damage a file in one of the ways that fit it; what was done, in words."""
    ways = [*damage.BYTES, *damage.PLACES]
    deeper = {
        ".json": [damage.json_value],
        ".yaml": [damage.yaml_value, damage.yaml_text],
        ".jsonl": [damage.json_line],
        ".safetensors": list(damage.WEIGHTS),
    }.get(path.suffix, [])
    way = bench.rng.choice(ways)
    if deeper and bench.rng.random() < 0.75:
        way = bench.rng.choice(deeper)
    way(path, bench.rng)
    return f"{path.relative_to(bench.folder)}: {way.__name__}"


def checkpoint_file(bench: Bench, name: str) -> Mutant:
    checkpoint = bench.folder / bench.rng.choice(BRIDGES)
    if not (checkpoint / name).exists():
        checkpoint = bench.folder / "bridge"
    done = damaged(checkpoint / name, bench)
    return Mutant(done, *reading(bench, checkpoint))


def adapter_file(bench: Bench, name: str) -> Mutant:
    done = damaged(bench.folder / "lora/adapter" / name, bench)
    return Mutant(done, *reading(bench, bench.folder / "lora"))


def adapter_setting(bench: Bench, _: str) -> Mutant:
    path = bench.folder / "lora/adapter/adapter_config.json"
    content = json.loads(path.read_text())
    changes = (
        {"r": 10**6},
        {"r": 0},
        {"lora_alpha": float("nan")},
        {"lora_alpha": 1e308},
        {"target_modules": damage.CATASTROPHE},
        {"target_modules": [damage.ESCAPES]},
        {"target_modules": ".*" * 30 + "x"},
        {"target_modules": "all-linear"},
        {"peft_type": "IA3"},
        {"base_model_name_or_path": "/dev/zero"},
        {"auto_mapping": {"parent_library": "os", "base_model_class": "system"}},
    )
    change = bench.rng.choice(changes)
    path.write_text(json.dumps(content | change))
    name = f"adapter: {str(change)[:60]}"
    return Mutant(name, *reading(bench, bench.folder / "lora"))


def large_task(bench: Bench, _: str) -> Mutant:
    """Labels or prompts of a size that nobody has."""
    checkpoint = bench.folder / bench.rng.choice(BRIDGES)
    config = json.loads((checkpoint / "config.json").read_text())
    processor = json.loads((checkpoint / "processor_config.json").read_text())
    task, template = config["task"], processor["template"]
    size = bench.rng.choice(["labels", "label", "prompt", "text", "suffix", "name", "length"])
    if size == "labels":
        task["labels"] = [[f"label {i}", f"label {i}"] for i in range(5000)]
    elif size == "label":
        task["labels"][0] = [damage.LONG_LABEL, damage.LONG_LABEL]
    elif size == "text":
        task["text"] = bench.rng.choice([damage.PLACEHOLDER_TEXT, "{text.__class__}", "{0}", "{"])
    elif size == "name":
        task["name"] = task["labels"][0][0] = config["encoder"] + damage.ESCAPES
    elif size == "length":
        processor["max_length"] = bench.rng.choice([8, 10**9, 2**63])
    else:
        template["prefix" if size == "prompt" else "suffix"] = "word " * 100_000
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "processor_config.json").write_text(json.dumps(processor))
    return Mutant(f"{checkpoint.name}: {size}", *reading(bench, checkpoint))


def base_file(bench: Bench, name: str) -> Mutant:
    """A base model's file, beside a bridge that is right."""
    role = bench.rng.choice(["encoder", "llm"])
    base = shutil.copytree(bench.root / "bases" / role, bench.folder / role)
    done = damaged(base / name, bench)
    command, outputs = reading(bench, bench.folder / bench.rng.choice(BRIDGES))
    if command[0] in ("info", "train"):
        return Mutant(done, command, outputs)
    return Mutant(done, [*command, f"--{role}", base], outputs)


def run_file(bench: Bench, name: str) -> Mutant:
    done = damaged(bench.folder / "run.partial" / name, bench)
    return Mutant(done, *resuming(bench))


def training_state(bench: Bench, name: str) -> Mutant:
    """A file of a run's checkpoint; its checksum may be made right again."""
    folder = max(bench.folder.glob("run.partial/checkpoint-*"))
    done = damaged(folder / name, bench)
    if (folder / name).is_file() and bench.rng.random() < 0.7:
        checksums = json.loads((folder / "checksums.json").read_text())
        checksums[name] = file_sha256(folder / name)
        (folder / "checksums.json").write_text(json.dumps(checksums))
        done += ", checksum right"
    return Mutant(done, *resuming(bench))


def bench_file(bench: Bench, name: str) -> Mutant:
    done = damaged(bench.folder / "bench" / name, bench)
    return Mutant(done, *benchmarking(bench))


def bench_part(bench: Bench, pattern: str) -> Mutant:
    paths = sorted(bench.folder.glob(pattern))
    done = damaged(bench.rng.choice(paths), bench)
    return Mutant(done, *benchmarking(bench))


def recipe(bench: Bench, _: str) -> Mutant:
    path = bench.folder / "recipe.yaml"
    done = damaged(path, bench)
    dry_run = ["--dry-run", "--tflops", 1] if bench.rng.random() < 0.5 else []
    command = ["bench", path, "--out", bench.folder / "bench", *dry_run]
    return Mutant(done, command, [])


def change(bench: Bench, _: str) -> Mutant:
    """A change of a recipe on the command line."""
    names = ("lr", "seeds", "curve", "read", "read.limit", "read.languages", "methods", "train")
    names += ("encoder", "train.encoder", "published", "title", "against", "fusion_options", "data")
    name = bench.rng.choice(names)
    value = bench.rng.choice(damage.VALUES[:-7])
    text = json.dumps(value)[:1000].replace("\\u0000", "")
    recipe = bench.folder / "recipe.yaml"
    options = ["--out", bench.folder / "bench", "--set", f"{name}={text}", "--dry-run"]
    return Mutant(f"--set {name}={text[:40]!r}", ["bench", recipe, *options, "--tflops", 1], [])


def options_file(bench: Bench, _: str) -> Mutant:
    done = damaged(bench.folder / "options.yaml", bench)
    command, outputs = reading(bench, bench.folder / "bridge")
    return Mutant(done, [*command, "--config", bench.folder / "options.yaml"], outputs)


def texts(bench: Bench, name: str) -> Mutant:
    path = bench.folder / name
    done = damaged(path, bench)
    out = bench.folder / "out.jsonl"
    command = ["classify", bench.folder / "bridge", "--file", path, "--out", out, *CPU]
    return Mutant(done, command, [out])


def labelled(bench: Bench, _: str) -> Mutant:
    path = bench.folder / "labelled.csv"
    done = damaged(path, bench)
    values = {**settings(bench.root), "max_steps": 1, "file": path}
    del values["task"], values["data"]
    new = bench.folder / "new"
    return Mutant(done, ["train", *as_options(values), "--out", new], [new / "results.json"])


def task_rows(bench: Bench, name: str) -> Mutant:
    data = shutil.copytree(bench.root / "data", bench.folder / "data")
    done = damaged(data / TASK / name, bench)
    results = bench.folder / "results.json"
    command = ["evaluate", bench.folder / "bridge", "--task", TASK, "--data", data]
    return Mutant(done, [*command, "--languages", "si,en", "--json", results, *CPU], [results])


def partial_output(bench: Bench, _: str) -> Mutant:
    """What an interrupted `classify` has left is not what it left."""
    partial = bench.folder / "out.jsonl.partial"
    partial.write_text(
        json.dumps({"text": "The match was won.", "id": 0, "prediction": "x"}) + "\n"
    )
    done = damaged(partial, bench)
    out = bench.folder / "out.jsonl"
    source = ["--file", bench.folder / "texts.jsonl", "--out", out, "--resume"]
    return Mutant(done, ["classify", bench.folder / "bridge", *source, *CPU], [out])


KINDS: list[tuple[Callable[[Bench, str], Mutant], str]] = [
    *((checkpoint_file, name) for name in CHECKPOINT_FILES),
    *((checkpoint_file, name) for name in CHECKPOINT_FILES[:2]),
    (adapter_file, "adapter_config.json"),
    (adapter_file, "adapter_model.safetensors"),
    (adapter_setting, ""),
    (large_task, ""),
    (large_task, ""),
    *((base_file, name) for name in ("config.json", "tokenizer.json", "tokenizer_config.json")),
    (base_file, "model.safetensors"),
    *((run_file, name) for name in RUN_FILES),
    *((training_state, name) for name in (*TRAINING_STATE, "checksums.json", "model.safetensors")),
    *((bench_file, name) for name in BENCH_FILES),
    (bench_part, "bench/predictions/*.jsonl"),
    (bench_part, "bench/bridges/*/*.json"),
    (recipe, ""),
    (change, ""),
    (change, ""),
    (options_file, ""),
    (texts, "texts.jsonl"),
    (texts, "texts.txt"),
    (labelled, ""),
    (task_rows, "dev.sin_Sinh.jsonl"),
    (partial_output, ""),
]


def make_mutant(root: Path, folder: Path, seed: int, number: int) -> Mutant:
    """The mutant of that number.

    Args:
        root: see [`write_specimens`].
        folder: an empty one.
        seed, number: decide it.
    """
    for path in root.iterdir():
        if path.name in COPIED:
            shutil.copytree(path, folder / path.name)
        elif path.is_file():
            shutil.copy(path, folder / path.name)
    rng = random.Random(f"{seed}-{number}")
    make, name = KINDS[number % len(KINDS)]
    return make(Bench(root, folder, rng), name)
