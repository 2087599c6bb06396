"""Paired tests against values that are known in closed form or from a plain computation."""

import math

import numpy as np
import pytest
from helpers import refusal
from scipy.stats import wilcoxon

from palam.bench.statistics import Answers, Difference, compare


def answers(*seeds, rows=None):
    """Right where there is a 1."""
    said = [["a" if right else "b" for right in seed] for seed in seeds]
    return Answers(list(rows or range(len(seeds[0]))), ["a"] * len(seeds[0]), said)


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    one, two = [1] * 10 + [0] * 2 + [1] * 20, [0] * 10 + [1] * 2 + [1] * 20
    each, _ = compare({"si": answers(one)}, {"si": answers(two)}, parallel=False)
    expected = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12
    assert each["si"].p == pytest.approx(expected)
    assert each["si"].mean == pytest.approx(8 / 32)
    assert each["si"].win


def test_holm_multiplies_the_smallest_p_by_the_number_of_languages():
    plus = [1] * 10 + [0] * 2 + [1] * 20, [0] * 10 + [1] * 2 + [1] * 20
    same = [1, 0] * 16, [1, 0] * 16
    method = {"si": answers(plus[0]), "ta": answers(same[0]), "am": answers(same[0])}
    other = {"si": answers(plus[1]), "ta": answers(same[1]), "am": answers(same[1])}
    each, _ = compare(method, other, parallel=True)
    assert each["si"].p == pytest.approx(3 * 2 * 79 / 2**12)
    assert not each["si"].win  # 0.1157: what one language would show is not enough among three
    assert each["ta"] == Difference(0.0, (0.0, 0.0), 1.0)


def test_the_interval_is_that_of_the_central_limit():
    generator = np.random.default_rng(1)
    one, two = generator.random(2000) < 0.7, generator.random(2000) < 0.6
    each, mean = compare({"si": answers(one)}, {"si": answers(two)}, parallel=False)
    gain = one.astype(float) - two
    half = 1.96 * gain.std() / math.sqrt(2000)
    assert each["si"].ci95 == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.003)
    assert mean.ci95 == pytest.approx(each["si"].ci95, abs=0.003)


def test_parallel_languages_are_resampled_jointly():
    """Four languages with the same gains hold no more information than one.

    Were they independent, the interval would be half as wide.
    """
    generator = np.random.default_rng(2)
    one, two = generator.random(400) < 0.6, generator.random(400) < 0.5
    method, other = ({code: answers(x) for code in "abcd"} for x in (one, two))
    (low, high), (independent_low, independent_high) = (
        compare(method, other, parallel=parallel)[1].ci95 for parallel in (True, False)
    )
    each = compare(method, other, parallel=True)[0]["a"]
    assert (low, high) == pytest.approx(each.ci95, abs=0.005)
    assert independent_high - independent_low == pytest.approx((high - low) / 2, rel=0.1)


def joint_means(rows, gains, resamples=10_000):
    """The mean over languages in each draw of rows, one draw after the other."""
    union = sorted(set().union(*rows.values()))
    by_row = {code: dict(zip(rows[code], gains[code], strict=True)) for code in rows}
    generator = np.random.default_rng(7)
    means = []
    for _ in range(resamples):
        drawn = [union[place] for place in generator.integers(len(union), size=len(union))]
        of_languages = []
        for language in by_row.values():
            read = [language[row] for row in drawn if row in language]
            of_languages.append(np.mean(read or list(language.values())))
        means.append(np.mean(of_languages))
    return means


def test_the_interval_of_parallel_languages_is_of_the_mean_that_stands_beside_it():
    """Each language's own rows count, wherever the other has none."""
    rows = {"si": list(range(20)), "ta": list(range(10, 30))}
    gains = {"si": [1] * 10 + [0, 1] * 5, "ta": [1, 0] * 5 + [0] * 4 + [1] * 6}
    method = {code: answers(gains[code], rows=rows[code]) for code in rows}
    other = {code: answers([0] * 20, rows=rows[code]) for code in rows}
    _, mean = compare(method, other, parallel=True)
    assert mean.mean == pytest.approx((15 / 20 + 11 / 20) / 2)
    expected = np.percentile(joint_means(rows, gains), [2.5, 97.5])
    assert mean.ci95 == pytest.approx(tuple(expected), abs=0.015)
    assert mean.ci95[0] < mean.mean < mean.ci95[1]


def test_parallel_languages_need_no_row_in_common():
    """They are then as far from each other as languages that are not parallel."""
    generator = np.random.default_rng(4)
    rows = {"si": list(range(200)), "ta": list(range(200, 400))}
    method = {code: answers(generator.random(200) < 0.6, rows=rows[code]) for code in rows}
    other = {code: answers(generator.random(200) < 0.5, rows=rows[code]) for code in rows}
    joint, independent = (
        compare(method, other, parallel=parallel).mean for parallel in (True, False)
    )
    assert joint.mean == independent.mean
    assert joint.ci95 == pytest.approx(independent.ci95, abs=0.01)


def test_a_draw_without_a_row_of_a_language_has_its_observed_mean():
    method = {"a": answers([1] * 40), "b": answers([1, 1], rows=[0, 1])}
    other = {"a": answers([0] * 40), "b": answers([0, 0], rows=[0, 1])}
    assert compare(method, other, parallel=True).mean.ci95 == (1.0, 1.0)


@pytest.mark.parametrize("parallel", [True, False])
def test_one_row_does_not_tell_what_its_language_is_like(parallel):
    """Its difference may be anything from -1 to 1; the others' part of the mean is known."""
    gains = [1, 0, 1, 1] * 10
    method = {"a": answers(gains), "b": answers([1], rows=[3])}
    other = {"a": answers([0] * 40), "b": answers([0], rows=[3])}
    each, mean = compare(method, other, parallel=parallel)
    assert each["b"] == Difference(1.0, (-1.0, 1.0), 1.0)
    low, high = each["a"].ci95
    assert mean.mean == pytest.approx((0.75 + 1) / 2)
    assert mean.ci95 == pytest.approx(((low - 1) / 2, (high + 1) / 2))
    alone = compare({"b": method["b"]}, {"b": other["b"]}, parallel=parallel)
    assert alone.mean.ci95 == (-1.0, 1.0)


def test_seeds_are_averaged_and_voted():
    three = answers([1, 1, 0], [1, 0, 0], [0, 0, 1])
    assert three.values.tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert three.vote.tolist() == [True, False, False]
    assert three.means == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert Answers([0], ["a"], [["a"], ["b"]]).vote.tolist() == [True]  # equal: the first seed's
    assert not Answers([0], ["a"], [["b"], ["a"]]).vote.any()


def test_a_win_needs_both_the_test_and_the_interval():
    assert Difference(0.1, (0.01, 0.2), 0.04).win
    assert not Difference(0.1, (0.01, 0.2), 0.06).win
    assert not Difference(0.1, (-0.01, 0.2), 0.04).win
    assert not Difference(-0.1, (-0.2, -0.01), 0.01).win


def recalls(*seeds):
    """Answers that are compared with texts; the texts do not matter."""
    count = len(seeds[0])
    said = [["answer"] * count for _ in seeds]
    return Answers(list(range(count)), ["text"] * count, said, [list(seed) for seed in seeds])


def test_recalls_are_compared_by_their_ranks():
    generator = np.random.default_rng(3)
    one = generator.random((2, 40)).round(2)
    two = (one - generator.random((2, 40)) * 0.3).clip(0, 1)
    each, mean = compare({"si": recalls(*one)}, {"si": recalls(*two)}, parallel=True)
    gains = one.mean(0) - two.mean(0)
    assert each["si"].mean == pytest.approx(gains.mean())
    assert each["si"].p == pytest.approx(wilcoxon(gains).pvalue)
    assert each["si"].win
    assert mean.mean == each["si"].mean
    assert recalls(*one).means == pytest.approx(one.mean(1).tolist())


def test_equal_recalls_differ_in_nothing():
    one = recalls([0.1 + 0.2, 0.5], [0.2, 0.5])
    two = recalls([0.3, 0.5], [0.2, 0.5])
    each, _ = compare({"si": one}, {"si": two}, parallel=False)
    assert each["si"].p == 1.0
    assert not each["si"].win


def test_other_items_are_refused():
    one, two = {"si": answers([1, 0])}, {"si": answers([1, 0], rows=[0, 2])}
    assert refusal(compare, one, two, parallel=True) == "si: the two methods read different items"
    assert "no language in common" in refusal(compare, one, {"ta": answers([1])}, parallel=True)
