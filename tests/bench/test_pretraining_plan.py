"""The plan of a run on raw text is that of the rows that the run has."""

import pytest
import tiny

from palam.bench.device_memory import Device
from palam.bench.pretraining_plan import SAMPLE_ROWS, plan_pretraining, spread_sample
from palam.training.config import TrainConfig
from palam.training.distillation import MAX_ANSWER_TOKENS
from palam.training.run import train

WORDS = tiny.TEXT["en"].split()
HARDWARE = Device(rate=1e9)


@pytest.fixture(autouse=True)
def plain_attention(monkeypatch):
    """What is faster is measured, which a busy machine may upset."""
    monkeypatch.setattr("palam.utils.device.pick_attention", lambda device, dtype: "eager")


@pytest.fixture
def config(base_folder, tmp_path):
    """`config(lines, **settings)`: of a run on these lines."""

    def build(lines, **settings):
        path = tmp_path / "english.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return TrainConfig.from_settings(
            {
                "encoder": str(base_folder("bert")),
                "llm": str(base_folder("llama")),
                "device": "cpu",
                "dtype": "fp32",
                "batch_size": 4,
                "epochs": 2,
                "text_file": path,
                "objectives": {"repeat": 1},
                **settings,
            }
        )

    return build


def lines_of(count, words=12):
    return [" ".join(WORDS[start : start + words]) for start in range(count)]


def test_shorter_texts_are_fewer_tokens(config):
    lines = lines_of(30)
    whole = plan_pretraining(config(lines), HARDWARE)
    cut = plan_pretraining(config(lines, max_length=8), HARDWARE)
    assert cut.tokens < whole.tokens
    assert cut.length == whole.length


def test_a_second_encoder_adds_no_tokens_to_a_text(config, base_folder):
    lines = lines_of(30)
    one = plan_pretraining(config(lines), HARDWARE)
    two = plan_pretraining(config(lines, second_encoder=str(base_folder("xlmr"))), HARDWARE)
    assert two.tokens == one.tokens
    assert two.operations["encoder"] > one.operations["encoder"]


def test_the_chat_is_planned_with_its_system_prompt(config):
    lines = lines_of(200)
    chat = {"mode": "chat", "prompt": "{text}"}
    short = plan_pretraining(config(lines, **chat), HARDWARE)
    long_prompt = " ".join(WORDS)
    long = plan_pretraining(config(lines, **chat, system_prompt=long_prompt), HARDWARE)
    assert long.tokens > short.tokens


def test_the_steps_are_those_of_the_run(config, tmp_path):
    lines = [line for text in lines_of(20) for line in (WORDS[0], text)]
    configured = config(lines, init="random")
    planned = plan_pretraining(configured, HARDWARE)
    train(configured, tmp_path / "bridge")
    log = (tmp_path / "bridge" / "log.jsonl").read_text(encoding="utf-8")
    assert f'"step": {planned.length.steps}' in log
    assert f'"step": {planned.length.steps + 1}' not in log
    assert planned.rows == 19


def test_lines_of_one_word_at_the_beginning_are_no_matter(config):
    lines = [WORDS[0]] * (SAMPLE_ROWS + 88) + lines_of(30)
    assert plan_pretraining(config(lines, max_eval_samples=2), HARDWARE).rows == 29


def test_answers_to_prompts_are_planned(config, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("{text} Topic:\n", encoding="utf-8")
    answering = {"objectives": {"answer": 1}, "distill": True, "prompts_file": prompts}
    planned = plan_pretraining(config(lines_of(30), **answering), HARDWARE)
    assert planned.rows == 29
    assert planned.answer_tokens == MAX_ANSWER_TOKENS + 1  # and its end


def test_a_sample_is_spread_over_all():
    assert spread_sample(range(10), 4) == [0, 2, 5, 7]
    assert spread_sample(range(3), 4) == [0, 1, 2]
    assert spread_sample([], 4) == []
