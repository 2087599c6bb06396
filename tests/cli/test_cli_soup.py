"""`palam soup`: one bridge of several."""

import json

import pytest
from safetensors.torch import load_file

CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture(scope="module")
def from_one_start(trained, data, base_options, tmp_path_factory):
    """Two bridges that were trained on from one."""
    from palam.cli.main import run

    bridges = []
    for seed in (1, 2):
        out = tmp_path_factory.mktemp("soup") / f"seed{seed}"
        options = ("--task", "sib200", "--data", data, "--out", out, "--max-steps", 2)
        options += ("--init-from", trained, "--seed", seed, *base_options)
        assert run(["train", *map(str, options)]) == 0
        bridges.append(out)
    return bridges


def test_all_are_averaged_and_the_mean_is_a_bridge(palam, from_one_start, data, tmp_path):
    out = tmp_path / "mean"
    result = palam("soup", *from_one_start, "--out", out)
    assert (result.code, result.out) == (0, ""), result.err
    assert f"the mean of 2 bridges saved to {out}" in result.err
    first, second = (load_file(bridge / "model.safetensors") for bridge in from_one_start)
    for name, value in load_file(out / "model.safetensors").items():
        assert value.allclose((first[name] + second[name]) / 2, atol=1e-6)
    assert json.loads((out / "results.json").read_text()) == {
        "mean_of_the_weights_of": "seed1, seed2"
    }
    assert "seed1, seed2" in (out / "README.md").read_text(encoding="utf-8")
    command = ("evaluate", out, "--task", "sib200", "--data", data, "--limit", 7, *CPU)
    assert palam(*command).code == 0
    assert palam("train", "--task", "sib200", "--data", data, "--init-from", out).code == 2  # --out


def test_english_rows_choose(palam, from_one_start, trained, data, tmp_path):
    out = tmp_path / "chosen"
    options = ("--task", "sib200", "--data", data, *CPU)
    result = palam("soup", *from_one_start, trained, "--out", out, *options)
    assert result.code == 0, result.err
    lines = [line.split() for line in result.out.splitlines()[1:]]
    alone = {name: float(loss) for name, loss, *_ in lines[:-1]}
    averaged = [name for name, _, is_averaged in lines[:-1] if is_averaged == "yes"]
    lowest = min(alone, key=alone.get)
    assert lowest in averaged
    results = json.loads((out / "results.json").read_text())
    assert set(results["mean_of_the_weights_of"].split(", ")) == set(averaged)
    assert results["validation_label_loss"] <= alone[lowest] + 1e-3
    assert f"the mean of {len(averaged)} bridges" in result.err


def test_it_does_not_take_the_place_of_one_of_them(refused, from_one_start):
    first, second = from_one_start
    line = refused("soup", first, second, "--out", second)
    assert line == f"{second} is one of the bridges; give another --out"


def test_what_cannot_be_averaged(refused, untrained, from_one_start, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "two bridges or more" in refused("soup", from_one_start[0], *out)
    assert "they must be the same" in refused("soup", from_one_start[0], untrained, *out)
    line = refused("soup", *from_one_start, *out, "--task", "reading")
    assert "has no labels" in line
