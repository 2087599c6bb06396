"""The speed benchmark: its reference gives Palam's losses, and its figures are what was timed."""

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from palam.tasks.registry import get_task
from palam.training.sampler import LengthGroupedSampler

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TASK = get_task("demo")
PROMPT = {"mode": "prompt", "prompt": TASK.prompt, "normalize": "layer"}
SPREAD = {"median", "low", "high"}
FUSIONS = ("last", "mean", "global_softmax", "transformer_softmax", "transformer_softmax:8")


def benchmark_module(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return import_module(name)


@pytest.fixture(scope="module")
def reference():
    """The plain reference."""
    return benchmark_module("speed_reference")


@pytest.fixture(scope="module")
def speed():
    """What is timed."""
    return benchmark_module("speed_measure")


@pytest.fixture
def made(speed, tiny_model):
    """`made("xlmr", "llama", fusion="mean")`: a model in the prompt mode, and the demo's rows."""

    def build(encoder="xlmr", llm="llama", **options):
        model = tiny_model(encoder, llm, **PROMPT, **options)
        return model, speed.Rows(TASK, model.processor, None)

    return build


def gradients(model, batch):
    model.bridge.zero_grad()
    """Of the bridge's parameters that have one, after one batch."""
    model(**batch).loss.backward()
    parameters = model.bridge.parameters()
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize(
    ("encoder", "llm", "fusion"),
    [("xlmr", "llama", fusion) for fusion in FUSIONS]
    + [("t5", "gpt2", "mean"), ("m2m100", "opt", "global_softmax")],
)
def test_the_exact_switches_leave_loss_scores_and_gradients(
    reference, speed, made, encoder, llm, fusion
):
    fusion, _, rank = fusion.partition(":")
    options = {"rank": int(rank)} if rank else {}
    model, data = made(encoder, llm, fusion=fusion, **options)
    rows = [3, 1, 4, 15, 92]
    assert len({data.lengths[row].text for row in rows}) > 2  # so that there is padding
    differences = speed.check(model, data, rows)
    assert set(differences) == {"off", *reference.EXACT}
    assert differences["off"] == 0
    expected = gradients(model, data.batch(model, rows))
    alone = [[name] for name in reference.EXACT]
    for switches in (*alone, reference.EXACT):
        plain = reference.Reference(model, switches).eval()
        for ours, theirs in zip(expected, gradients(plain, data.batch(plain, rows)), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)


def test_a_reference_that_is_wrong_is_refused(reference, speed, made, monkeypatch):
    model, data = made()
    llm_inputs = reference.Reference.llm_inputs

    def wrong(self, **batch):
        inputs = llm_inputs(self, **batch)
        if "padding" in self.switches:
            length = inputs.position_ids.shape[1]
            inputs.position_ids = torch.arange(length).expand_as(inputs.position_ids)
        return inputs

    monkeypatch.setattr(reference.Reference, "llm_inputs", wrong)
    with pytest.raises(SystemExit, match="padding is off"):
        speed.check(model, data, [3, 1, 4, 15, 92])


@torch.no_grad()
def test_dropout_is_in_the_encoder_in_training_alone(reference, made, base_folder):
    model, data = made(str(base_folder("xlmr", hidden_dropout_prob=0.3)), fusion="mean")
    batch = data.batch(model, range(4))
    loss = model(**batch).loss
    with_dropout = reference.Reference(model, ["dropout"])
    assert (with_dropout.train()(**batch).loss - loss).abs() > 1e-3
    assert with_dropout.eval()(**batch).loss == loss
    with_dropout.train()
    stacked = reference.Reference(model, ["stack"]).train()
    assert stacked(**batch).loss == pytest.approx(loss.item(), abs=1e-4)
    with_dropout.train()
    assert model.train()(**batch).loss == loss


def test_switches_do_what_they_are_called(reference, made, monkeypatch):
    model, data = made(fusion="mean")
    rows = range(3)
    layers = []
    tokenised = []
    batch = data.batch(model, rows)
    model.bridge.fusion.register_forward_pre_hook(lambda fusion, states: layers.append(states[0]))
    tokenizer = model.processor.encoder_tokenizer
    call = type(tokenizer).__call__

    def counted(self, texts, **options):
        tokenised.append(texts)
        return call(self, texts, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", counted)
    shapes = {}
    for name in ("off", *reference.EXACT):
        plain = reference.Reference(model, {name} - {"off"})
        shapes[name] = plain(**batch).logits.shape[1]
        if name == "stack":
            kept, stacked = plain.encoding.kept
            assert len(kept) == len(stacked) == 3
            assert layers[-1][0].data_ptr() == stacked.data_ptr()
    padded = batch["encoder_input_ids"].shape
    unpadded = layers[0][0].shape[:-1]
    assert [states[0].shape[:-1] for states in layers[2:]] == [padded, unpadded, padded]
    assert shapes["logits"] > shapes["off"] == batch["logits_to_keep"]
    assert shapes["stack"] == shapes["padding"] == shapes["off"]
    tokenised.clear()
    one_by_one = reference.Reference(model, ["tokenise"])
    assert data.batch(one_by_one, rows)["rows"] == [0, 1, 2]
    texts = [[data.texts[row]] for row in rows]
    assert [call for call in tokenised if call in texts] == texts
    scoring = reference.Reference(model, reference.SWITCHES["scoring"])
    answers = data.score(scoring, rows, 2)
    assert len(answers) == 3
    assert all(isinstance(answer, str) for answer in answers)


@pytest.mark.parametrize(
    ("encoder", "llm"),
    [("bert", "llama"), ("t5", "gpt2"), ("m2m100", "opt"), ("modernbert", "gemma3")],
)
def test_the_arithmetic_is_what_torch_counts(speed, made, encoder, llm):
    model, data = made(encoder, llm, fusion="last", attention="eager")
    batch = data.batch(model, [0])
    text, tokens, answer = data.lengths[0]
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    mapper = model.bridge.mapper.readout.weight.numel()
    bridge = 2 * 2 * mapper * text  # forward, and the gradient of its weights
    counted = speed.arithmetic(model, [(text, tokens, answer + 1)])  # one position more has logits
    assert counted == counter.get_total_flops() - bridge


def test_the_arithmetic_by_hand(speed, made):
    model, _ = made("xlmr", "llama")
    vocabulary = model.llm.config.vocab_size
    encoder = 3 * (4 * 32 * 32 + 2 * 32 * 64)  # layers of query, key, value, output; feed-forward
    llm = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)  # keys and values of two heads of four
    matrices = 2 * encoder * 5 + 2 * 2 * (llm * 9 + 32 * vocabulary * 2)
    attention = 3 * 2 * 2 * 32 * 5 * 5 + 3 * 2 * 2 * 2 * 32 * 9 * 9
    assert speed.arithmetic(model, [(5, 9, 2)]) == matrices + attention
    assert speed.arithmetic(model, [(5, 9, 2)] * 3) == 3 * (matrices + attention)


SECONDS = {"palam": 1.0, "reference": 3.0, "reference_fp32": 6.0, "cached": 0.8, "encoder": 0.25}
"""What each unit is said to take for a row; a switch takes 2."""


def test_figures_of_two_dtypes(reference, speed, tiny_model, monkeypatch):
    models = [
        {"last": tiny_model("xlmr", "llama", dtype=dtype, **PROMPT)}
        for dtype in (torch.bfloat16, torch.float32)
    ]
    data = speed.Rows(TASK, models[0]["last"].processor, None)
    units = [
        unit for kind in reference.SWITCHES for unit in speed.variants(kind, "last", models, data)
    ]
    for unit in units:
        dtype = torch.float32 if unit.name == "reference_fp32" else torch.bfloat16
        assert unit.model.llm.dtype == unit.model.encoder.dtype == dtype
        assert sorted(row for part in unit.parts(range(6), 2) for row in part) == list(range(6))
    runs = []

    def seconds(unit, part, size):
        runs.append((unit.kind, unit.name))
        return SECONDS.get(unit.name, 2.0) * len(part)

    def peak(unit, part, size):
        return 10 if unit.name == "palam" else 40

    monkeypatch.setattr(speed.Unit, "seconds", seconds)
    monkeypatch.setattr(speed.Unit, "peak", peak)
    ticks = []
    effort = speed.Effort(repeats=2, steps=3, matmuls=0)
    measured = speed.measure(units, 2, effort, lambda: ticks.append(1))
    training, scoring = measured.figures
    assert len(ticks) == 9
    assert measured.matmul_seconds == []
    assert runs.count(("training", "palam")) == 3 * 3  # a pass warms up
    assert runs.count(("scoring", "reference")) == 3
    for figures in (training, scoring):
        ratios = [figures.speedup, figures.speedup_over_fp32, *figures.switches.values()]
        assert [ratio.median for ratio in ratios] == [3, 6, *[2] * 5]
        assert figures.memory_ratio == 0.25
    rows = list(LengthGroupedSampler(data.dataset, 2, 0))[:6]
    lengths = [data.lengths[row] for row in rows]
    tokens = sum(row.text + row.sequence for row in lengths)
    answers = sum(row.logits for row in lengths)
    assert training.palam_tokens_per_second.low == tokens / 6
    assert scoring.palam_tokens_per_second.low == (tokens - answers) / 6
    operations = speed.arithmetic(models[0]["last"], lengths)
    assert training.operations_per_second.high == operations / 6
    assert training.time_over_last.median == 1
    # 0.75 is not the encoder's, so 0.05 of 0.8 is.
    shares = [training.cached_speedup, training.encoder_share, training.encoder_share_cached]
    assert [share.median for share in shares] == pytest.approx([1.25, 0.25, 0.0625])

    def read_again(*args, **kwargs):
        pytest.fail("read again")

    with monkeypatch.context() as patch:  # every text of the measured rows is kept
        patch.setattr(models[0]["last"].encoder, "forward", read_again)
        cached = next(unit for unit in units if unit.name == "cached")
        cached.model(**data.batch(cached.model, rows))


def test_compiled_layers_are_palams_alone(reference, speed, made):
    model, data = made(fusion="mean")
    model._compiled_layers = [(model.llm, model.llm.forward)]
    units = speed.variants("training", "mean", [{"mean": model}], data)
    compiled = {unit.name for unit in units if unit.model._compiled_layers}
    assert compiled == {"palam", "cached", *reference.SWITCHES["training"]}
    assert {unit.name for unit in units} - compiled == {"reference", "encoder", "compile"}


def test_peak_memory(speed, made):
    model, data = made()
    unit = speed.variants("training", "mean", [{"mean": model}], data)[0]
    held = []

    def run(rows, size):
        held.append(torch.ones(1 << 23))
        time.sleep(0.1)
        held.clear()

    unit.run = run
    peak = unit.peak([0], 1)
    assert peak is None or 30e6 < peak < 60e6  # 34 MB


def test_the_command(base_folder, tmp_path):
    out = tmp_path / "speed.json"
    options = {
        "--encoder": base_folder("xlmr"),
        "--llm": base_folder("llama"),
        "--dtype": "fp32",
        "--device": "cpu",
        "--threads": "1",
        "--batch-sizes": "2",
        "--json": out,
    }
    command = [sys.executable, BENCHMARKS / "speed.py", "--short"]
    for option in options.items():
        command += option
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "matrix limit" in done.stdout
    report = json.loads(out.read_text())
    assert set(report) == {
        "machine",
        "dtype",
        "settings",
        "matrix_limit",
        "loss_differences",
        "tokenising_seconds",
        "results",
    }
    assert max(report["loss_differences"]["last"].values()) <= 1e-4
    training, scoring = report["results"]
    both = {
        "kind",
        "batch_size",
        "fusion",
        "switches",
        "peak_bytes",
        "memory_ratio",
        "speedup",
        "speedup_over_fp32",
        "palam_tokens_per_second",
        "reference_tokens_per_second",
        "reference_fp32_tokens_per_second",
    }
    assert set(scoring) == both
    assert set(training) - both == {
        "cached_speedup",
        "encoder_share",
        "encoder_share_cached",
        "operations_per_second",
        "share_of_matrix_limit",
        "time_over_last",
    }
    assert both <= set(training)
    assert set(training["switches"]) == {"tokenise", "stack", "logits", "padding", "dropout"}
    assert set(scoring["switches"]) == {"tokenise", "stack", "logits", "padding", "generate"}
    ratios = [training["speedup"], training["share_of_matrix_limit"], *scoring["switches"].values()]
    for ratio in ratios:
        assert set(ratio) == SPREAD
