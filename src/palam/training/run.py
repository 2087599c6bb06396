"""A training run from settings to a saved bridge. The folder `<out>` appears when the run is complete.

Until then everything is in `<out>.partial`: settings, log and resumable checkpoints.
"""

import contextlib
import json
import math
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed
from transformers.integrations.integration_utils import get_available_reporting_integrations

from palam.alignment.solve import solve_bridge
from palam.errors import PalamError
from palam.inference import evaluation as evaluate
from palam.models.checkpoint import CHECKPOINT_MARKER
from palam.models.fusion import FUSIONS
from palam.models.model_card import model_card
from palam.models.modeling import PalamModel
from palam.tasks.readers import read_texts
from palam.training.build import Bases, build_model
from palam.training.callbacks import JsonLog, ProgressBar
from palam.training.config import TrainConfig
from palam.training.data import (
    AnswerDataset,
    PrefixDataset,
    TrainingData,
    read_training_data,
)
from palam.training.distillation import answer_prompts_with_llm
from palam.training.encoder_cache import EncoderStateCache
from palam.training.trainer import PalamTrainer, PalamTrainingArguments, newest_checkpoint
from palam.utils.device import dtype_name, pick_device, pick_dtype
from palam.utils.files import atomic_directory, check_replaceable

SETTINGS = "settings.yaml"
LOG = "log.jsonl"
RESULTS = "results.json"
SOLVE_TEXTS = 2000  # more training inputs do not make a better start


def train(
    settings: TrainConfig, out: str | Path, *, resume: bool = False, console: Console | None = None,
    bases: Bases | None = None, callbacks: Sequence[TrainerCallback] = (),
) -> PalamModel:  # fmt: skip
    """Train a bridge and save it to `out`.

    Args:
        settings: everything; recorded in the checkpoint.
        out: the checkpoint's folder, new or empty, or an older checkpoint to replace.
        resume: go on from the newest complete checkpoint of an interrupted run with the same settings.
        console: for progress; None is silent.
        bases: encoder and LLM already loaded, in place of loading the settings'.
        callbacks: of the transformers Trainer, beside the run's own.

    Returns:
        The trained model, in evaluation. `out` then holds the bridge, its settings, its log, and `results.json`.

    Raises:
        PalamError: a mistake in the settings or the data, or a loss that is not finite.
    """
    console = console or Console(quiet=True)
    out = Path(out).resolve()
    work = out.with_name(f"{out.name}.partial")
    check_replaceable(out, CHECKPOINT_MARKER)
    check_replaceable(work, SETTINGS)
    trackers = ["none", "all", *get_available_reporting_integrations()]  # type: ignore[no-untyped-call]
    if settings.report_to not in trackers:
        raise PalamError(
            f"report_to is {settings.report_to!r}; here it must be one of: {', '.join(trackers)}"
        )
    checkpoint = None
    if resume:
        settings, checkpoint = _interrupted(settings, work)
    settings = replace(
        settings, dtype=dtype_name(pick_dtype(settings.dtype, pick_device(settings.device)))
    )
    set_seed(settings.seed)
    data = read_training_data(settings)
    model = build_model(settings, data, bases)
    train_set, dev_set = (_dataset(settings, data, rows, model) for rows in (data.train, data.dev))
    if settings.prompts:
        with console.status("the LLM answers the prompts"):
            for some in (train_set, dev_set):
                answer_prompts_with_llm(settings, some, model)
    facts: dict[str, Any] = {"validation": data.note}
    if checkpoint:
        facts |= json.loads((work / RESULTS).read_text(encoding="utf-8"))
    elif settings.start:
        model.bridge.load_weights_from(settings.start)
    elif settings.init == "solve" and not settings.llm_only:
        with console.status("solving the start"):
            texts = (
                read_texts(settings.solve_text)
                if settings.solve_text
                else _some(settings, data, train_set)
            )
            solved = solve_bridge(model, texts, repeat(data.language))
        facts["solved"] = vars(solved)
        console.print(f"solved start: held-out R² {solved.r2:.3f} on {solved.tokens} tokens")
    facts["rows"] = len(train_set)

    made = [folder for folder in (work, *work.parents) if not folder.exists()]
    if checkpoint is None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / SETTINGS).write_text(settings.to_yaml(), encoding="utf-8")
        (work / RESULTS).write_text(json.dumps(facts), encoding="utf-8")
    _cache(settings, model, [train_set, dev_set], console)
    start, progress = time.time(), ProgressBar(console)
    own: list[TrainerCallback] = [JsonLog(work / LOG), progress, *callbacks]
    own += [EarlyStoppingCallback(settings.patience)] if settings.patience else []
    try:
        arguments = _arguments(settings, len(train_set), model.device.type, work)
        trainer = PalamTrainer(
            model, arguments, train_dataset=train_set, eval_dataset=dev_set, callbacks=own
        )
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except BaseException:
        if newest_checkpoint(work) is None:  # nothing to resume from: leave nothing behind
            shutil.rmtree(work, ignore_errors=True)
            for folder in made[1:]:
                with contextlib.suppress(OSError):  # another run may be using it
                    folder.rmdir()
        raise
    finally:
        progress.bar.stop()
        model.cache = None
    model.eval()
    facts |= {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "validation_loss": trainer.state.best_metric,
        "training_seconds": round(time.time() - start, 1),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "texts": {code: dict(vars(stats)) for code, stats in model.processor.stats.items()},
    }
    for line in model.processor.text_report():
        console.print(line)
    if data.task and not data.task.number:  # answers that are worked out take long
        with console.status("reading the validation data"):
            facts["validation_accuracy"] = evaluate(
                model, data.task, "dev", {data.language: data.dev}
            ).macro
    with atomic_directory(out, marker=CHECKPOINT_MARKER) as aside:
        model.write(aside, model_card(model, settings, facts))
        (aside / SETTINGS).write_text(settings.to_yaml(), encoding="utf-8")
        (aside / RESULTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        shutil.copy(work / LOG, aside / LOG)
    shutil.rmtree(work)
    return model


def _interrupted(settings: TrainConfig, work: Path) -> tuple[TrainConfig, Path]:
    """The settings of the run in `work`, which must be these, and its checkpoint."""
    checkpoint = newest_checkpoint(work)
    if checkpoint is None:
        raise PalamError(f"there is nothing to resume: {work} holds no complete checkpoint")
    was = TrainConfig.from_yaml(work / SETTINGS)
    if settings.dtype == "auto":  # it was measured, and another time it may come out otherwise
        settings = replace(settings, dtype=was.dtype)
    for name in (one.name for one in fields(settings)):
        if getattr(settings, name) != getattr(was, name):
            raise PalamError(
                f"the interrupted run has {name} {getattr(was, name)}, not {getattr(settings, name)}; "
                "resume with its settings, or start anew without --resume"
            )
    return settings, checkpoint


def _dataset(settings: TrainConfig, data: TrainingData, rows: list[Any], model: PalamModel) -> Any:
    texts = data.texts(rows, settings.mode)
    if data.task:
        answers = [data.task.answer(example.label) for example in rows]
        words = (
            data.task.passage_words if settings.passage_words is None else settings.passage_words
        )
        languages = [data.language] * len(rows)
        return AnswerDataset(
            model.processor,
            texts,
            answers,
            languages,
            words=words or None,
            seed=settings.seed,
            llm_only=settings.llm_only,
        )
    made = PrefixDataset(
        model.processor, texts, seed=settings.seed, language=data.language, distill=settings.distill
    )
    if not len(made):
        raise PalamError(
            f"{settings.text} has too few lines of two words or more to train on and to validate"
        )
    return made


def _some(settings: TrainConfig, data: TrainingData, train_set: Any) -> Sequence[str]:
    """What the start is solved from: the training inputs, or a seeded sample of many."""
    inputs: Sequence[str] = train_set.read() if data.task else data.train
    many = len(inputs) > SOLVE_TEXTS
    return random.Random(settings.seed).sample(inputs, SOLVE_TEXTS) if many else inputs


def _cache(settings: TrainConfig, model: PalamModel, sets: list[Any], console: Console) -> None:
    """Let the encoder read the texts that are the same in every epoch, once."""
    rows = [
        row.get("encoder_input_ids")
        for data in sets
        if getattr(data, "words", 1) is None
        for row in data.rows
    ]
    budget = int(settings.cache_states * 1e9)
    if not rows or not budget or settings.llm_only:
        return
    model.cache = EncoderStateCache(model, budget, settings.cache_dir)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        item = bar.add_task("the encoder reads", total=len(rows))
        model.cache.fill(model, rows, lambda n: bar.advance(item, n))


def _arguments(settings: TrainConfig, rows: int, device: str, work: Path) -> PalamTrainingArguments:
    steps = math.ceil(rows / settings.batch_size / settings.accumulate) * settings.epochs
    total = int(settings.max_steps if settings.max_steps > 0 else steps)
    mixing = (
        settings.fusion_lr
        if settings.fusion_lr is not None
        else FUSIONS[settings.fusion].learning_rate
    )
    same = (
        "max_steps",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "max_grad_norm",
        "seed",
        "report_to",
    )
    given: dict[str, Any] = {name: getattr(settings, name) for name in same}
    given |= {
        "num_train_epochs": settings.epochs,
        "gradient_accumulation_steps": settings.accumulate,
    }
    given |= {
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": 2 * settings.batch_size,
    }
    given |= {"learning_rate": settings.lr, "mixing_learning_rate": mixing}
    given |= {"lr_scheduler_type": "cosine", "warmup_steps": int(settings.warmup * total)}
    if settings.average is not None:
        given |= {
            "lr_scheduler_type": "constant_with_warmup",
            "average_from": int(settings.average * total),
        }
    often = "steps" if settings.eval_steps else "epoch"
    given |= {"eval_strategy": often, "eval_steps": settings.eval_steps}
    given |= {"save_strategy": often, "save_steps": settings.eval_steps or 500}
    given |= {
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    given |= {
        "logging_steps": max(1, min(10, total // 20)),
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }
    given |= {
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "remove_unused_columns": False,
    }
    given |= {"prediction_loss_only": True, "restore_callback_states_from_checkpoint": True}
    return PalamTrainingArguments(output_dir=str(work), **given)
