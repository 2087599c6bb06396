"""Plain re-computations that the tests here compare with."""

import numpy as np
import tiny
import torch

from palam.alignment.ridge import RidgeStatistics

TEXTS = [sentence.strip() + "." for text in tiny.TEXT.values() for sentence in text.split(".")]


def some_rows(n=200, p=7, q=3):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, p)) * np.linspace(0.5, 3, p) + 2
    weight = generator.normal(size=(p, q))
    y = x @ weight + generator.normal(size=(n, q)) + 5
    return x, y


def direct_ridge(x, y, strength):
    """Least squares on centred rows, and the intercept.

    sqrt(n · strength · mean variance) · I is stacked below the rows.
    """
    centred = x - x.mean(0)
    penalty = np.sqrt(len(x) * strength * centred.var(0).mean())
    stacked = np.concatenate([centred, penalty * np.eye(x.shape[1])])
    target = np.concatenate([y - y.mean(0), np.zeros((x.shape[1], y.shape[1]))])
    weight = np.linalg.lstsq(stacked, target, rcond=None)[0].T
    return weight, y.mean(0) - weight @ x.mean(0)


def gathered(x, y):
    statistics = RidgeStatistics(x.shape[1], y.shape[1])
    statistics.add(torch.from_numpy(x), torch.from_numpy(y))
    return statistics
