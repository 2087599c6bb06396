"""Is one method better than another? Paired tests over the same items, by scipy and statsmodels.

Seeds are averaged (three of them cannot be resampled), items are resampled.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palam.errors import PalamError

LEVEL = 0.05
"""Of significance, after Holm's adjustment."""
DECIMALS = 9
"""To which gains in recall are rounded, so that equal ones have one rank."""
BATCH = 500
"""So many draws of the bootstrap are averaged at a time."""


@dataclass
class Answers:
    """One method's predictions for one language's items, of several seeds."""

    rows: list[int]
    """[items], their rows in the file."""
    labels: list[str]
    """[items], the right labels."""
    predictions: list[list[str | None]]
    """[seeds][items]"""
    recalls: list[list[float]] = field(default_factory=list)
    """[seeds][items], of a task whose answers are compared with a text."""

    @property
    def values(self) -> NDArray[np.float64]:
        """The mean over seeds of what an answer is worth, [items]: its recall, or 1 if it is right.

        Without recalls, that is the share of the seeds whose prediction is right.
        """
        return np.array(np.mean(self._by_seed(), 0, dtype=np.float64))

    @property
    def vote(self) -> NDArray[np.bool_]:
        """Whether most seeds' prediction is right, [items]; of equals, the earlier seed's."""
        votes = []
        for item in zip(*self.predictions, strict=True):
            [(prediction, _)] = Counter(item).most_common(1)
            votes.append(prediction)
        return np.array(self._is_right(votes))

    @property
    def means(self) -> list[float]:
        """The accuracy of each seed, or its mean recall."""
        return [float(np.mean(values)) for values in self._by_seed()]

    def _by_seed(self) -> Sequence[Sequence[float]]:
        """What each answer is worth, [seeds][items]."""
        return self.recalls or [self._is_right(predictions) for predictions in self.predictions]

    def _is_right(self, predictions: Sequence[str | None]) -> list[bool]:
        pairs = zip(predictions, self.labels, strict=True)
        return [prediction == label for prediction, label in pairs]


class Interval(NamedTuple):
    """From the lower to the upper end."""

    low: float
    high: float


UNKNOWN = Interval(-1.0, 1.0)
"""Of a mean of which there is one row alone."""


@dataclass
class Difference:
    """A method's accuracy or mean recall less another's, from -1 to 1."""

    mean: float
    ci95: tuple[float, float]
    """Percentile bootstrap over items, of the mean over seeds."""
    p: float | None = None
    """McNemar's exact test on the seeds' majority votes, or Wilcoxon's signed-rank test on the
    recalls' means over seeds; adjusted by Holm over the languages. None for a mean of languages."""

    @property
    def win(self) -> bool:
        """Significantly better: adjusted p < 0.05, and the interval is above zero."""
        return self.p is not None and self.p < LEVEL and self.ci95[0] > 0


class Comparison(NamedTuple):
    """How a method differs from another."""

    by_language: dict[str, Difference]
    """In every language that both have read."""
    mean: Difference
    """Of the means over languages."""


def compare(
    method: Mapping[str, Answers],
    other: Mapping[str, Answers],
    *,
    parallel: bool,
    over: Collection[str] | None = None,
    resamples: int = 10_000,
) -> Comparison:
    """The difference in every language that both have read, and that of the means over these.

    Args:
        method, other: by language; of the same items.
        parallel: row i has the same meaning in every language. The languages are then not
            independent: the interval of the mean resamples rows, jointly for all of them. Else
            each language's items are resampled on their own.
        over: the languages whose means are compared, where both have read one of them; else, and
            if None, all.
        resamples: of the bootstrap; its seed is fixed.

    Raises:
        PalamError: no language in common, other items, or scipy or statsmodels is missing.
    """
    codes = [code for code in method if code in other]
    if not codes:
        raise PalamError("the two methods have no language in common")
    for code in codes:
        if (method[code].rows, method[code].labels) != (other[code].rows, other[code].labels):
            raise PalamError(f"{code}: the two methods read different items")
    gains = {code: method[code].values - other[code].values for code in codes}
    p_values = _adjusted_p_values([(method[code], other[code]) for code in codes])

    by_language = {}
    for code, p_value in zip(codes, p_values, strict=True):
        gain = gains[code]
        interval = _bootstrap_interval([gain], resamples)
        by_language[code] = Difference(float(gain.mean()), interval, p_value)

    averaged = [code for code in codes if over is None or code in over] or codes
    mean = float(np.mean([gains[code].mean() for code in averaged]))
    samples = [gains[code] for code in averaged]
    if parallel:
        rows = [method[code].rows for code in averaged]
        interval = _joint_interval(rows, samples, resamples)
    else:
        interval = _bootstrap_interval(samples, resamples)
    return Comparison(by_language, Difference(mean, interval))


def _adjusted_p_values(pairs: Sequence[tuple[Answers, Answers]]) -> list[float]:
    """The p-value of each language's test, adjusted by Holm.

    Args:
        pairs: of each language, the two methods' answers to the same items.
    """
    try:
        from statsmodels.stats.multitest import multipletests
    except ImportError:
        raise PalamError(
            'paired tests need scipy and statsmodels: pip install "palam[bench]"'
        ) from None
    p_values = [_p_value(first, second) for first, second in pairs]
    _, adjusted, _, _ = multipletests(p_values, alpha=LEVEL, method="holm")
    return [float(p_value) for p_value in adjusted]


def _p_value(first: Answers, second: Answers) -> float:
    """McNemar's exact test on right answers, Wilcoxon's signed-rank test on recalls."""
    from scipy.stats import wilcoxon
    from statsmodels.stats.contingency_tables import mcnemar

    if first.recalls:
        gains = (first.values - second.values).round(DECIMALS)
        return float(wilcoxon(gains).pvalue) if gains.any() else 1.0
    ours, theirs = first.vote, second.vote
    table = [
        [int((ours & theirs).sum()), int((ours & ~theirs).sum())],
        [int((~ours & theirs).sum()), int((~ours & ~theirs).sum())],
    ]
    return float(mcnemar(table, exact=True).pvalue)


def _joint_interval(
    rows: Sequence[Sequence[int]], samples: Sequence[NDArray[np.float64]], resamples: int
) -> Interval:
    """95 % interval of the mean of the languages' means; rows are resampled, jointly for all.

    A draw is of the rows that any language has. Each language's mean is then over those of its own
    rows that are drawn, as often as they are.

    Args:
        rows: of each language, [items].
        samples: the gains of these rows, each [items].
        resamples: how many are drawn.
    """
    known = [place for place, sample in enumerate(samples) if len(sample) > 1]
    if not known:
        return UNKNOWN
    union = np.unique(np.concatenate([rows[place] for place in known]))
    values = np.zeros((len(known), len(union)))
    present = np.zeros((len(known), len(union)))
    for language, place in enumerate(known):
        columns = np.searchsorted(union, rows[place])
        values[language, columns] = samples[place]
        present[language, columns] = 1.0
    observed = values.sum(1) / present.sum(1)

    generator = np.random.default_rng(0)
    means = []
    for counts in _row_counts(generator, len(union), resamples):
        sums = counts @ values.T
        sizes = counts @ present.T
        # A draw may have no row of a language with few. That language has its observed mean then:
        # to draw again until all have a row might never end, and without the language the mean
        # would be of others.
        drawn = np.divide(sums, sizes, out=np.tile(observed, (len(counts), 1)), where=sizes > 0)
        means.append(drawn.mean(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return _with_unknown(low, high, len(known) / len(samples))


def _row_counts(
    generator: np.random.Generator, num_rows: int, resamples: int
) -> Iterator[NDArray[np.float64]]:
    """How often each row is in each draw of as many rows, [draws, rows], some draws at a time."""
    for start in range(0, resamples, BATCH):
        size = min(BATCH, resamples - start)
        drawn = generator.integers(num_rows, size=(size, num_rows))
        places = drawn + num_rows * np.arange(size)[:, None]
        counts = np.bincount(places.ravel(), minlength=size * num_rows)
        yield counts.reshape(size, num_rows).astype(np.float64)


def _bootstrap_interval(samples: Sequence[NDArray[np.float64]], resamples: int) -> Interval:
    """95 % interval of the mean of the samples' means; each sample is resampled on its own.

    Args:
        samples: each [items].
        resamples: how many are drawn.
    """
    from scipy.stats import bootstrap

    known = [sample for sample in samples if len(sample) > 1]
    if not known:
        return UNKNOWN

    def mean_of_means(*drawn: Any, axis: int = -1) -> Any:
        return sum(sample.mean(axis) for sample in drawn) / len(drawn)

    result = bootstrap(
        known,
        mean_of_means,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(0),
        vectorized=True,
        batch=BATCH,
    )
    low, high = result.confidence_interval
    return _with_unknown(low, high, len(known) / len(samples))


def _with_unknown(low: float, high: float, known_share: float) -> Interval:
    """The interval of a mean over samples of which some are of one row.

    Such a row does not tell how far its sample's mean may be from it: from -1 to 1.

    Args:
        low, high: of the mean over the other samples.
        known_share: how many of all samples these are.
    """
    unknown_share = 1 - known_share
    return Interval(
        low=float(known_share * low - unknown_share),
        high=float(known_share * high + unknown_share),
    )
