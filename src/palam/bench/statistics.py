"""Is one method better than another? Paired tests over the same items; scipy and statsmodels do the arithmetic.

Seeds are averaged (three of them cannot be resampled), items are resampled.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palam.errors import PalamError

LEVEL = 0.05


@dataclass
class Answers:
    """What one method said of one language's items: `predictions` [seeds][items], `labels` [items], `rows` [items]."""

    rows: list[int]
    labels: list[str]
    predictions: list[list[str | None]]

    @property
    def correct(self) -> NDArray[np.float64]:
        """Share of the seeds that are right, [items]."""
        right = [
            [said == label for said, label in zip(one, self.labels, strict=True)]
            for one in self.predictions
        ]
        return np.array(np.mean(right, 0, dtype=np.float64))

    @property
    def vote(self) -> NDArray[np.bool_]:
        """Whether most seeds' prediction is right, [items]; between equals, the earlier seed's counts."""
        voted = [Counter(said).most_common(1)[0][0] for said in zip(*self.predictions, strict=True)]
        return np.array([said == label for said, label in zip(voted, self.labels, strict=True)])

    @property
    def accuracies(self) -> list[float]:
        """Of each seed."""
        return [float(np.mean([*map(eq, one, self.labels)])) for one in self.predictions]


@dataclass
class Difference:
    """A method less another in accuracy, from -1 to 1."""

    mean: float
    ci95: tuple[float, float]
    """Percentile bootstrap over items, of the mean over seeds."""
    p: float | None = None
    """McNemar's exact test on the seeds' majority votes, adjusted by Holm over the languages; None for a mean."""

    @property
    def win(self) -> bool:
        """Better beyond doubt: adjusted p < 0.05, and the interval is above zero."""
        return self.p is not None and self.p < LEVEL and self.ci95[0] > 0


def compare(
    method: Mapping[str, Answers], other: Mapping[str, Answers], *, parallel: bool, over: Collection[str] | None = None,
    resamples: int = 10_000,
) -> tuple[dict[str, Difference], Difference]:  # fmt: skip
    """The difference in every language that both have read, and that of the means over these.

    Args:
        method, other: by language; of the same items.
        parallel: row i says the same in every language. The languages are then not independent: the interval of the
            mean resamples rows, those that all languages have, jointly. Else each language's items on their own.
        over: the languages whose means are compared, where both have read one of them; else, and if None, all.
        resamples: of the bootstrap; its seed is fixed.

    Raises:
        PalamError: no language in common, other items, or scipy or statsmodels is missing.
    """
    try:
        from statsmodels.stats.contingency_tables import mcnemar
        from statsmodels.stats.multitest import multipletests
    except ImportError:
        raise PalamError(
            'paired tests need scipy and statsmodels: pip install "palam[bench]"'
        ) from None
    codes = [code for code in method if code in other]
    if not codes:
        raise PalamError("the two methods have no language in common")
    for code in codes:
        if (method[code].rows, method[code].labels) != (other[code].rows, other[code].labels):
            raise PalamError(f"{code}: the two methods read different items")
    gains = {code: method[code].correct - other[code].correct for code in codes}
    p = []
    for code in codes:
        one, two = method[code].vote, other[code].vote
        table = [[int((x & y).sum()) for y in (two, ~two)] for x in (one, ~one)]
        p.append(float(mcnemar(table, exact=True).pvalue))
    adjusted = multipletests(p, alpha=LEVEL, method="holm")[1]
    each = {
        code: Difference(
            float(gains[code].mean()), _interval([gains[code]], resamples), float(value)
        )
        for code, value in zip(codes, adjusted, strict=True)
    }
    meant = [code for code in codes if over is None or code in over] or codes
    mean = float(np.mean([gains[code].mean() for code in meant]))
    if parallel:
        by_row = [dict(zip(method[code].rows, gains[code], strict=True)) for code in meant]
        shared = sorted(set.intersection(*map(set, by_row)))
        if not shared:
            raise PalamError("the languages are parallel but have no row in common")
        samples = [np.mean([[rows[row] for row in shared] for rows in by_row], 0)]
    else:
        samples = [gains[code] for code in meant]
    return each, Difference(mean, _interval(samples, resamples))


def _interval(samples: Sequence[NDArray[np.float64]], resamples: int) -> tuple[float, float]:
    """95 % interval of the mean of the samples' means; each sample is resampled on its own."""
    from scipy.stats import bootstrap

    if all(len(sample) < 2 for sample in samples):
        return -1.0, 1.0

    def statistic(*drawn: Any, axis: int = -1) -> Any:
        return sum(one.mean(axis) for one in drawn) / len(drawn)

    options: dict[str, Any] = {
        "n_resamples": resamples,
        "method": "percentile",
        "rng": np.random.default_rng(0),
    }
    low, high = bootstrap(
        samples, statistic, vectorized=True, batch=500, **options
    ).confidence_interval
    return float(low), float(high)
