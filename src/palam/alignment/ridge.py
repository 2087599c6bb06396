"""Ridge regression from sums over rows: memory does not depend on the number of rows."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

STRENGTHS = tuple(10.0**power for power in range(-5, 2))
SUMS = ("count", "x", "y", "xx", "xy", "yy")


class RidgeStatistics:
    """Sums from which a ridge regression of y [n, q] on x [n, p] is solved, in float64."""

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu") -> None:
        device = "cpu" if torch.device(device).type == "mps" else device  # MPS has no float64

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.count = zeros()
        self.x, self.y = zeros(inputs), zeros(outputs)
        self.xx, self.xy, self.yy = zeros(inputs, inputs), zeros(inputs, outputs), zeros(outputs)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x [n, p] and y [n, q]."""
        x, y = x.to(self.x.device).double(), y.to(self.x.device).double()
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
        if distributed.is_available() and distributed.is_initialized():
            for name in SUMS:
                distributed.all_reduce(getattr(self, name))

    def solve(self, strengths: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
        """Weight [q, p] and bias [q] for each ridge strength, relative to the mean variance of x."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        values, vectors = torch.linalg.eigh(self.xx / self.count - mean_x.outer(mean_x))
        projected = vectors.T @ (self.xy / self.count - mean_x.outer(mean_y))
        scale = values.clamp(min=0).mean().clamp(min=1e-30)
        solutions = []
        for strength in strengths:
            weight = (vectors @ (projected / (values.clamp(min=0) + strength * scale)[:, None])).T
            solutions.append((weight, mean_y - weight @ mean_x))
        return solutions

    def _fitted(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The sum of squares of what weight and bias give on these rows."""
        return (
            (weight @ self.xx * weight).sum()
            + 2 * bias @ (weight @ self.x)
            + self.count * bias @ bias
        )

    def scale(self, weight: Tensor, bias: Tensor) -> float:
        """The factor that gives their output the root mean square of y."""
        return (self.yy.sum() / self._fitted(weight, bias).clamp(min=1e-30)).sqrt().item()

    def r2(self, weight: Tensor, bias: Tensor) -> float:
        """Share of the variance of y that weight and bias explain on these rows."""
        crossed = (weight * self.xy.T).sum() + bias @ self.y
        total = self.yy.sum() - self.y.square().sum() / self.count
        return 1 - ((self.yy.sum() - 2 * crossed + self._fitted(weight, bias)) / total).item()

    def best(
        self, held: "RidgeStatistics", strengths: Sequence[float] = STRENGTHS
    ) -> tuple[float, Tensor, Tensor, float]:
        """The strength whose solution explains held-out rows best; its weight, bias and held-out R²."""
        solutions = self.solve(strengths)
        scores = [held.r2(*solution) for solution in solutions]
        at = max(range(len(scores)), key=scores.__getitem__)
        return strengths[at], *solutions[at], scores[at]
