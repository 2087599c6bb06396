"""A training run from settings to a saved bridge. The folder `<out>` appears when the run is complete.

Until then everything is in `<out>.partial`: settings, log and resumable checkpoints.
"""

import json
import math
import shutil
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import EarlyStoppingCallback, PreTrainedModel

from palam.align import solve
from palam.card import model_card
from palam.device import dtype_name, pick_attention, pick_device, pick_dtype
from palam.errors import PalamError
from palam.files import replacing
from palam.fusion import FUSIONS
from palam.model import PalamModel
from palam.reading import evaluate
from palam.tasks import Example, Task, get_task, native_language, sample, task_from_file, train_and_dev
from palam.training.callbacks import JsonLog, ProgressBar
from palam.training.data import AnswerDataset, PrefixDataset
from palam.training.settings import TrainSettings
from palam.training.trainer import PalamTrainer, PalamTrainingArguments, newest_checkpoint

SETTINGS = "settings.yaml"
LOG = "log.jsonl"
RESULTS = "results.json"
Bases = tuple[PreTrainedModel, PreTrainedModel]


@dataclass
class Data:
    """What a run reads: texts with answers, or raw texts to continue."""

    task: Task | None
    train: list[Example]
    dev: list[Example]
    texts: list[str]
    language: str | None
    note: str


def read_data(settings: TrainSettings) -> Data:
    """Load the training and validation data, before any model."""
    if settings.text is not None:
        lines = _lines(settings.text)
        return Data(None, [], [], lines, settings.language, "the last twentieth of the lines")
    language = settings.language
    if settings.file is not None:
        task, rows = task_from_file(
            settings.file,
            text_column=settings.text_column,
            label_column=settings.label_column,
            prompt=settings.prompt,
        )
        dev = sample(rows, max(1, len(rows) // 10), settings.seed)
        held = {example.row for example in dev}
        train = [example for example in rows if example.row not in held]
        note = f"held out of {settings.file.name}: {len(dev)} of {len(rows)} rows"
    else:
        task = get_task(str(settings.task))
        language = native_language(task, language or "en", data_dir=settings.data)
        train, dev, note = train_and_dev(
            task, data_dir=settings.data, seed=settings.seed, language=language
        )
    if not train:
        raise PalamError("there is nothing to train on once validation rows are held out; give more rows")
    return Data(task, sample(train, settings.limit, settings.seed), dev, [], language, note)


def build(settings: TrainSettings, data: Data, bases: Bases | None = None) -> PalamModel:
    """The model before training, on the settings' device, its start random."""
    device = pick_device(settings.device)
    options = {"normalize": settings.normalize}
    if settings.rank is not None:
        options["rank"] = settings.rank  # type: ignore[assignment]
    if settings.faithful:
        options["faithful"] = True  # type: ignore[assignment]
    model = PalamModel.from_bases(
        *(bases or (settings.encoder, settings.llm)),
        fusion=settings.fusion,
        mapper=settings.mapper,
        mode=settings.mode if data.task else "paper",
        prompt=settings.prompt or (data.task.prompt if data.task else None),
        max_length=settings.max_length,
        seed=settings.seed,
        dtype=pick_dtype(settings.dtype, device),
        device=device,
        attention=pick_attention(device),
        encoder_revision=settings.encoder_revision,
        llm_revision=settings.llm_revision,
        **options,
    )
    if data.task:
        model.config.task = {
            "name": data.task.name,
            "family": data.task.family,
            "labels": [list(pair) for pair in data.task.labels.items()],
            "text": data.task.paper_text if settings.mode == "paper" else data.task.text,
        }
    if settings.lora_rank:
        model.add_lora(settings.lora_rank)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def train(
    settings: TrainSettings,
    out: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    bases: Bases | None = None,
) -> PalamModel:
    """Train a bridge and save it to `out`.

    Args:
        settings: everything; recorded in the checkpoint.
        out: the checkpoint's folder, new or empty, or an older checkpoint to replace.
        resume: go on from the newest complete checkpoint of an interrupted run with the same settings.
        console: for progress; None is silent.
        bases: encoder and LLM already loaded, in place of loading the settings'.

    Returns:
        The trained model, in evaluation. `out` then holds the bridge, its settings, its log, and `results.json`.

    Raises:
        PalamError: a mistake in the settings or the data, or a loss that is not finite.
    """
    console = console or Console(quiet=True)
    out = Path(out)
    work = out.with_name(out.name + ".partial")
    device = pick_device(settings.device)
    settings.dtype = dtype_name(pick_dtype(settings.dtype, device))
    checkpoint = _prepare_folder(settings, out, work, resume)
    try:
        data = read_data(settings)
        model = build(settings, data, bases)
        train_set, dev_set = _datasets(settings, data, model)
        facts: dict[str, Any] = {"rows": len(train_set), "validation": data.note}
        trainer = _trainer(settings, model, train_set, dev_set, work, console)
        if settings.init == "solve" and checkpoint is None:
            with console.status("solving the start"):
                texts = _lines(settings.solve_text) if settings.solve_text else _inputs(data, settings)
                solved = solve(model, texts, [data.language] * len(texts))
            facts["solved"] = vars(solved)
            console.print(f"solved start: held-out R² {solved.r2:.3f} on {solved.tokens} tokens")
        start = time.time()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException:
        if newest_checkpoint(work) is None:  # nothing to resume from: leave nothing behind
            shutil.rmtree(work, ignore_errors=True)
        raise
    model.eval()
    facts |= {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "validation_loss": trainer.state.best_metric,
        "training_seconds": round(time.time() - start, 1),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "texts": {code: vars(stats) for code, stats in model.processor.stats.items()},
    }
    if data.task and data.dev:
        with console.status("reading the validation data"):
            dev = {data.language or "en": data.dev}
            facts["validation_accuracy"] = evaluate(model, data.task, "dev", dev).macro
    _report_texts(model, console)
    with replacing(out, marker="config.json") as aside:
        model.write(aside, model_card(model, settings, facts))
        (aside / SETTINGS).write_text(settings.to_yaml(), encoding="utf-8")
        (aside / RESULTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        shutil.copy(work / LOG, aside / LOG)
    shutil.rmtree(work)
    return model


def _prepare_folder(settings: TrainSettings, out: Path, work: Path, resume: bool) -> Path | None:
    """Make the run's folder, or find the checkpoint to resume from."""
    if out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise PalamError(f"{out} holds other files; give a folder that is new or empty")
    if out.is_file():
        raise PalamError(f"{out} is a file; give a folder that is new or empty")
    if resume:
        checkpoint = newest_checkpoint(work)
        if checkpoint is None:
            raise PalamError(f"there is nothing to resume: {work} holds no complete checkpoint")
        was = TrainSettings.from_yaml(work / SETTINGS)
        for one in fields(settings):
            if getattr(settings, one.name) != getattr(was, one.name):
                raise PalamError(
                    f"the interrupted run has {one.name} {getattr(was, one.name)}, not "
                    f"{getattr(settings, one.name)}; resume with its settings, or start anew without --resume"
                )
        return checkpoint
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / SETTINGS).write_text(settings.to_yaml(), encoding="utf-8")
    return None


def _datasets(settings: TrainSettings, data: Data, model: PalamModel) -> tuple[Any, Any]:
    if data.task is None:
        held = max(1, len(data.texts) // 20)
        options: dict[str, Any] = {"seed": settings.seed, "language": data.language}
        sets = [PrefixDataset(model.processor, part, **options) for part in (data.texts[:-held], data.texts[-held:])]
        if not all(map(len, sets)):
            raise PalamError(f"{settings.text} has too few lines of two words or more to train on")
        return sets[0], sets[1]
    return tuple(
        AnswerDataset(
            model.processor,
            [data.task.render(example, settings.mode) for example in part],
            [data.task.labels[example.label] for example in part],
            [data.language] * len(part),
        )
        for part in (data.train, data.dev)
    )  # type: ignore[return-value]


def _inputs(data: Data, settings: TrainSettings) -> list[str]:
    if data.task is None:
        return data.texts
    return [data.task.render(example, settings.mode) for example in data.train]


def _trainer(
    settings: TrainSettings, model: PalamModel, train_set: Any, dev_set: Any, work: Path, console: Console
) -> PalamTrainer:
    often = {"strategy": "steps", "steps": settings.eval_steps} if settings.eval_steps else {"strategy": "epoch"}
    steps = math.ceil(len(train_set) / settings.batch_size / settings.accumulate) * settings.epochs
    total = settings.max_steps if settings.max_steps > 0 else steps
    mixing = settings.mixing_lr if settings.mixing_lr is not None else FUSIONS[settings.fusion].learning_rate
    arguments = PalamTrainingArguments(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.lr,
        mixing_learning_rate=mixing,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.warmup * total),
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=max(1, min(10, int(total) // 20)),
        logging_nan_inf_filter=False,
        eval_strategy=often["strategy"],
        eval_steps=often.get("steps"),
        save_strategy=often["strategy"],
        save_steps=often.get("steps", 500),
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        prediction_loss_only=True,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        dataloader_pin_memory=model.device.type == "cuda",
        disable_tqdm=True,
        use_cpu=model.device.type == "cpu",
        seed=settings.seed,
        report_to=settings.report_to,
    )
    callbacks: list[Any] = [JsonLog(work / LOG)]
    if not console.quiet:
        callbacks.append(ProgressBar(console))
    if settings.patience:
        callbacks.append(EarlyStoppingCallback(settings.patience))
    return PalamTrainer(model, arguments, train_set, dev_set, callbacks=callbacks)


def _report_texts(model: PalamModel, console: Console) -> None:
    for code, stats in model.processor.stats.items():
        if stats.cut or stats.unknown:
            console.print(
                f"texts{f' ({code})' if code else ''}: {stats.cut} of {stats.texts} cut at {model.processor.max_length} "
                f"tokens, {stats.unknown_share:.2%} of their tokens unknown to the encoder"
            )


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PalamError(f"{path} cannot be read as UTF-8 text: {error}") from None
    texts = [line.strip() for line in lines if line.strip()]
    if len(texts) < 2:
        raise PalamError(f"{path} holds fewer than two lines of text")
    return texts
