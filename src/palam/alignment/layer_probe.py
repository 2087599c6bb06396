"""A bounded sample of aligned tokens in memory: to compare layers and fusions on, and to search a fusion's weights."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from palam.alignment.ridge import STRENGTHS, RidgeStatistics
from palam.alignment.token_alignment import AlignedTokens
from palam.errors import PalamError
from palam.models.fusion import FUSIONS, Fusion
from palam.models.modeling import PalamModel

MOST_TOKENS, MOST_NUMBERS = 20_000, 2**28
SEARCH_STEPS, SEARCH_TOKENS = 60, 6000


@dataclass
class AlignedSample:
    """Aligned tokens to fit on, and held-out ones."""

    fit: AlignedTokens
    held: AlignedTokens

    @classmethod
    def take(
        cls, model: PalamModel, batches: Iterator[tuple[bool, AlignedTokens]]
    ) -> "AlignedSample":
        """From the front of what `palam.alignment.solve.aligned_batches` gives, as much as is to be kept in memory.

        Raises:
            PalamError: too little text.
        """
        config = model.config
        most = min(
            MOST_TOKENS, MOST_NUMBERS // (config.encoder_num_layers * config.encoder_hidden_size)
        )
        parts: dict[bool, list[AlignedTokens]] = {True: [], False: []}
        for held, pairs in batches:
            parts[held].append(pairs)
            if sum(len(one.ids) for one in parts[False]) >= most:
                break
        if not all(sum(len(one.ids) for one in some) > 1 for some in parts.values()):
            raise PalamError("too little text to compare layers on: give more")
        return cls(*(_joined(parts[held], most) for held in (False, True)))


def _joined(parts: list[AlignedTokens], most: int) -> AlignedTokens:
    states, targets, ids = zip(*parts, strict=True)
    layers = [torch.cat(layer)[:most] for layer in zip(*states, strict=True)]
    return AlignedTokens(layers, torch.cat(targets)[:most], torch.cat(ids)[:most])


@torch.no_grad()
def nearest_token_accuracy(model: PalamModel, mapped: Tensor, ids: Tensor) -> float:
    """How often the LLM's embedding that is nearest to a mapped vector, by cosine, is that of the right token.

    Args:
        mapped: [tokens, d_llm].
        ids: [tokens], the right tokens.
    """
    table = model.llm.get_input_embeddings().weight
    table = torch.nn.functional.normalize(table.float(), dim=-1)
    found = torch.cat([(part.float() @ table.T).argmax(1) for part in torch.split(mapped, 1024)])
    return (found == ids.to(found.device)).float().mean().item()


def probe_layers(model: PalamModel, sample: AlignedSample) -> list[dict[str, float | str]]:
    """Held-out R² and nearest-token accuracy of a solved linear map, from each layer and from every fusion.

    Args:
        model: its layers, normalised as its fusion normalises them; that fusion is taken with the weights that it has.
        sample: of [`Sample.take`].

    Returns:
        A row each: `name` (`layer 1`, ..., and the fusions' names, the others' weights searched), `r2`, `nearest`.
    """
    own = model.bridge.fusion
    rows: list[dict[str, float | str]] = []
    for layer in range(own.num_layers):
        fit, held = (
            own.prepare(pairs.states[layer].float()) for pairs in (sample.fit, sample.held)
        )
        rows.append({"name": f"layer {layer + 1}", **_solved(model, sample, fit, held)})
    for name, kind in FUSIONS.items():
        fusion = own
        if type(own) is not kind:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                fusion = (
                    kind(own.hidden_size, own.num_layers, normalize=own.normalize)
                    .to(model.device)
                    .eval()
                )
            fit_fusion_weights(fusion, sample)
        with torch.no_grad():
            states = (
                [state.float() for state in pairs.states] for pairs in (sample.fit, sample.held)
            )
            fit, held = (fusion(layers)[0] for layers in states)
        rows.append({"name": name, **_solved(model, sample, fit, held)})
    return rows


def _solved(
    model: PalamModel, sample: AlignedSample, fit: Tensor, held: Tensor
) -> dict[str, float]:
    moments = []
    for x, pairs in ((fit, sample.fit), (held, sample.held)):
        moments.append(RidgeStatistics(x.shape[1], pairs.targets.shape[1], x.device))
        moments[-1].add(x, pairs.targets)
    _, weight, bias, r2 = moments[0].best(moments[1])
    mapped = held @ weight.T.to(held) + bias.to(held)
    return {"r2": r2, "nearest": nearest_token_accuracy(model, mapped, sample.held.ids)}


@torch.enable_grad()
def fit_fusion_weights(
    fusion: Fusion, sample: AlignedSample, strength: float = STRENGTHS[3]
) -> None:
    """Choose a fusion's own weights, in place, by the error of the solved map on tokens that it was not solved on.

    The map is solved in closed form from one half of the tokens at every step, and the gradient of the other
    half's error goes through that solution (variable projection): no base model takes part.

    Args:
        fusion: nothing happens to one without weights.
        sample: its `fit` part is used.
        strength: of the ridge, relative to the features' mean variance.
    """
    weights = list(fusion.parameters())
    if not weights:
        return
    states, targets = (
        [state[:SEARCH_TOKENS].float() for state in sample.fit.states],
        sample.fit.targets[:SEARCH_TOKENS],
    )
    half = len(targets) // 2
    # A handful of scores must move far in few steps; the matrices of a small network must not.
    optimizer = torch.optim.Adam(
        weights, lr=1e-3 if any(weight.ndim > 1 for weight in weights) else 0.05
    )
    for _ in range(SEARCH_STEPS):
        fused = fusion(states)[0]
        x, y = fused - fused[:half].mean(0), targets - targets[:half].mean(0)
        gram = x[:half].T @ x[:half]
        ridge = strength * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
        error = (
            (x[half:] @ torch.linalg.solve(gram + ridge, x[:half].T @ y[:half]) - y[half:])
            .square()
            .mean()
        )
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
