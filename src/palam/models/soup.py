"""One bridge of several: the mean of their weights.

It is a model soup (Wortsman et al., ICML 2022, arXiv 2203.05482). The mean of bridges that were
trained from one start (`--init-from`) often reads better than each of them; that of bridges from
different starts is of no use.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.models.bridge import PalamBridge
from palam.models.checkpoint import (
    CHECKPOINT_MARKER,
    DESIGN,
    RESULTS_FILE,
    bridge_card,
    check_same_bases,
    check_settings_alike,
    load_bridge,
    write_checkpoint,
)
from palam.models.configuration import PalamConfig
from palam.models.processing import READING_SETTINGS, PalamProcessor
from palam.utils.files import atomic_directory
from palam.utils.texts import shown


def load_alike(paths: Sequence[str]) -> list[PalamBridge]:
    """Bridges whose weights can be averaged.

    Args:
        paths: folders, hub ids or `starter:bridge`; two or more.

    Returns:
        The bridges, in fp32 on the CPU.

    Raises:
        PalamError: fewer than two, no bridge there, one with a LoRA or with priors of its labels,
            or two of another kind, task, prompt or limit, or between other base models.
    """
    if len(paths) < 2:
        raise PalamError("a mean of weights needs two bridges or more")
    bridges = [load_bridge(path) for path in paths]
    for path, bridge in zip(paths, bridges, strict=True):
        _check_has_weights_alone(path, bridge.config)
        check_settings_alike(DESIGN, (path, bridge.config), (paths[0], bridges[0].config))
        _check_same_task(path, bridge.config, paths[0], bridges[0].config)
        check_same_bases(bridges[0].config, bridge.config)
    _check_read_alike(paths)
    return bridges


def _check_same_task(path: str, config: PalamConfig, other: str, others: PalamConfig) -> None:
    """Refuse two bridges that learned other labels, or read rows as other texts.

    Two files of one's own with the same labels are the same task, whatever they are called.

    Raises:
        PalamError: they did.
    """
    task, their_task = config.trained_task, others.trained_task
    if task is None or their_task is None:
        if task is not their_task:
            trained, untrained = (path, other) if task else (other, path)
            raise PalamError(f"{trained} was trained on a task, and {untrained} on none")
        return
    if task.words_by_label != their_task.words_by_label:
        own, theirs = shown(dict(task.words_by_label)), shown(dict(their_task.words_by_label))
        raise PalamError(
            f"{path} has other labels, or other words for them, than {other}: {own} and {theirs}"
        )
    if (task.family, task.text) != (their_task.family, their_task.text):
        raise PalamError(
            f"{path} was trained on {task.name} as {task.text!r}, and {other} on "
            f"{their_task.name} as {their_task.text!r}; they must be of one task"
        )


def _check_read_alike(paths: Sequence[str]) -> None:
    """Refuse bridges whose texts become other inputs of the models.

    Raises:
        PalamError: two of them have another prompt, limit or kind of tokenisation.
    """
    processors = [PalamProcessor.from_pretrained(path) for path in paths]
    first = processors[0]
    for path, processor in zip(paths, processors, strict=True):
        if processor.template != first.template:
            raise PalamError(f"{path} asks in other words than {paths[0]}; they must be the same")
        for name in READING_SETTINGS:
            own, others = getattr(processor, name), getattr(first, name)
            if own != others:
                raise PalamError(
                    f"{path} has {name} {own}, and {paths[0]} {others}; they must be the same"
                )


def mean_weights(bridges: Sequence[PalamBridge]) -> dict[str, Tensor]:
    """The plain mean of each weight, in fp32; it does not depend on the order of the bridges.

    Args:
        bridges: of [`load_alike`], one or more. One that is there twice counts twice.
    """
    states = [bridge.state_dict() for bridge in bridges]
    means = {}
    for name in states[0]:
        # In twice the digits, in which the sum is the same in any order.
        stacked = torch.stack([state[name].double() for state in states])
        means[name] = stacked.mean(0).float()
    return means


class GreedySoup(NamedTuple):
    """Which of some bridges are averaged, and what that is worth."""

    alone: list[float]
    """The loss of each bridge by itself."""
    chosen: list[int]
    """The places of those that are averaged, in the order in which they were taken."""
    loss: float
    """Of their mean."""


def greedy_soup(
    bridges: Sequence[PalamBridge], loss: Callable[[Mapping[str, Tensor]], float]
) -> GreedySoup:
    """Choose bridges whose mean has a low loss, one after the other (the paper's recipe 1).

    The best bridge is taken first. Each further one, from the best to the worst, is taken if the
    loss of the mean does not rise with it; so no bridge is averaged with one behind a barrier.

    Args:
        bridges: of [`load_alike`], one or more.
        loss: of a bridge with these weights, on validation data.
    """
    alone = [loss(mean_weights([bridge])) for bridge in bridges]
    first, *others = sorted(range(len(bridges)), key=alone.__getitem__)
    chosen = [first]
    lowest = alone[first]
    for place in others:
        together = loss(mean_weights([bridges[each] for each in [*chosen, place]]))
        if together <= lowest:
            chosen.append(place)
            lowest = together
    return GreedySoup(alone, chosen, lowest)


def write_soup(
    out: Path, like: str, weights: Mapping[str, Tensor], results: Mapping[str, str | float]
) -> None:
    """Write a mean of bridges as a checkpoint, which appears whole.

    Args:
        out: the folder; new, empty, or an older checkpoint.
        like: one of the bridges, whose configuration, prompt and limits all of them have.
        weights: of [`mean_weights`].
        results: what is recorded and shown in the model card, by name.

    Raises:
        PalamError: a folder that holds something else, or cannot be written.
    """
    bridge = load_bridge(like)
    bridge.load_state_dict(weights)
    processor = PalamProcessor.from_pretrained(like)
    card = bridge_card(bridge, processor, results=results)
    content = json.dumps(dict(results), indent=2) + "\n"
    with atomic_directory(out, marker=CHECKPOINT_MARKER) as aside:
        write_checkpoint(aside, bridge, processor, None, card)
        (aside / RESULTS_FILE).write_text(content, encoding="utf-8")


def check_output(out: Path, paths: Sequence[str]) -> None:
    """Refuse to put a mean in the place of one of its bridges.

    Raises:
        PalamError: it would be.
    """
    for path in paths:
        if out.exists() and Path(path).exists() and out.samefile(path):
            raise PalamError(f"{out} is one of the bridges; give another --out")


def _check_has_weights_alone(path: str, config: PalamConfig) -> None:
    """Refuse what has more to it than the bridge's weights.

    Raises:
        PalamError: it has.
    """
    if config.adapter:
        raise PalamError(
            f"{path} has a LoRA; the mean of two LoRAs' matrices is not the mean of what they do"
        )
    if config.label_priors:
        raise PalamError(f"{path} is calibrated: its labels' priors would not be those of a mean")
