"""An optimiser whose weights are averaged over its steps.

Most of what the last steps add is noise, and the mean over them is without it.
"""

from typing import Any

import torch


class AveragedAdamW(torch.optim.AdamW):
    """AdamW, evaluated and saved as the mean of the weights after each step.

    This is the averaging of Polyak and Juditsky (1992). `eval()` puts the mean in the weights'
    place and `train()` takes it out again; the transformers Trainer calls both. What is not in the
    weights is in the optimiser's state, so that training can be resumed from either.

    Args:
        params: as AdamW takes them.
        start: the first so many steps do not count; until then the mean is the weights themselves.
        **settings: of AdamW.
    """

    def __init__(self, params: Any, *, start: int, **settings: Any) -> None:
        super().__init__(params, **settings)
        for group in self.param_groups:
            group["start"] = start
            group["steps"] = 0
            group["averaged"] = False

    def step(self, closure: Any = None) -> Any:
        """One step of AdamW."""
        loss = super().step(closure)
        for group in self.param_groups:
            group["steps"] += 1
            share = 1 / max(1, group["steps"] - group["start"])
            for weight in group["params"]:
                self._add_to_mean(weight, share)
        return loss

    def _add_to_mean(self, weight: torch.Tensor, share: float) -> None:
        state = self.state[weight]
        if "mean" in state:
            state["mean"].lerp_(weight.detach(), share)
        elif state:  # a weight that never had a gradient has none
            state["mean"] = weight.detach().clone()

    def eval(self) -> None:
        """Put the means in the weights' place."""
        self._exchange(averaged=True)

    def train(self) -> None:
        """Put the weights back."""
        self._exchange(averaged=False)

    @torch.no_grad()
    def _exchange(self, averaged: bool) -> None:
        for group in self.param_groups:
            if group["averaged"] == averaged:
                continue
            group["averaged"] = averaged
            for weight in group["params"]:
                state = self.state[weight]
                if "mean" in state:
                    previous = weight.clone()
                    weight.copy_(state["mean"])
                    state["mean"].copy_(previous)
