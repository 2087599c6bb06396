"""A training run, from its configuration to a saved bridge.

The folder `<out>` appears when the run is complete. Until then everything is in `<out>.partial`:
settings, log, results so far, and checkpoints to resume from.
"""

import contextlib
import json
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed
from transformers.integrations.integration_utils import get_available_reporting_integrations

from palam.alignment.solve import AlignmentResult, solve_bridge
from palam.errors import PalamError
from palam.inference.evaluation import evaluate
from palam.inference.metrics import majority_accuracy
from palam.models.bases import Bases
from palam.models.checkpoint import CHECKPOINT_MARKER, bridge_card, load_bridge, load_weights_from
from palam.models.modeling import PalamModel
from palam.models.processing import PalamProcessor
from palam.tasks.inspection import EncoderView
from palam.tasks.readers import read_texts
from palam.training.arguments import training_arguments
from palam.training.build import build_model, prepare_for_training, resolve_dtype
from palam.training.callbacks import JsonLog, ProgressBar
from palam.training.checksums import file_sha256, tensors_sha256, values_sha256
from palam.training.config import TrainConfig
from palam.training.data import (
    AnswerDataset,
    PrefixDataset,
    TrainingData,
    build_dataset,
    read_training_data,
)
from palam.training.distillation import answer_prompts_with_llm
from palam.training.encoder_cache import EncoderStateCache
from palam.training.place import run_place
from palam.training.trainer import PalamTrainer, checkpoints, newest_checkpoint
from palam.utils.files import atomic_directory, check_replaceable
from palam.utils.progress import progress_bar
from palam.utils.texts import printable

SETTINGS_FILE = "settings.yaml"
LOG_FILE = "log.jsonl"
RESULTS_FILE = "results.json"
INPUTS_FILE = "inputs.json"
MAX_SOLVE_TEXTS = 2000
"""More training inputs do not make a better start."""

Inputs = dict[str, str]
"""What a run depends on beside its settings: by name in words, a digest."""
Results = dict[str, Any]
"""What `results.json` holds, by name."""


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    bases: Bases | None = None,
    data: TrainingData | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PalamModel:
    """Train a bridge and save it to `out`.

    Args:
        config: everything; recorded in the checkpoint.
        out: the checkpoint's folder, new or empty, or an older checkpoint to replace.
        resume: resume an interrupted run of the same configuration from its newest complete
            checkpoint.
        console: for progress; None is silent.
        bases: encoder and LLM already loaded, in place of loading the configuration's.
        data: examples in memory, in place of reading the configuration's; see
            [`training_data_of`].
        callbacks: of the transformers Trainer, beside the run's own.

    Returns:
        The trained model, in evaluation. `out` then holds the bridge, its settings, its log, and
        `results.json`.

    Raises:
        PalamError: a mistake in the configuration or the data, or a loss that is not finite; or
            another run writes to `out`, or this process is one of several.
    """
    check_trackers(config.runtime.report_to)
    with run_place(out):
        folder = RunFolder(Path(out).resolve())
        folder.check()
        return _train_into(
            folder,
            config,
            resume=resume,
            console=console or Console(quiet=True),
            bases=bases,
            data=data,
            callbacks=callbacks,
        )


def _train_into(
    folder: "RunFolder",
    config: TrainConfig,
    *,
    resume: bool,
    console: Console,
    bases: Bases | None,
    data: TrainingData | None,
    callbacks: Sequence[TrainerCallback],
) -> PalamModel:
    """Train a bridge and save it to a folder that is held; see [`train`]."""
    checkpoint = None
    if resume:
        config, checkpoint = folder.interrupted_run(config)
    config = replace(config, runtime=resolve_dtype(config.runtime))
    run = TrainingRun.prepare(config, console, bases, data, checkpoint)
    inputs = run.inputs()
    if checkpoint is None:
        results = run.start()
    else:
        folder.check_inputs(inputs)
        results = folder.read_results()
        console.print(f"resuming from {checkpoint.name}")
    with folder.removed_on_failure():
        if checkpoint is None:
            folder.create(config, results, inputs)
        run.fill_encoder_cache()
        results.update(run.fit(folder.work, checkpoint, callbacks))
    results.update(run.validate())
    folder.save(run.model, config, results)
    return run.model


def check_trackers(report_to: str) -> None:
    """Refuse a tracker that the library does not know or that is not installed."""
    installed = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    trackers = ["none", "all", *installed]
    if report_to not in trackers:
        raise PalamError(
            f"report_to is {report_to!r}; here it must be one of: {', '.join(trackers)}"
        )


class InterruptedRun(NamedTuple):
    """What a run is resumed with."""

    config: TrainConfig
    checkpoint: Path


class RunFolder:
    """Where a run is written: to `work` until it is complete, then to `out`.

    Args:
        out: the checkpoint's folder, an absolute path.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.work = out.with_name(f"{out.name}.partial")

    def check(self) -> None:
        """Refuse folders that hold something else."""
        check_replaceable(self.out, CHECKPOINT_MARKER)
        check_replaceable(self.work, SETTINGS_FILE)

    def interrupted_run(self, config: TrainConfig) -> InterruptedRun:
        """The run to resume, with the dtype that it had measured.

        Raises:
            PalamError: no complete checkpoint, or one of a run with other settings.
        """
        checkpoint = newest_checkpoint(self.work)
        if checkpoint is None:
            damaged = ", ".join(folder.name for folder in checkpoints(self.work))
            reason = f"; damaged: {damaged}" if damaged else ""
            raise PalamError(
                f"there is nothing to resume: {self.work} holds no complete checkpoint{reason}"
            )
        interrupted = TrainConfig.from_yaml(self.work / SETTINGS_FILE)
        if config.runtime.dtype == "auto":  # another time it may be measured otherwise
            config = config.with_settings(dtype=interrupted.runtime.dtype)
        previous_settings = interrupted.settings()
        for name, value in config.settings().items():
            previous = previous_settings[name]
            if value != previous:
                raise PalamError(
                    f"the interrupted run has {name} {previous}, not {value}; "
                    "resume with its settings, or start anew without --resume"
                )
        return InterruptedRun(config, checkpoint)

    def read_results(self) -> Results:
        """The results so far of the run to resume.

        Raises:
            PalamError: they are missing or damaged.
        """
        results: Results = self._read_record(RESULTS_FILE)
        return results

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse to resume on other data or from another start than the run began with.

        Args:
            inputs: of the present run.

        Raises:
            PalamError: some are other ones, or the record of them is missing or damaged.
        """
        previous_inputs = self._read_record(INPUTS_FILE)
        for name, digest in inputs.items():
            if digest != previous_inputs.get(name):
                raise PalamError(
                    f"{name} changed since the interrupted run began; "
                    "resume with what it had, or start anew without --resume"
                )

    def _read_record(self, name: str) -> dict[str, Any]:
        path = self.work / name
        try:
            record = json.loads(path.read_bytes())
            json.dumps(record, allow_nan=False)
        except (OSError, ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise PalamError(f"{path} is missing or damaged; start anew without --resume")
        return record

    def create(self, config: TrainConfig, results: Results, inputs: Inputs) -> None:
        """Make the working folder, in place of one that an earlier run left."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        write_record(self.work, config.to_yaml(), results)
        content = json.dumps(inputs, indent=2) + "\n"
        (self.work / INPUTS_FILE).write_text(content, encoding="utf-8")

    @contextlib.contextmanager
    def removed_on_failure(self) -> Iterator[None]:
        """Remove the working folder if the block raises and there is nothing to resume from."""
        try:
            yield
        except BaseException:
            if newest_checkpoint(self.work) is None:
                shutil.rmtree(self.work, ignore_errors=True)
            raise

    def save(self, model: PalamModel, config: TrainConfig, results: Results) -> None:
        """Write the checkpoint with its record, and remove the working folder."""
        settings = config.to_yaml()
        card = bridge_card(
            model.bridge,
            model.processor,
            english=config.data.is_english,
            settings=settings,
            results=results,
        )
        with atomic_directory(self.out, marker=CHECKPOINT_MARKER) as aside:
            model.write_checkpoint(aside, card)
            write_record(aside, settings, results)
            shutil.copy(self.work / LOG_FILE, aside / LOG_FILE)
        shutil.rmtree(self.work)


def write_record(folder: Path, settings: str, results: Results) -> None:
    """Write `settings.yaml` and `results.json` into a folder.

    Args:
        folder: an existing one.
        settings: as YAML.
        results: by name.
    """
    (folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
    content = json.dumps(results, indent=2) + "\n"
    (folder / RESULTS_FILE).write_text(content, encoding="utf-8")


@dataclass
class TrainingRun:
    """A run's model and data, and its steps: start, fill the encoder cache, fit, validate."""

    config: TrainConfig
    console: Console
    data: TrainingData
    model: PalamModel
    train_set: AnswerDataset | PrefixDataset
    dev_set: AnswerDataset | PrefixDataset

    @classmethod
    def prepare(
        cls,
        config: TrainConfig,
        console: Console,
        bases: Bases | None,
        data: TrainingData | None = None,
        checkpoint: Path | None = None,
    ) -> "TrainingRun":
        """Read the data if they are not given, build the model and tokenise.

        A run that is resumed from a checkpoint is tokenised as it was.
        """
        seed = config.runtime.seed
        set_seed(seed)
        if data is None:
            # What is doubtful is printed with the look at the data; silent runs log it.
            notes: list[str] | None = None if console.quiet else []
            data = read_training_data(
                config.data, seed=seed, prompt=config.model.prompt, notes=notes
            )
        model = build_model(config.model, data, config.runtime, bases)
        if checkpoint is not None:
            _tokenize_as(model.processor, checkpoint)
        prepare_for_training(model, config.optim, config.runtime)
        train_set = build_dataset(config, data, data.train, model.processor)
        dev_set = build_dataset(config, data, data.dev, model.processor)
        run = cls(config, console, data, model, train_set, dev_set)
        if config.optim.prompts_file is not None:
            run.answer_prompts(config.optim.prompts_file)
        run.show_data()
        return run

    def show_data(self) -> None:
        """Print the look at the data, and how the texts were tokenised if they have been."""
        processor = self.model.processor
        inspection = self.data.inspection
        lines = []
        if inspection is not None:
            stats = processor.stats.values()
            inspection.encoder = EncoderView.of(stats, processor.max_length)
            lines = inspection.lines()
        # The encoder's lines come first, one a language.
        llm_lines = processor.text_report()[len(processor.stats) :]
        for line in [*lines, *llm_lines]:
            self.print_line(line)

    def print_line(self, line: str) -> None:
        """Print a line as it is: it may hold a user's words."""
        self.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def answer_prompts(self, prompts_file: Path) -> None:
        """Let the LLM answer the prompts about each text; see [`answer_prompts_with_llm`]."""
        mode = self.config.model.mode
        seed = self.config.runtime.seed
        with self.console.status("the LLM answers the prompts"):
            for dataset in (self.train_set, self.dev_set):
                assert isinstance(dataset, PrefixDataset)  # prompts are for raw text
                answer_prompts_with_llm(self.model, dataset, prompts_file, mode=mode, seed=seed)

    def inputs(self) -> Inputs:
        """Digests of the rows, the base models and the bridge that training starts from."""
        optim = self.config.optim
        inputs: Inputs = {
            "the training rows": values_sha256(self.train_set.content()),
            "the validation rows": values_sha256(self.dev_set.content()),
            "the encoder or the LLM": values_sha256([self.model.config.fingerprints]),
        }
        if optim.prompts_file is not None:
            inputs[str(optim.prompts_file)] = file_sha256(optim.prompts_file)
        if optim.init_from is not None:
            weights = load_bridge(optim.init_from).state_dict()
            inputs[f"the bridge {optim.init_from}"] = tensors_sha256(weights)
        return inputs

    def start(self) -> Results:
        """Give the bridge the weights that training starts from: another's, solved, or random."""
        results: Results = {"validation": self.data.note}
        if self.data.inspection is not None:
            results["data"] = self.data.inspection.to_dict()
        optim = self.config.optim
        if optim.init_from is not None:
            load_weights_from(self.model.bridge, optim.init_from)
        elif optim.init == "solve" and not optim.llm_only:
            results["solved"] = asdict(self.solve())
        results["rows"] = len(self.train_set)
        return results

    def solve(self) -> AlignmentResult:
        """Solve the mapper from English text; see [`solve_bridge`]."""
        text_file = self.config.optim.solve_text_file
        texts: Iterable[str]
        if text_file is not None:
            texts = read_texts(text_file)
        else:
            texts = self.sample_alignment_texts()
        with self.console.status("solving the start"):
            solved = solve_bridge(self.model, texts, repeat(self.data.language))
        self.console.print(f"solved start: held-out R² {solved.r2:.3f} on {solved.tokens} tokens")
        return solved

    def sample_alignment_texts(self) -> Sequence[str]:
        """The training inputs, or a seeded sample where there are very many."""
        if isinstance(self.train_set, AnswerDataset):
            inputs = self.train_set.current_texts()
        else:
            inputs = self.data.texts(self.data.train, self.config.model.mode)
        if len(inputs) <= MAX_SOLVE_TEXTS:
            return inputs
        generator = random.Random(self.config.runtime.seed)
        return generator.sample(inputs, MAX_SOLVE_TEXTS)

    def fill_encoder_cache(self) -> None:
        """Let the encoder read the texts that are the same in every epoch, once."""
        runtime = self.config.runtime
        budget = int(runtime.cache_states * 1e9)
        token_ids = [
            *self.train_set.repeated_encoder_ids(),
            *self.dev_set.repeated_encoder_ids(),
        ]
        if not token_ids or not budget:
            return
        cache = EncoderStateCache(self.model, budget, runtime.cache_dir)
        with progress_bar("the encoder reads", len(token_ids), self.console) as advance:
            cache.fill(token_ids, advance)
        self.model.encoding = cache

    def fit(
        self,
        work: Path,
        checkpoint: Path | None,
        callbacks: Sequence[TrainerCallback],
    ) -> Results:
        """Train; the model then has the best weights, and reads every text anew.

        Args:
            work: the folder of the log and the checkpoints.
            checkpoint: to resume from, or None.
            callbacks: beside the run's own.
        """
        model = self.model
        optim = self.config.optim
        began = time.time()
        progress = ProgressBar(self.console)
        all_callbacks = [JsonLog(work / LOG_FILE), progress, *callbacks]
        if optim.patience:
            all_callbacks.append(EarlyStoppingCallback(optim.patience))
        arguments = training_arguments(
            self.config,
            rows=len(self.train_set),
            device=model.device.type,
            work=work,
        )
        try:
            trainer = PalamTrainer(
                model,
                arguments,
                train_dataset=self.train_set,
                eval_dataset=self.dev_set,
                callbacks=all_callbacks,
            )
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        finally:
            progress.stop()
            model.encoding = model.live_encoding
        model.eval()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return {
            "steps": trainer.state.global_step,
            "best_step": trainer.state.best_global_step,
            "validation_loss": trainer.state.best_metric,
            "training_seconds": round(time.time() - began, 1),
            "trained_parameters": sum(parameter.numel() for parameter in trained),
            "texts": {code: asdict(stats) for code, stats in model.processor.stats.items()},
        }

    def validate(self) -> Results:
        """Measure accuracy and macro-F1 on the validation data, beside the majority's accuracy."""
        task = self.data.task
        if task is None:  # raw text is tokenised as it is read
            for line in self.model.processor.text_report():
                self.print_line(line)
            return {}
        if task.number:  # answers that are worked out take long
            return {}
        with self.console.status("reading the validation data"):
            examples = {self.data.language: self.data.dev}
            evaluation = evaluate(self.model, task, "dev", examples)
        metrics = evaluation.metrics(self.data.language)
        majority = majority_accuracy(
            [example.label for example in self.data.train],
            [example.label for example in self.data.dev],
        )
        self.print_line(
            f"validation ({self.data.note}): accuracy {metrics.accuracy:.1%}, "
            f"macro-F1 {metrics.macro_f1:.3f}; the most frequent label alone: "
            f"accuracy {majority:.1%}"
        )
        return {
            "validation_accuracy": evaluation.macro,
            "validation_macro_f1": metrics.macro_f1,
            "validation_majority_accuracy": majority,
        }


def _tokenize_as(processor: PalamProcessor, checkpoint: Path) -> None:
    """Let a processor tokenise as that of a checkpoint, which an earlier version may have made."""
    earlier = PalamProcessor.from_pretrained(
        checkpoint, encoder=processor.encoder, llm=processor.llm
    )
    processor.template = earlier.template
    processor.tokenization = earlier.tokenization
