import importlib.util
import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from palam.tasks.registry import get_task

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speed.py"
TASK = get_task("demo")
PROMPT = {"mode": "prompt", "prompt": TASK.prompt, "normalize": "layer"}
SPREAD = {"median", "low", "high"}
FUSIONS = ("last", "mean", "global_softmax", "transformer_softmax", "transformer_softmax:8")


@pytest.fixture(scope="module")
def speed():
    spec = importlib.util.spec_from_file_location("speed", SCRIPT)
    module = sys.modules["speed"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["speed"]


@pytest.fixture
def made(speed, tiny_model):
    """`made("xlmr", "llama", fusion="mean")`: a model in the prompt mode, and the demonstration's rows for it."""

    def build(encoder="xlmr", llm="llama", **options):
        model = tiny_model(encoder, llm, **PROMPT, **options)
        return model, speed.Rows(TASK, model.processor, None)

    return build


def gradients(model, batch):
    model.bridge.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), [
        parameter.grad for parameter in model.bridge.parameters() if parameter.grad is not None
    ]


@pytest.mark.parametrize(
    ("encoder", "llm", "fusion"),
    [("xlmr", "llama", fusion) for fusion in FUSIONS]
    + [("t5", "gpt2", "mean"), ("m2m100", "opt", "global_softmax")],
)
def test_the_exact_switches_leave_loss_scores_and_gradients(speed, made, encoder, llm, fusion):
    fusion, _, rank = fusion.partition(":")
    model, data = made(encoder, llm, fusion=fusion, **({"rank": int(rank)} if rank else {}))
    rows = [3, 1, 4, 15, 92]
    assert len({data.lengths[row][0] for row in rows}) > 2  # so that there are pads
    found = speed.check(model, data, rows)
    assert set(found) == {"off", *speed.EXACT}
    assert found["off"] == 0
    _, expected = gradients(model, data.batch(model, rows))
    for on in (*([name] for name in speed.EXACT), speed.EXACT):
        reference = speed.Reference(model, on).eval()
        _, got = gradients(reference, data.batch(reference, rows))
        for ours, theirs in zip(expected, got, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)


def test_a_reference_that_is_wrong_is_refused(speed, made, monkeypatch):
    model, data = made()
    build_llm_inputs = speed.Reference.build_llm_inputs

    def wrong(self, *args, **kwargs):
        joined = build_llm_inputs(self, *args, **kwargs)
        if "padding" in self.on:
            joined.position_ids = torch.arange(joined.position_ids.shape[1]).expand_as(
                joined.position_ids
            )
        return joined

    monkeypatch.setattr(speed.Reference, "assemble", wrong)
    with pytest.raises(SystemExit, match="padding is off"):
        speed.check(model, data, [3, 1, 4, 15, 92])


@torch.no_grad()
def test_dropout_is_in_the_encoder_in_training_alone(speed, made, base_folder):
    model, data = made(str(base_folder("xlmr", hidden_dropout_prob=0.3)), fusion="mean")
    batch = data.batch(model, range(4))
    plain = model(**batch).loss
    with_dropout = speed.Reference(model, ["dropout"])
    assert (with_dropout.train()(**batch).loss - plain).abs() > 1e-3
    assert with_dropout.eval()(**batch).loss == plain
    with_dropout.train()
    assert speed.Reference(model, ["stack"]).train()(**batch).loss == pytest.approx(
        plain.item(), abs=1e-4
    )
    with_dropout.train()
    assert model.train()(**batch).loss == plain


def test_switches_do_what_they_are_called(speed, made, monkeypatch):
    model, data = made(fusion="mean")
    rows, layers, read = range(3), [], []
    batch = data.batch(model, rows)
    model.bridge.fusion.register_forward_pre_hook(lambda fusion, states: layers.append(states[0]))
    tokenizer = model.processor.encoder_tokenizer
    call = type(tokenizer).__call__
    counted = lambda self, texts, **options: read.append(texts) or call(self, texts, **options)  # noqa: E731
    monkeypatch.setattr(type(tokenizer), "__call__", counted)
    shapes = {}
    for name in ("off", *speed.EXACT):
        reference = speed.Reference(model, {name} - {"off"})
        shapes[name] = reference(**batch).logits.shape[1]
        if name == "stack":
            kept, stacked = reference.kept
            assert len(kept) == len(stacked) == 3
            assert layers[-1][0].data_ptr() == stacked.data_ptr()
    padded = batch["encoder_input_ids"].shape
    assert [states[0].shape[:-1] for states in layers[2:]] == [
        padded,
        layers[0][0].shape[:-1],
        padded,
    ]
    assert shapes["logits"] > shapes["off"] == batch["logits_to_keep"]
    assert shapes["stack"] == shapes["padding"] == shapes["off"]
    read.clear()
    one_by_one = speed.Reference(model, ["tokenise"])
    assert data.batch(one_by_one, rows)["rows"] == [0, 1, 2]
    texts = [[data.texts[row]] for row in rows]
    assert [one for one in read if one in texts] == texts
    said = data.score(speed.Reference(model, speed.SWITCHES["scoring"]), rows, 2)
    assert len(said) == 3
    assert all(isinstance(one, str) for one in said)


@pytest.mark.parametrize(
    ("encoder", "llm"),
    [("bert", "llama"), ("t5", "gpt2"), ("m2m100", "opt"), ("modernbert", "gemma3")],
)
def test_the_arithmetic_is_what_torch_counts(speed, made, encoder, llm):
    model, data = made(encoder, llm, fusion="last", attention="eager")
    batch = data.batch(model, [0])
    text, tokens, answer = data.lengths[0]
    with FlopCounterMode(display=False) as counter:
        loss = model(**batch).loss
        loss.backward()
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


def test_figures_of_two_dtypes(speed, tiny_model, monkeypatch):
    models = [
        {"last": tiny_model("xlmr", "llama", dtype=dtype, **PROMPT)}
        for dtype in (torch.bfloat16, torch.float32)
    ]
    data = speed.Rows(TASK, models[0]["last"].processor, None)
    units = [unit for kind in speed.SWITCHES for unit in speed.variants(kind, "last", models, data)]
    for unit in units:
        wanted = torch.float32 if unit.name == "reference_fp32" else torch.bfloat16
        assert unit.model.llm.dtype == unit.model.encoder.dtype == wanted
        assert sorted(row for part in unit.parts(range(6), 2) for row in part) == list(range(6))
    ran = []

    def seconds(unit, part, size):
        ran.append((unit.kind, unit.name))
        known = {
            "palam": 1.0,
            "reference": 3.0,
            "reference_fp32": 6.0,
            "cached": 0.8,
            "encoder": 0.25,
        }
        return known.get(unit.name, 2.0) * len(part)

    monkeypatch.setattr(speed.Unit, "seconds", seconds)
    monkeypatch.setattr(
        speed.Unit, "peak", lambda unit, part, size: 10 if unit.name == "palam" else 40
    )
    ticks = []
    args = Namespace(repeats=2, steps=3, matmuls=0)
    (training, scoring), products = speed.measure(units, 2, args, lambda: ticks.append(1))
    assert len(ticks) == 9
    assert products == []
    assert ran.count(("training", "palam")) == 3 * 3  # a pass warms up
    assert ran.count(("scoring", "reference")) == 3
    for one in (training, scoring):
        figures = one["speedup"], one["speedup_over_fp32"], *one["switches"].values()
        assert [figure["median"] for figure in figures] == [3, 6, *[2] * 5]
        assert one["memory_ratio"] == 0.25
    rows = list(speed.LengthGroupedSampler(data.dataset, 2, 0))[:6]
    lengths = [data.lengths[row] for row in rows]
    assert (
        training["palam_tokens_per_second"]["low"]
        == sum(text + tokens for text, tokens, _ in lengths) / 6
    )
    assert (
        scoring["palam_tokens_per_second"]["low"]
        == sum(a + b - answer for a, b, answer in lengths) / 6
    )
    assert (
        training["operations_per_second"]["high"]
        == speed.arithmetic(models[0]["last"], lengths) / 6
    )
    assert training["time_over_last"]["median"] == 1
    shares = (
        "cached_speedup",
        "encoder_share",
        "encoder_share_cached",
    )  # 0.75 is not the encoder's, so 0.05 of 0.8 is
    assert [training[key]["median"] for key in shares] == pytest.approx([1.25, 0.25, 0.0625])
    with monkeypatch.context() as patch:  # every text of the measured rows is kept
        patch.setattr(
            models[0]["last"].encoder, "forward", lambda *args, **kwargs: pytest.fail("read again")
        )
        cached = next(unit for unit in units if unit.name == "cached")
        cached.model(**data.batch(cached.model, rows))


def test_compiled_layers_are_palams_alone(speed, made):
    model, data = made(fusion="mean")
    model.compiled = [(model.llm, model.llm.forward)]
    units = speed.variants("training", "mean", [{"mean": model}], data)
    compiled = {unit.name for unit in units if unit.model.compiled}
    assert compiled == {"palam", "cached", *speed.SWITCHES["training"]}
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
    command = [
        sys.executable,
        SCRIPT,
        "--short",
        "--encoder",
        base_folder("xlmr"),
        "--llm",
        base_folder("llama"),
    ]
    command += [
        "--dtype",
        "fp32",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--batch-sizes",
        "2",
        "--json",
        out,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "matrix limit" in done.stdout
    report = json.loads(out.read_text())
    keys = {
        "machine",
        "dtype",
        "settings",
        "matrix_limit",
        "loss_differences",
        "tokenising_seconds",
        "results",
    }
    assert set(report) == keys
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
    }
    both |= {f"{name}_tokens_per_second" for name in ("palam", "reference", "reference_fp32")}
    assert set(scoring) == both
    cached = {"cached_speedup", "encoder_share", "encoder_share_cached"}
    assert set(training) == both | cached | {
        "operations_per_second",
        "share_of_matrix_limit",
        "time_over_last",
    }
    assert set(training["switches"]) == {"tokenise", "stack", "logits", "padding", "dropout"}
    assert set(scoring["switches"]) == {"tokenise", "stack", "logits", "padding", "generate"}
    for one in (
        training["speedup"],
        training["share_of_matrix_limit"],
        *scoring["switches"].values(),
    ):
        assert set(one) == SPREAD
