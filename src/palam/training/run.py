"""A training run, from its configuration to a saved bridge."""

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path

from rich.console import Console
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed
from transformers.integrations.integration_utils import get_available_reporting_integrations

from palam.alignment.solve import AlignmentResult, solve_bridge
from palam.errors import PalamError
from palam.inference.evaluation import Evaluation, evaluate
from palam.inference.metrics import majority_accuracy
from palam.models.bases import Bases
from palam.models.checkpoint import LOG_FILE, load_start, load_weights_from
from palam.models.modeling import PalamModel
from palam.models.processing import PalamProcessor
from palam.tasks.inspection import EncoderView
from palam.tasks.readers import read_texts
from palam.tasks.task import Task
from palam.training.arguments import check_batch_size, training_arguments
from palam.training.build import (
    build_dataset,
    build_model,
    prepare_for_training,
    resolve_dtype,
)
from palam.training.callbacks import JsonLog, ProgressBar
from palam.training.checksums import file_sha256, tensors_sha256, values_sha256
from palam.training.config import TrainConfig
from palam.training.data import TrainingData, first_reads, hold_out_labels, read_training_data
from palam.training.datasets import AnswerDataset
from palam.training.distillation import answer_prompts_with_llm
from palam.training.encoder_cache import EncoderStateCache
from palam.training.place import folder_for_rows, run_place
from palam.training.raw_text import RawTextDataset
from palam.training.run_folder import (
    BASE_MODELS,
    PROCESSES,
    PROMPTS,
    START,
    TRAINING_ROWS,
    VALIDATION_ROWS,
    Inputs,
    Results,
    RunFolder,
)
from palam.training.trainer import PalamTrainer
from palam.utils.processes import (
    is_main,
    join_processes,
    joined_shares,
    num_processes,
    on_main,
    own_share,
    wait_for_all,
)
from palam.utils.progress import progress_bar
from palam.utils.texts import printable

STATES_FOLDER = "encoder_states"
MAX_SOLVE_TEXTS = 2000
"""More training inputs do not make a better start."""


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

    In each of several processes (`torchrun`, `accelerate launch`) this is called alike: together
    they compute what one would, and the first of them writes.

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
            another run writes to `out`.
    """
    check_trackers(config.runtime.report_to)
    check_batch_size(config.optim, num_processes())
    join_processes(config.runtime.device)
    if console is None or not is_main():
        console = Console(quiet=True)
    with run_place(out), folder_for_rows(out) as rows:
        folder = RunFolder(Path(out).resolve())
        on_main(folder.check)
        return _train_into(
            folder,
            config,
            resume=resume,
            console=console,
            bases=bases,
            data=data,
            callbacks=callbacks,
            rows=rows,
        )


def _train_into(
    folder: RunFolder,
    config: TrainConfig,
    *,
    resume: bool,
    console: Console,
    bases: Bases | None,
    data: TrainingData | None,
    callbacks: Sequence[TrainerCallback],
    rows: Path,
) -> PalamModel:
    """Train a bridge and save it to a folder that is held; see [`train`].

    Args:
        folder: of the run.
        config, resume, console, bases, data, callbacks: see [`train`].
        rows: a folder for the tokenised rows.
    """
    checkpoint = None
    if resume:
        config, checkpoint = on_main(partial(folder.interrupted_run, config))
    config = replace(config, runtime=resolve_dtype(config.runtime))
    run = TrainingRun.prepare(config, console, bases, data, checkpoint, rows)
    if checkpoint is None:
        results = run.start()
    else:
        on_main(lambda: folder.check_inputs(run.inputs(), config.optim))
        results = on_main(folder.read_results)
        console.print(f"resuming from {checkpoint.name}")
    with folder.removed_on_failure():
        if checkpoint is None:
            on_main(lambda: folder.create(config, results, run.inputs()))
        run.fill_encoder_cache(folder.work)
        results.update(run.fit(folder.work, checkpoint, callbacks))
    results.update(run.validate())
    if is_main():
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


@dataclass
class TrainingRun:
    """A run's model and data, and its steps: start, fill the encoder cache, fit, validate."""

    config: TrainConfig
    console: Console
    data: TrainingData
    model: PalamModel
    train_set: AnswerDataset | RawTextDataset
    dev_set: AnswerDataset | RawTextDataset

    @classmethod
    def prepare(
        cls,
        config: TrainConfig,
        console: Console,
        bases: Bases | None,
        data: TrainingData | None,
        checkpoint: Path | None,
        rows: Path,
    ) -> "TrainingRun":
        """Read the data if they are not given, build the model and tokenise.

        Args:
            config, console, bases, data: see [`train`].
            checkpoint: of the run to resume, whose rows are tokenised as they were; or None.
            rows: the folder where tokens may be kept until the end of the run.
        """
        seed = config.runtime.seed
        set_seed(seed)
        if data is None:
            # What is doubtful is printed with the look at the data; silent runs log it.
            notes: list[str] | None = None if console.quiet else []
            read = partial(read_training_data, config.data, seed=seed, prompt=config.model.prompt)
            data = first_reads(lambda: read(notes=notes))
        if set(config.optim.objectives) == {"label"}:
            data = hold_out_labels(data, config.data.max_eval_samples, seed)
        model = build_model(config.model, data, config.runtime, bases)
        if checkpoint is not None:
            _tokenize_as(model.processor, checkpoint)
        prepare_for_training(model, config.optim, config.runtime)
        train_set = build_dataset(config, data, data.train, model.processor, rows / "train")
        dev_set = build_dataset(config, data, data.dev, model.processor, rows / "dev")
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
                assert isinstance(dataset, RawTextDataset)  # prompts are for raw text
                answer_prompts_with_llm(self.model, dataset, prompts_file, mode=mode, seed=seed)

    def inputs(self) -> Inputs:
        """Digests of the rows, the base models and the bridge that training starts from."""
        optim = self.config.optim
        inputs: Inputs = {
            PROCESSES: str(num_processes()),
            TRAINING_ROWS: values_sha256(self.train_set.content()),
            VALIDATION_ROWS: values_sha256(self.dev_set.content()),
            BASE_MODELS: values_sha256([self.model.config.fingerprints]),
        }
        if optim.prompts_file is not None:
            inputs[PROMPTS] = file_sha256(optim.prompts_file)
        if optim.init_from is not None:
            weights = load_start(optim.init_from).tensors()
            inputs[START] = tensors_sha256(weights)
        return inputs

    def start(self) -> Results:
        """Give the bridge the weights that training starts from: another's, solved, or random."""
        results: Results = {"validation": self.data.note}
        if self.data.inspection is not None:
            results["data"] = self.data.inspection.to_dict()
        optim = self.config.optim
        if optim.init_from is not None:
            load_weights_from(self.model.bridge, optim.init_from, self.model.llm)
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
            texts = on_main(self.sample_alignment_texts)
        with self.console.status("solving the start"):
            solved = solve_bridge(self.model, texts, repeat(self.data.language))
        self.console.print(f"solved start: held-out R² {solved.r2:.3f} on {solved.tokens} tokens")
        return solved

    def sample_alignment_texts(self) -> Sequence[str]:
        """The training inputs without noise, or a seeded sample where there are very many.

        The LLM knows no words of other languages, to whose tokens the start would be solved.
        """
        rows: Sequence[int] = range(len(self.data.train))
        if len(rows) > MAX_SOLVE_TEXTS:
            rows = random.Random(self.config.runtime.seed).sample(rows, MAX_SOLVE_TEXTS)
        if isinstance(self.train_set, AnswerDataset):
            return self.train_set.current_texts(rows, noise=False)
        texts = self.data.texts(self.data.train, self.config.model.mode)
        return [texts[row] for row in rows]

    def fill_encoder_cache(self, work: Path) -> None:
        """Let the encoder read the texts that are the same in every epoch, once.

        Several processes each read a share, and have the states of all from a folder.

        Args:
            work: the run's folder; its files are removed at the end.
        """
        runtime = self.config.runtime
        budget = int(runtime.cache_states * 1e9)
        train_ids = self.train_set.repeated_encoder_ids()
        dev_ids = self.dev_set.repeated_encoder_ids()
        if train_ids is None or dev_ids is None or not budget:
            return
        token_ids = train_ids.followed_by(dev_ids)
        folder = runtime.cache_dir
        if folder is None and num_processes() > 1:
            folder = work / STATES_FOLDER
        cache = EncoderStateCache(self.model, budget, folder)
        cache.bytes_left //= num_processes()
        share = own_share(token_ids)
        with progress_bar("the encoder reads", len(share), self.console) as advance:
            cache.fill(share, advance)
        if num_processes() > 1:
            wait_for_all()
            cache.load_shards()
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
        all_callbacks = [progress, *callbacks]
        if is_main():
            all_callbacks.append(JsonLog(work / LOG_FILE))
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
        if task.has_free_answers:  # they take long
            return {}
        with self.console.status("reading the validation data"):
            evaluation = self._evaluate(task)
        metrics = evaluation.metrics(self.data.language)
        majority = on_main(self._majority_accuracy)
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

    def _majority_accuracy(self) -> float:
        return majority_accuracy(
            [example.label for example in self.data.train],
            [example.label for example in self.data.dev],
        )

    def _evaluate(self, task: Task) -> Evaluation:
        """Read the validation data, of which each process has a share.

        Where the LLM is spread over the processes, each reads all of it with the others.
        """
        language = self.data.language
        examples = self.data.dev
        if self.model.shards_llm:
            return evaluate(self.model, task, "dev", {language: examples})
        evaluation = evaluate(self.model, task, "dev", {language: list(own_share(examples))})
        predictions = joined_shares(evaluation.predictions)
        joined = Evaluation.of_task(task, "dev")
        joined.add(language, predictions)
        return joined


def _tokenize_as(processor: PalamProcessor, checkpoint: Path) -> None:
    """Let a processor tokenise as that of a checkpoint, which an earlier version may have made."""
    earlier = PalamProcessor.from_pretrained(
        checkpoint, encoder=processor.encoder, llm=processor.llm
    )
    processor.template = earlier.template
    processor.tokenization = earlier.tokenization
