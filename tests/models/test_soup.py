"""The mean of several bridges' weights, and which of them are averaged."""

import pytest
import torch
from helpers import refusal

from palam.models.soup import greedy_soup, load_alike, mean_weights


@pytest.fixture
def saved(tiny_model, tmp_path):
    """`saved("name", seed=1)`: the folder of a new tiny bridge."""

    def save(name, *bases, priors=None, task=None, **options):
        model = tiny_model(*bases, **{"mode": "prompt", "prompt": "{text}\nTopic:", **options})
        model.config.label_priors = priors or {}
        model.config.task = task
        model.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


def test_each_weight_is_the_plain_mean(saved):
    paths = [saved(f"bridge{seed}", seed=seed) for seed in range(3)]
    bridges = load_alike(paths)
    means = mean_weights(bridges)
    for name, value in means.items():
        expected = sum(bridge.state_dict()[name] for bridge in bridges) / 3
        assert torch.allclose(value, expected, atol=1e-6), name
    for name, value in mean_weights(bridges[::-1]).items():
        assert torch.equal(value, means[name])
    for name, value in mean_weights([bridges[1]] * 2).items():
        assert torch.equal(value, bridges[1].state_dict()[name])


def test_those_with_which_the_loss_rises_are_left_out(saved):
    bridges = load_alike([saved(f"bridge{seed}", seed=seed) for seed in range(4)])
    values = [0.3, 2.0, -0.1, 0.2]
    for bridge, value in zip(bridges, values, strict=True):
        torch.nn.init.constant_(bridge.boundary, value)

    def loss(weights):
        """How far the boundary is from 0.15."""
        return abs(float(weights["boundary"][0]) - 0.15)

    found = greedy_soup(bridges, loss)
    assert found.alone == pytest.approx([abs(value - 0.15) for value in values], abs=1e-6)
    # 0.2 alone, with 0.3 it is 0.25 (worse), with -0.1 it is 0.05 (worse), with 2.0 far off
    assert found.chosen == [3]
    torch.nn.init.constant_(bridges[2].boundary, 0.08)
    found = greedy_soup(bridges, loss)
    # 0.2, then the mean with 0.08 is 0.14; with 0.3 it would be 0.193
    assert found.chosen == [3, 2]
    assert found.loss == pytest.approx(0.01, abs=1e-6)


def task(name, labels, text="{text}"):
    """What a checkpoint records of a file of one's own."""
    words = [[label, label] for label in labels]
    return {"name": name, "family": "custom", "text": text, "labels": words}


def test_files_of_other_names_and_order_are_of_one_task(saved):
    paths = [
        saved("first", task=task("mine", ["yes", "no"])),
        saved("second", task={**task("yours", ["no", "yes"]), "columns": {"text": "Article"}}),
    ]
    assert len(load_alike(paths)) == 2


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (task("mine", ["yes", "perhaps"]), "has other labels, or other words for them, than "),
        (task("mine", ["yes", "no"], "News: {text}"), "was trained on mine as 'News: {text}', and"),
    ],
)
def test_bridges_of_other_tasks_are_refused(saved, other, message):
    paths = [saved("first", task=task("mine", ["yes", "no"])), saved("second", task=other)]
    assert message in refusal(load_alike, paths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "mean"}, "has fusion mean, "),
        ({"prompt": "{text}\nIs it good?"}, "asks in other words than "),
        ({"priors": {"good": -1.0}}, "is calibrated: "),
        ({"max_length": 100}, "has max_length 100, and "),
        ({"task": task("mine", ["x", "y"])}, "was trained on a task, and "),
    ],
)
def test_bridges_of_other_kinds_are_refused(saved, options, message):
    paths = [saved("first"), saved("second"), saved("other", **options)]
    assert message in refusal(load_alike, paths)


def test_bridges_between_other_base_models_are_refused(saved, tiny_model, tmp_path):
    first = saved("first")
    model = tiny_model(mode="prompt", prompt="{text}\nTopic:")
    fingerprint = model.config.fingerprints["llm"]
    model.config.fingerprints["llm"] = {**fingerprint, "vocabulary": "0" * 64}
    model.save_pretrained(tmp_path / "second")
    message = refusal(load_alike, [first, str(tmp_path / "second")])
    assert "is not the LLM that this bridge was trained with" in message


def test_one_bridge_has_no_mean(saved):
    assert "two bridges or more" in refusal(load_alike, [saved("first")])
