"""Ridge regression from sums over rows: memory does not depend on the number of rows."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, distributed

STRENGTHS = tuple(10.0**power for power in range(-5, 2))
"""Ridge strengths to try, relative to the mean variance of x."""
SUMS = ("count", "x", "y", "xx", "xy", "yy")


class LinearMap(NamedTuple):
    """y = weight x + bias."""

    weight: Tensor
    """[q, p]"""
    bias: Tensor
    """[q]"""


class BestRidge(NamedTuple):
    """The solution that explains held-out rows best."""

    strength: float
    """The ridge strength, relative to the mean variance of x."""
    solution: LinearMap
    r2: float
    """Share of the held-out variance of y that it explains."""


class RidgeStatistics:
    """Sums from which a ridge regression of y [n, q] on x [n, p] is solved, in float64.

    Args:
        inputs: p.
        outputs: q.
        device: where the sums are kept; the CPU in place of MPS, which has no float64.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        device: torch.device | str = "cpu",
    ) -> None:
        device = "cpu" if torch.device(device).type == "mps" else device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.count = zeros()
        self.x = zeros(inputs)
        self.y = zeros(outputs)
        self.xx = zeros(inputs, inputs)
        self.xy = zeros(inputs, outputs)
        self.yy = zeros(outputs)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x [n, p] and y [n, q]."""
        x = x.to(self.x.device).double()
        y = y.to(self.x.device).double()
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += y.square().sum(0)

    def merge(self, other: "RidgeStatistics") -> None:
        """Add another's sums."""
        for name in SUMS:
            getattr(self, name).add_(getattr(other, name))

    def merge_processes(self) -> None:
        """Add up the sums of all processes, where several share the work."""
        if is_shared():
            for name in SUMS:
                distributed.all_reduce(getattr(self, name))

    def solve(self, strengths: Sequence[float]) -> list[LinearMap]:
        """The solution for each ridge strength, relative to the mean variance of x."""
        mean_x = self.x / self.count
        mean_y = self.y / self.count
        covariance_xx = self.xx / self.count - mean_x.outer(mean_x)
        covariance_xy = self.xy / self.count - mean_x.outer(mean_y)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance_xx)
        projected = eigenvectors.T @ covariance_xy
        variances = eigenvalues.clamp(min=0)
        mean_variance = variances.mean().clamp(min=1e-30)
        solutions = []
        for strength in strengths:
            penalised = variances + strength * mean_variance
            shrunk = projected / penalised[:, None]
            weight = (eigenvectors @ shrunk).T
            bias = mean_y - weight @ mean_x
            solutions.append(LinearMap(weight, bias))
        return solutions

    def scale(self, weight: Tensor, bias: Tensor) -> float:
        """The factor that gives the output of a linear map the root mean square of y."""
        squares = self._output_squares(weight, bias).clamp(min=1e-30)
        ratio = self.yy.sum() / squares
        return ratio.sqrt().item()

    def r2(self, weight: Tensor, bias: Tensor) -> float:
        """Share of the variance of y that a linear map explains on these rows."""
        total = self.yy.sum()
        products = (weight * self.xy.T).sum() + bias @ self.y
        squares = self._output_squares(weight, bias)
        residual = total - 2 * products + squares
        variance = total - self.y.square().sum() / self.count
        unexplained = residual / variance.clamp(min=1e-30)
        return 1 - unexplained.item()

    def best(
        self, held_out: "RidgeStatistics", strengths: Sequence[float] = STRENGTHS
    ) -> BestRidge:
        """The solution of these rows that explains held-out ones best.

        Args:
            held_out: sums of other rows.
            strengths: of the ridge, those to try.
        """
        solutions = self.solve(strengths)
        candidates = []
        for strength, solution in zip(strengths, solutions, strict=True):
            r2 = held_out.r2(*solution)
            candidates.append(BestRidge(strength, solution, r2))
        return max(candidates, key=lambda candidate: candidate.r2)

    def _output_squares(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The sum of squares of a linear map's output on these rows."""
        quadratic = (weight @ self.xx * weight).sum()
        linear = 2 * bias @ (weight @ self.x)
        return quadratic + linear + self.count * bias @ bias


def is_shared() -> bool:
    """Whether several processes share the texts."""
    return distributed.is_available() and distributed.is_initialized()
