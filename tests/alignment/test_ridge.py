"""The ridge regression from sums against a direct one on the rows."""

import numpy as np
import pytest
import torch
from plain_ridge import direct_ridge, gathered, some_rows

from palam.alignment.ridge import STRENGTHS


def test_the_solution_is_that_of_a_direct_ridge():
    x, y = some_rows()
    solutions = gathered(x, y).solve(STRENGTHS)
    for strength, (weight, bias) in zip(STRENGTHS, solutions, strict=True):
        expected_weight, expected_bias = direct_ridge(x, y, strength)
        np.testing.assert_allclose(weight, expected_weight, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(bias, expected_bias, rtol=1e-8, atol=1e-10)


def test_the_intercept_is_not_penalised():
    x, y = some_rows()
    before = gathered(x, y).solve([10.0])[0].bias
    after = gathered(x, y + 1000).solve([10.0])[0].bias
    torch.testing.assert_close(after, before + 1000)


def test_fewer_rows_than_features_can_be_solved():
    x, y = some_rows(n=4)
    weight, _ = gathered(x, y).solve([1e-2])[0]
    np.testing.assert_allclose(weight, direct_ridge(x, y, 1e-2)[0], rtol=1e-6, atol=1e-9)


def test_r2_is_the_direct_one():
    x, y = some_rows()
    other_x, other_y = some_rows(n=90)
    other = gathered(other_x, other_y)
    weight, bias = gathered(x, y).solve([1e-3])[0]
    residual = ((other_y - other_x @ weight.numpy().T - bias.numpy()) ** 2).sum()
    total = ((other_y - other_y.mean(0)) ** 2).sum()
    assert other.r2(weight, bias) == pytest.approx(1 - residual / total, rel=1e-9)
    no_weight = torch.zeros_like(weight)
    mean = torch.from_numpy(other_y.mean(0))
    assert other.r2(no_weight, mean) == pytest.approx(0, abs=1e-9)


def test_merged_shards_equal_the_whole():
    x, y = some_rows()
    merged = gathered(x[:70], y[:70])
    merged.merge(gathered(x[70:71], y[70:71]))
    merged.merge(gathered(x[71:], y[71:]))
    whole = gathered(x, y)
    assert merged.count == whole.count == len(x)
    solution = merged.solve([1e-3])[0]
    expected = whole.solve([1e-3])[0]
    torch.testing.assert_close(solution.weight, expected.weight)
    torch.testing.assert_close(solution.bias, expected.bias)
