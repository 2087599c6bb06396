"""`starter:bridge` wherever a command takes a bridge; a tiny one stands in its place."""

import json

import pytest

from palam import PalamModel
from palam.inference.generation import generate
from palam.serving.bridges import load_bridges
from palam.starter.sources import BRIDGE

CPU = ("--device", "cpu", "--dtype", "fp32")
TEXT = ("--text", "මම ගෙදර යනවා.")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("generate", (*TEXT, "--max-new-tokens", 3)),
        ("generate", (*TEXT, "--prompt", "{text} What is this about?", "--max-new-tokens", 3)),
        ("classify", (*TEXT, "--labels", "good,bad")),
        ("inspect", TEXT),
        ("info", ()),
        ("push", ("lab/bridge", "--dry-run")),
    ],
)
def test_a_command_reads_with_it_as_with_its_folder(palam, general, command, options):
    device = () if command in ("info", "push") else CPU
    by_name = palam(command, BRIDGE, *options, *device)
    by_folder = palam(command, general, *options, *device)
    assert by_name.code == 0, by_name.err
    assert by_name.out
    assert by_name.out == by_folder.out


def test_its_answers_are_guided_alone_and_in_a_file(palam, general, tmp_path, jsonl):
    model = PalamModel.from_pretrained(general)
    answers = [
        *generate(model, [TEXT[1]], max_new_tokens=8, guidance_scale=1.5),
        *generate(model, [TEXT[1]], max_new_tokens=8),
    ]
    assert answers[0] != answers[1]
    file = tmp_path / "texts.txt"
    file.write_text(f"{TEXT[1]}\n", encoding="utf-8")
    for options, answer in (((), answers[0]), (("--guidance-scale", 1), answers[1])):
        command = ("generate", BRIDGE, "--max-new-tokens", 8, *options, *CPU)
        assert palam(*command, *TEXT).out.rstrip() == answer
        assert jsonl(palam(*command, "--file", file).out)[0]["answer"] == answer


def test_it_is_evaluated_and_keeps_no_results(palam, general, data):
    options = ("--task", "sib200", "--data", data, "--split", "dev", "--languages", "si", *CPU)
    assert palam("evaluate", BRIDGE, *options).code == 0
    before = sorted(general.iterdir())
    result = palam("evaluate", BRIDGE, *options, "--record")
    assert (result.code, result.out) == (2, "")
    assert sorted(general.iterdir()) == before


@pytest.mark.usefixtures("general")
def test_a_training_starts_from_it(palam, data, base_options, tmp_path):
    options = ("--task", "sib200", "--data", data, "--normalize", "none", *base_options)
    steps = ("--max-steps", 1, "--init-from", BRIDGE)
    result = palam("train", *options, *steps, "--out", tmp_path / "topics")
    assert result.code == 0, result.err
    assert "init_from: starter:bridge" in (tmp_path / "topics" / "settings.yaml").read_text()


@pytest.mark.usefixtures("general")
@pytest.mark.parametrize("base", ["encoder", "llm"])
def test_it_is_no_base_model(palam, data, base_options, tmp_path, base):
    options = ("--task", "sib200", "--data", data, *base_options, f"--{base}", BRIDGE)
    result = palam("train", *options, "--out", tmp_path / "topics")
    assert result.code == 2
    assert f"{BRIDGE!r}" in result.err.splitlines()[-1]


@pytest.mark.usefixtures("general")
def test_it_is_served_under_its_name():
    (bridge,) = load_bridges([BRIDGE], {})
    assert bridge.name == BRIDGE
    assert isinstance(bridge.model, PalamModel)


@pytest.mark.usefixtures("general")
def test_labels_are_asked_for_as_the_user_asks(palam, jsonl):
    def scores(*options):
        result = palam("classify", BRIDGE, *TEXT, "--labels", "good,bad", *options, *CPU)
        assert (result.code, result.err) == (0, "")
        return jsonl(result.out)[0]["scores"]

    assert scores("--prompt", "{text}\nTopic:") == scores()
    assert scores("--prompt", "{text}\nMood:") != scores()


@pytest.mark.usefixtures("general")
def test_a_run_with_another_prompt_is_not_gone_on_with(palam, refused, tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    run = ("classify", BRIDGE, "--file", tmp_path / "a.txt", "--labels", "good,bad", *CPU)
    out = tmp_path / "out.jsonl"
    assert palam(*run, "--out", out).code == 0
    assert "exactly once" in refused(*run, "--prompt", "no slot")


@pytest.mark.starter
def test_workers_read_with_it(palam, tmp_path, jsonl):
    (tmp_path / "a.txt").write_text("මම ගෙදර යනවා.\nI am going home.\n", encoding="utf-8")
    run = ("classify", BRIDGE, "--file", tmp_path / "a.txt", "--labels", "sports,travel", *CPU)
    alone = palam(*run)
    shared = palam(*run, "--workers", 2)
    assert shared.code == 0, shared.err
    for one, other in zip(jsonl(alone.out), jsonl(shared.out), strict=True):
        assert json.dumps(one["prediction"]) == json.dumps(other["prediction"])
