"""An optimiser whose weights are averaged over its steps: most of what the last steps add is noise."""

from typing import Any

import torch


class AveragedAdamW(torch.optim.AdamW):
    """AdamW that is evaluated and saved as the mean of the weights after each step (Polyak and Juditsky, 1992).

    `eval()` puts the mean in the weights' place and `train()` takes it out again; the transformers Trainer calls both.
    Whatever is not in the weights is in the state, so that a checkpoint of either kind can be gone on from.

    Args:
        params, **settings: of AdamW.
        start: the first so many steps do not count; up to there the mean is the weights themselves.
    """

    def __init__(self, params: Any, *, start: int, **settings: Any) -> None:
        super().__init__(params, **settings)
        for group in self.param_groups:
            group |= {"start": start, "steps": 0, "averaged": False}

    def step(self, closure: Any = None) -> Any:
        """One step of AdamW."""
        loss = super().step(closure)
        for group in self.param_groups:
            group["steps"] += 1
            share = 1 / max(1, group["steps"] - group["start"])
            for weight in group["params"]:
                state = self.state[weight]
                if "mean" in state:
                    state["mean"].lerp_(weight.detach(), share)
                elif state:  # none, if it never had a gradient
                    state["mean"] = weight.detach().clone()
        return loss

    def eval(self) -> None:
        """Put the means in the weights' place."""
        self._exchange(averaged=True)

    def train(self) -> None:
        """Put the weights back."""
        self._exchange(averaged=False)

    @torch.no_grad()
    def _exchange(self, averaged: bool) -> None:
        for group in self.param_groups:
            for weight in group["params"] if group["averaged"] != averaged else ():
                if "mean" in (state := self.state[weight]):
                    kept = weight.clone()
                    weight.copy_(state["mean"])
                    state["mean"].copy_(kept)
            group["averaged"] = averaged
