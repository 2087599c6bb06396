"""`palam evaluate`."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt

from palam.cli._evaluation_tables import evaluation_tables, group_means
from palam.cli._options import (
    SEEDED_LOADING_DEFAULTS,
    BestOf,
    Checkpoints,
    ConfigFile,
    GuidanceScale,
    SeededLoadingOptions,
    load_models,
)
from palam.cli._output import check_apart, open_output, print_table, write_json
from palam.cli._several_bridges import check_bridges_alike
from palam.cli._test_data import (
    TestData,
    TestDataConfig,
    TestDataOptions,
    check_language_is_known,
    read_test_data,
)
from palam.errors import PalamError
from palam.inference.best_of_number import reading_arguments
from palam.models.guidance_scale import NO_GUIDANCE
from palam.tasks.writers import json_line
from palam.utils.progress import progress_bar

if TYPE_CHECKING:
    from palam.inference.evaluation import Evaluation
    from palam.inference.evaluation_page import CertaintyRow
    from palam.inference.prediction import PredictionOptions
    from palam.models.modeling import PalamModel


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """What is told beside the table, and where results are written."""

    least_certain: PositiveInt | None = None
    """Also show so many rows of which the bridge is the least certain."""
    json_file: Annotated[Path | None, Parameter(name="--json")] = None
    """Write the results here."""
    html_file: Annotated[Path | None, Parameter(name="--html")] = None
    """Write them here as a page, with the confusion of labels as a picture."""
    predictions: Path | None = None
    """Write every prediction here, as JSON lines."""
    record: bool = False
    """Keep the results with the bridge: in its results.json and its model card."""


@dataclass(frozen=True, kw_only=True)
class MeasuringConfig:
    """How the bridge is measured."""

    method: Literal["score", "generate"] = "score"
    """The likeliest label (score), or the greedy answer if it is a label (generate)."""
    llm_only: bool = False
    """The LLM reads the text itself, without the bridge."""
    batch_size: PositiveInt = 32
    """Texts at a time."""
    references: bool = False
    """Of the task reading: also show what is reached without a bridge."""
    likelihood: bool = False
    """Of the task reading: also find out how often the LLM finds the right sentence the likeliest
    of twenty, or of all where fewer differ. It takes long."""
    no_repeat_ngram_size: PositiveInt | None = None
    """Of free answers: no so many tokens in a row are said twice; not set is as they come."""
    guidance_scale: GuidanceScale = NO_GUIDANCE
    """Of free answers: how far they keep to the text, away from what the LLM would say without it;
    1 is as they come."""
    best_of: BestOf = 1
    """Of the task reading: make so many answers to each text, and take the one that says most of
    it, as the encoder judges; --batch-size is then of answers. With 8 it takes about four times as
    long."""

    def check(self, test: TestData, least_certain: int | None) -> None:
        """Refuse, before any work, what the task does not have.

        Args:
            test: what is read.
            least_certain: how many rows are to be shown.

        Raises:
            PalamError: an option that needs another kind of task, or a package that is missing.
        """
        task = test.task
        if least_certain is not None and task.has_free_answers:
            raise PalamError(f"--least-certain needs a task with labels, which {task.name} is not")
        if self.no_repeat_ngram_size is not None and not task.has_free_answers:
            raise PalamError("--no-repeat-ngram-size needs a task without labels")
        if self.guidance_scale != NO_GUIDANCE and not task.has_free_answers:
            raise PalamError("--guidance-scale needs a task without labels")
        if self.best_of != 1 and not task.reference_language:
            raise PalamError("--best-of needs the task reading")
        self._check_uses_bridge()
        for name in ("references", "likelihood"):
            if getattr(self, name) and not task.reference_language:
                raise PalamError(f"--{name} needs the task reading")
        if not task.labels and not task.number:
            from palam.inference.reading_metrics import check_installed

            check_installed()
        self._check_sentences(test)

    def _check_uses_bridge(self) -> None:
        """Refuse options that need the bridge where there is none.

        Raises:
            PalamError: one is given, and the LLM is to read the texts itself.
        """
        needing = {
            "--guidance-scale": self.guidance_scale != NO_GUIDANCE,
            "--best-of": self.best_of != 1,
        }
        for option, is_given in needing.items():
            if is_given and self.llm_only:
                raise PalamError(f"{option} needs texts that are read through the bridge")

    def _check_sentences(self, test: TestData) -> None:
        """Refuse rows without the other sentences that they are to be compared with.

        Args:
            test: what is read.

        Raises:
            PalamError: a language whose sentences are all alike.
        """
        if self.references:
            from palam.inference.reading_references import check_comparable

            check_comparable(test.examples)
        if self.likelihood:
            from palam.inference.reading_likelihood import check_candidates

            check_candidates(test.examples)

    def check_together(self, test: TestData) -> None:
        """Refuse, before any work, what several bridges cannot do together.

        Args:
            test: what is read.

        Raises:
            PalamError: a task without labels, or an option that is for one bridge.
        """
        if test.task.has_free_answers:
            raise PalamError(
                f"several bridges answer together on tasks with labels; {test.task.name} has none"
            )
        if self.method != "score":
            raise PalamError("several bridges answer together by their scores; give --method score")
        if self.llm_only:
            raise PalamError("--llm-only reads without a bridge; give one of the bridges")

    def options(self, seed: int) -> "PredictionOptions":
        """The same for [`palam.evaluate`].

        Args:
            seed: of what is drawn.
        """
        decoding: dict[str, float] = {}
        if self.no_repeat_ngram_size is not None:
            decoding["no_repeat_ngram_size"] = self.no_repeat_ngram_size
        decoding |= reading_arguments(self.guidance_scale, self.best_of)
        return {
            "method": self.method,
            "llm_only": self.llm_only,
            "batch_size": self.batch_size,
            "decoding": decoding,
            "likelihood_seed": seed if self.likelihood else None,
        }


MeasuringOptions = Annotated[MeasuringConfig, Parameter(name="*")]
MEASURING_DEFAULTS = MeasuringConfig()
ResultOptions = Annotated[ResultFiles, Parameter(name="*", group=Group("Results", sort_key=2))]
NO_FILES = ResultFiles()


def evaluate(
    checkpoints: Checkpoints,
    /,
    *,
    data: TestDataOptions = None,
    measuring: MeasuringOptions = MEASURING_DEFAULTS,
    config: ConfigFile = None,
    results: ResultOptions = NO_FILES,
    loading: SeededLoadingOptions = SEEDED_LOADING_DEFAULTS,
) -> None:
    """Measure a bridge on a task, by language.

    The task can be read in any of its languages. A labelled file of your own is measured likewise.
    Of one language, the figures of each label and the confusion of labels are printed too. The task
    reading measures how much of a text the bridge brings across, whatever it was trained on.
    Several bridges answer together on a task with labels: the mean of their log-probabilities
    counts.
    """
    data = data or TestDataConfig()
    outputs = (results.json_file, results.html_file, results.predictions)
    check_apart(outputs, [data.file, config])
    test = _checked_test_data(checkpoints, data, measuring, results, loading.seed)
    with contextlib.ExitStack() as files:
        # Opened now, so that a place that cannot be written to is refused before any work.
        json_file, page_file, predictions_file = [
            None if path is None else files.enter_context(open_output(path)) for path in outputs
        ]
        models = load_models(checkpoints, loading)
        for model in models:
            check_language_is_known(model, data, llm_only=measuring.llm_only)
        from palam.inference.evaluation_page import certainty_rows, evaluation_page

        evaluation = _measure(models, checkpoints, test, measuring, loading.seed)
        uncertain = certainty_rows(evaluation, _texts(test), results.least_certain or 0)
        if json_file:
            write_json(json_file, _report(evaluation, uncertain))
        if page_file:
            page_file.write(evaluation_page(evaluation, uncertain).encode(errors="replace"))
        if predictions_file:
            for prediction in evaluation.predictions:
                predictions_file.write(json_line({**prediction}) + b"\n")
    if results.record:
        from palam.inference.record import record_results

        record_results(checkpoints[0], evaluation)
    for table in evaluation_tables(evaluation, models[0].processor, uncertain):
        print_table(table)


def _checked_test_data(
    checkpoints: Sequence[str],
    data: TestDataConfig,
    measuring: MeasuringConfig,
    results: ResultFiles,
    seed: int,
) -> TestData:
    """What is read, once all that can be refused without a model has been looked at.

    Args:
        checkpoints: the bridge, or several.
        data, measuring, results: the options.
        seed: of the samples.

    Raises:
        PalamError: options that do not go together, or data that are missing or wrong.
    """
    several = len(checkpoints) > 1
    if several and results.record:
        raise PalamError("--record is for one bridge; what several reach together is not one's own")
    if results.record:
        _check_recordable(checkpoints[0], measuring.llm_only)
    if results.least_certain is not None and measuring.method != "score":
        raise PalamError("--least-certain needs --method score")
    test = read_test_data(checkpoints[0], data, seed)
    measuring.check(test, results.least_certain)
    if several:
        measuring.check_together(test)
    if several and data.file is not None:
        check_bridges_alike(checkpoints, data.text_column)
    return test


def _measure(
    models: "Sequence[PalamModel]",
    checkpoints: Sequence[str],
    test: TestData,
    measuring: MeasuringConfig,
    seed: int,
) -> "Evaluation":
    """What one bridge reaches, or several together; beside it what it is compared with.

    Args:
        models: loaded from the checkpoints.
        checkpoints: which name the result.
        test: what is read.
        measuring: how.
        seed: of what is drawn.
    """
    num_texts = sum(len(examples) for examples in test.examples.values())
    num_readings = num_texts * (2 if measuring.likelihood else 1)
    options = measuring.options(seed)
    with progress_bar("evaluating", num_readings * len(models)) as advance:
        options["progress"] = advance
        evaluation = _evaluate_models(models, " + ".join(checkpoints), test, options)
    if measuring.references:
        from palam.inference.reading_references import reading_references

        with progress_bar("what it is compared with", num_readings) as advance:
            options["progress"] = advance
            evaluation.references = reading_references(
                models[0], test.task, test.examples, evaluation, seed=seed, **options
            )
    return evaluation


def _evaluate_models(
    models: "Sequence[PalamModel]", name: str, test: TestData, options: "PredictionOptions"
) -> "Evaluation":
    """What one bridge reaches, or several together.

    Args:
        models: one or more.
        name: of the result.
        test: what is read.
        options: see [`palam.evaluate`].
    """
    if len(models) == 1:
        from palam.inference.evaluation import evaluate as evaluate_alone

        return evaluate_alone(models[0], test.task, test.split, test.examples, name=name, **options)
    from palam.inference.ensemble import evaluate_together

    return evaluate_together(models, test.task, test.split, test.examples, name=name, **options)


def _check_recordable(checkpoint: str, llm_only: bool) -> None:
    """Refuse to record, before any work, what is not the bridge's or cannot be kept with it."""
    from palam.inference.record import check_recordable

    if llm_only:
        raise PalamError("--record keeps what the bridge reaches; give no --llm-only")
    check_recordable(checkpoint)


def _texts(test: TestData) -> dict[tuple[str, int], str]:
    """The text of each example, by language and row."""
    texts = {}
    for language, examples in test.examples.items():
        for example in examples:
            texts[language, example.row] = test.task.render(example)
    return texts


def _report(evaluation: "Evaluation", uncertain: "Sequence[CertaintyRow]") -> dict[str, Any]:
    report = evaluation.to_report()
    groups = group_means(evaluation)
    if groups:
        report["groups"] = {name: metrics.to_dict() for name, metrics in groups.items()}
    if uncertain:
        report["least_certain"] = [row._asdict() for row in uncertain]
    return report
