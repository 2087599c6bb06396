"""The results of a benchmark, for its report: means, paired tests, groups of languages, curves."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal, NamedTuple

from palam.bench.glossary import describe_method, is_bridge
from palam.bench.language_groups import Group, language_groups
from palam.bench.predictions import Run
from palam.bench.recipe import Recipe
from palam.bench.results import Cell, ResultsFolder, RunInfo
from palam.bench.statistics import Answers, Difference, compare
from palam.errors import PalamError
from palam.inference.layer_page import Panel, is_even, percent
from palam.tasks.registry import get_task
from palam.utils.languages import language_name, resolve_language
from palam.utils.templating import render

LEAST_SPAN = 0.05
"""The charts of differences reach at least so far from zero."""
MAX_COLUMNS = 8
"""A table of the page has at most so many methods side by side; further ones stand below."""
FEW_ITEMS = 200
"""Of a language; with fewer, the report warns that small differences mean nothing."""

AnswersByLanguage = dict[str, Answers]


class Measure(NamedTuple):
    """What a report's figures are, in words."""

    name: str
    test: str
    """By which differences are tested, language by language."""
    is_graded: bool
    """Whether an answer may be right in part."""


ACCURACY = Measure(
    name="accuracy",
    test="McNemar's exact test on the seeds' majority vote",
    is_graded=False,
)
RECALL = Measure(
    name="content-word recall",
    test="Wilcoxon's signed-rank test on the rows' means over the seeds",
    is_graded=True,
)


class ReadLanguage(NamedTuple):
    """A language that was read."""

    code: str
    name: str
    n: int
    """How many items."""


class CurveAt(NamedTuple):
    """A point of a learning curve."""

    step: int
    accuracy: float
    """The mean over seeds and languages."""


class PublishedFigure(NamedTuple):
    """An accuracy of a paper, and what was measured here."""

    method: str
    where: str
    """A language, or `mean`."""
    value: float
    measured: float | None


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """What one method reached; accuracies, or recalls, are shares from 0 to 1."""

    name: str
    accuracy: dict[str, float]
    """By language, the mean of the seeds."""
    seeds: list[float]
    """Of each seed, the mean over the languages without English."""
    groups: list[float]
    """The mean of each of the summary's groups."""
    differences: dict[str, Difference]
    """By language, to the method that the others are tested against; none of that method."""
    difference: Difference | None
    """Of the means without English."""
    cells: list[Cell]
    """Of each seed, in the order in which they were finished; of a choice, the chosen methods'."""
    chrf: float | None = None
    """Beside content-word recall: the mean over seeds and languages without English, 0 to 100."""
    identified: float | None = None
    """Likewise, how often an answer is the nearest to its own row's sentence."""
    about: str = ""
    """What the method is, in words."""
    is_bridge: bool = True
    """Whether it is a bridge, not a baseline; the charts' axes are those of the bridges."""

    @property
    def cell(self) -> Cell:
        """The first: learning rate, steps, parameters, layers."""
        return self.cells[0]

    @property
    def seconds(self) -> float:
        """Of all seeds."""
        return sum(cell.seconds for cell in self.cells)

    @property
    def wins(self) -> int:
        """In how many languages it is significantly better."""
        return sum(difference.win for difference in self.differences.values())

    def wins_in(self, code: str) -> bool:
        """Whether it is significantly better in a language."""
        return code in self.differences and self.differences[code].win


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that a report shows."""

    title: str
    read: str
    """What was read, in words."""
    trained: str
    """What was trained on, in words."""
    measure: Measure
    """What the figures are."""
    parallel: bool
    """Whether row i has the same meaning in every language."""
    against: str
    """The method that the others are tested against."""
    methods: list[MethodSummary]
    choices: dict[str, list[str]]
    """By method that is a choice, the method that was chosen for each seed."""
    languages: list[ReadLanguage]
    groups: list[Group]
    """The first is all but English."""
    published: list[PublishedFigure]
    note: str | None
    """On the published figures."""
    layers: list[Panel]
    """For each method with several layers, what they contribute by language."""
    even_layers: list[str]
    """The methods whose layers all contribute alike, which are not drawn."""
    curves: dict[str, list[CurveAt]]
    """By method."""
    run: RunInfo

    @property
    def lead(self) -> str:
        """What was trained on and read, in a sentence; what the title says is not said again."""
        count = len(self.languages)
        languages = "one language" if count == 1 else f"{count} languages"
        sentence = f"trained on {self.trained}, read in {languages}."
        if self.title == self.read:
            return sentence[0].upper() + sentence[1:]
        return f"{self.read}: {sentence}"

    @property
    def fewest(self) -> int:
        """Items of the language with the fewest."""
        return min(language.n for language in self.languages)

    @property
    def has_few_items(self) -> bool:
        """Whether a language has so few items that small differences mean nothing."""
        return self.fewest < FEW_ITEMS

    @property
    def has_figures_beside(self) -> bool:
        """Whether a method has other figures beside the one that is tested."""
        return any(method.chrf is not None for method in self.methods)

    @property
    def span(self) -> float:
        """How far the charts of differences reach from zero: as far as those of the bridges do.

        A baseline may be so far off that the bridges' differences could not be told from zero.
        """
        compared = [method for method in self.methods if method.differences]
        bridges = [method for method in compared if method.is_bridge]
        ends = [
            abs(end)
            for method in bridges or compared
            for difference in method.differences.values()
            for end in difference.ci95
        ]
        return max([LEAST_SPAN, *ends])

    @property
    def tables(self) -> list[list[MethodSummary]]:
        """The methods in groups, about equally large, that fit side by side on a page of paper."""
        count = math.ceil(len(self.methods) / MAX_COLUMNS)
        size = math.ceil(len(self.methods) / count)
        starts = range(0, len(self.methods), size)
        return [self.methods[start : start + size] for start in starts]

    @property
    def last_step(self) -> int:
        """At which the longest learning curve ends."""
        return max(points[-1].step for points in self.curves.values())

    def best(self, code: str) -> float:
        """The highest accuracy in a language."""
        return max(method.accuracy.get(code, -1.0) for method in self.methods)


def summary(folder: Path, against: str | None = None) -> Summary:
    """What a benchmark found, from its finished cells.

    Args:
        folder: that `palam bench` wrote.
        against: the method that the others are tested against; None is the recipe's.

    Raises:
        PalamError: no results, or none of the method that others are tested against.
    """
    results = ResultsFolder(folder)
    if not results.has_cells:
        raise PalamError(f"{folder} holds no results of palam bench")
    recipe = results.recipe()
    if against is not None:
        recipe = replace(recipe, against=against)
    cells = _cells_by_method(recipe, results)
    answers = {name: _read_answers(results, cells[name]) for name in cells}
    if recipe.against not in answers:
        raise PalamError(
            f"{recipe.against}, which the others are tested against, has no finished cell yet"
        )
    reference = answers[recipe.against]
    codes = list(reference)
    groups = language_groups(codes)
    source = _describe_source(recipe)
    methods = [
        _summarize_method(
            name,
            cells[name],
            read,
            groups,
            reference=None if name == recipe.against else reference,
            parallel=source.parallel,
        )
        for name, read in answers.items()
    ]
    methods = [_described(method, recipe) for method in methods]
    panels = [
        _layer_panel(method.name, method.cell.layers) for method in methods if method.cell.layers
    ]
    return Summary(
        title=recipe.title or source.read,
        read=source.read,
        trained=source.trained,
        measure=RECALL if any(language.recalls for language in reference.values()) else ACCURACY,
        parallel=source.parallel,
        against=recipe.against,
        methods=methods,
        choices={
            name: [cell.method for cell in cells[name]] for name in recipe.choices if name in cells
        },
        languages=[
            ReadLanguage(code, language_name(code), len(reference[code].rows)) for code in codes
        ],
        groups=groups,
        published=_published_figures(recipe, answers, codes),
        note=recipe.published.note,
        layers=[panel for panel in panels if not _is_even(panel)],
        even_layers=[panel.title for panel in panels if _is_even(panel)],
        curves=_learning_curves(results, groups[0].codes),
        run=results.run_info(),
    )


def render_summary(results: Summary, form: Literal["md", "tex", "html"] = "md") -> str:
    """The report as text.

    Args:
        results: of [`summary`].
        form: `md` is Markdown, `tex` the main table in LaTeX, `html` a page that needs no other
            file.
    """
    return render(
        "palam.bench",
        f"bench.{form}.j2",
        summary=results,
        percent=percent,
        language_name=language_name,
    )


def _described(method: MethodSummary, recipe: Recipe) -> MethodSummary:
    """The same with what the method is."""
    description = recipe.methods[method.name]
    return replace(
        method,
        about=describe_method(description, recipe.train),
        is_bridge=is_bridge(description),
    )


def _is_even(panel: Panel) -> bool:
    """Whether all layers contribute nearly alike, in every language."""
    return all(is_even(shares) for _, shares in panel.rows)


class _Source(NamedTuple):
    """Where a benchmark's texts are from."""

    read: str
    trained: str
    parallel: bool


def _describe_source(recipe: Recipe) -> _Source:
    language = language_name(recipe.train.get("language") or "en")
    read = recipe.read
    if read.files:
        names = [Path(path).name for path in read.files.values()]
        trained = f"the {language} rows of {Path(str(recipe.train['file'])).name}"
        return _Source(", ".join(names), trained, bool(read.parallel))
    task = get_task(str(read.task))
    if recipe.trains_on_text:
        trained = f"the {language} text of {Path(str(recipe.train['text_file'])).name}"
    else:
        trained = f"{language} {recipe.train['task']}"
    decoding = "".join(f", {name} {value}" for name, value in read.decoding().items())
    return _Source(f"{task.name}, split {read.split}{decoding}", trained, task.parallel)


def _cells_by_method(recipe: Recipe, results: ResultsFolder) -> dict[str, list[Cell]]:
    """The finished cells of each method that has some, in the recipe's order."""
    finished: dict[str, list[Cell]] = defaultdict(list)
    for cell in results.cells():
        finished[cell.method].append(cell)
    by_method = {}
    for name in recipe.methods:
        choice = recipe.choices.get(name)
        if choice is None:
            cells = finished[name]
        else:
            cells = _choose_cells([finished[candidate] for candidate in choice.best_of])
        if cells:
            by_method[name] = cells
    return by_method


def _choose_cells(candidates: Sequence[Sequence[Cell]]) -> list[Cell]:
    """For each seed that all have, which method has the lowest English validation loss.

    Args:
        candidates: the cells of each method that is to be chosen from.

    Returns:
        By seed, the chosen method, with the seconds of all.
    """
    by_seed = [{cell.seed: cell for cell in cells} for cells in candidates]
    chosen = []
    for seed in sorted(set.intersection(*map(set, by_seed))):
        cells = [method[seed] for method in by_seed]
        best = min(cells, key=_validation_loss)
        seconds = sum(cell.seconds for cell in cells)
        chosen.append(
            Cell(
                method=best.method,
                seed=seed,
                seconds=seconds,
                results={},
                chrf=best.chrf,
                identified=best.identified,
            )
        )
    return chosen


def _validation_loss(cell: Cell) -> float:
    assert cell.validation_loss is not None  # a choice is among trained methods
    return cell.validation_loss


def _read_answers(results: ResultsFolder, cells: Sequence[Cell]) -> AnswersByLanguage:
    """The predictions of a method's cells, seed by seed."""
    answers: AnswersByLanguage = {}
    for cell in sorted(cells, key=lambda cell: cell.seed):
        for code, language in results.predictions(cell.run).items():
            if code not in answers:
                answers[code] = Answers(language.rows, language.labels, [])
            answers[code].predictions.append(language.predictions)
            if language.recalls:
                answers[code].recalls.append(language.recalls)
    return answers


def _summarize_method(
    name: str,
    cells: Sequence[Cell],
    answers: AnswersByLanguage,
    groups: Sequence[Group],
    *,
    reference: AnswersByLanguage | None,
    parallel: bool,
) -> MethodSummary:
    """One method's means and tests.

    Args:
        name: of the method.
        cells: of its seeds.
        answers: its predictions.
        groups: of languages; the first is all but English.
        reference: the predictions of the method to test against; None if it is this one.
        parallel: see [`compare`].
    """
    unseen = groups[0].codes  # the mean that counts is of the languages that were not trained on
    differences: dict[str, Difference] = {}
    difference = None
    if reference is not None:
        differences, difference = compare(answers, reference, parallel=parallel, over=unseen)
    accuracy = {code: mean(language.means) for code, language in answers.items()}
    tested = [language for code, language in answers.items() if code in unseen]
    seeds = []
    if tested:
        for seed in range(len(cells)):
            seeds.append(mean(language.means[seed] for language in tested))
    return MethodSummary(
        name=name,
        accuracy=accuracy,
        seeds=seeds,
        groups=[mean(accuracy[code] for code in group.codes) for group in groups],
        differences=differences,
        difference=difference,
        cells=list(cells),
        chrf=_mean_beside([cell.chrf for cell in cells], unseen),
        identified=_mean_beside([cell.identified for cell in cells], unseen),
    )


def _mean_beside(
    figures: Sequence[Mapping[str, float] | None], codes: Sequence[str]
) -> float | None:
    """The mean of a figure over seeds and languages; None where it is not known of all.

    Args:
        figures: of each seed, by language.
        codes: the languages that are averaged.
    """
    values = []
    for by_language in figures:
        values += [(by_language or {}).get(code) for code in codes]
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _published_figures(
    recipe: Recipe, answers: Mapping[str, AnswersByLanguage], codes: Sequence[str]
) -> list[PublishedFigure]:
    """The figures of a paper, each with the measured one.

    Args:
        recipe: holds them.
        answers: by method.
        codes: of the languages that were read.
    """
    figures = []
    for name, published in recipe.published.accuracies.items():
        for where, value in published.items():
            measured = _measured(answers.get(name, {}), where, codes)
            figures.append(PublishedFigure(name, where, value / 100, measured))
    return figures


def _measured(answers: AnswersByLanguage, where: str, codes: Sequence[str]) -> float | None:
    """A method's accuracy in a language, or the `mean` of all."""
    accuracy = {code: mean(language.means) for code, language in answers.items()}
    if where == "mean":
        return mean(accuracy.values()) if accuracy else None
    return accuracy.get(resolve_language(where, codes) or "")


def _layer_panel(method: str, layers: Mapping[str, list[float]]) -> Panel:
    """What a method's layers contribute: languages down, layers across."""
    return Panel(
        title=method,
        tag=None,
        rows=[(language_name(code), shares) for code, shares in layers.items()],
        foot=[mean(column) for column in zip(*layers.values(), strict=True)],
        top=max(map(max, layers.values())) or 1.0,
    )


def _learning_curves(results: ResultsFolder, codes: Sequence[str]) -> dict[str, list[CurveAt]]:
    """By method, the means over seeds and languages at the chosen rate, up to the finished bridge.

    Args:
        results: of the benchmark.
        codes: the languages that are averaged.
    """

    def mean_over_languages(accuracies: Mapping[str, float]) -> float:
        return mean(accuracies[code] for code in codes)

    cells = {cell.run: cell for cell in results.cells() if cell.steps is not None}
    by_step: dict[str, dict[int, dict[int, float]]] = {}
    for point in results.curve_points():
        cell = cells.get(Run(point.method, point.seed))
        if cell is not None and cell.lr == point.lr:
            steps = by_step.setdefault(point.method, {})
            steps.setdefault(point.at, {})[point.seed] = mean_over_languages(point.results)
    curves = {}
    for method, steps in by_step.items():
        seeds = {seed for of_seeds in steps.values() for seed in of_seeds}  # perhaps some alone
        ends = [cell for cell in cells.values() if cell.method == method and cell.seed in seeds]
        last_step = max(cell.steps or 0 for cell in ends)
        for cell in ends:
            steps.setdefault(last_step, {})[cell.seed] = mean_over_languages(cell.results)
        curves[method] = [CurveAt(step, mean(steps[step].values())) for step in sorted(steps)]
    return curves
