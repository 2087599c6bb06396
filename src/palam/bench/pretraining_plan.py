"""What the training of a general bridge will need, by the text that it will read."""

import statistics
from dataclasses import replace

from palam.bench.device_memory import Device
from palam.bench.plan import ANY_DEVICE, Plan, plan
from palam.models.backbones.loading import load_tokenizer
from palam.models.processing import IGNORE, PalamProcessor
from palam.models.template import Template
from palam.training.build import build_dataset
from palam.training.config import TrainConfig
from palam.training.data import read_training_data
from palam.training.datasets import Features

SAMPLE_ROWS = 512
"""So many rows are tokenised to find how long one is."""


def plan_pretraining(config: TrainConfig, hardware: Device = ANY_DEVICE) -> Plan:
    """Memory, arithmetic and time of a run on raw text, found without weights.

    Args:
        config: of the run.
        hardware: what it is planned for.

    Raises:
        PalamError: text that cannot be read, or base models that cannot be found or used.
    """
    seed = config.runtime.seed
    data = read_training_data(config.data, seed=seed, prompt=config.model.prompt)
    sample = replace(data, train=data.train[:SAMPLE_ROWS])
    dataset = build_dataset(config, sample, sample.train, _processor(config))
    rows = [dataset[index] for index in range(len(dataset))]
    answers = [_answer_tokens(row) for row in rows]
    return plan(
        config.model,
        config.optim,
        config.runtime,
        rows=len(data.train),
        text_tokens=_mean([len(row["encoder_input_ids"]) for row in rows]),
        prompt_tokens=_mean(
            [len(row["input_ids"]) - 1 - count for row, count in zip(rows, answers, strict=True)]
        ),
        answer_tokens=_mean(answers),
        hardware=hardware,
    )


def _processor(config: TrainConfig) -> PalamProcessor:
    """A processor of the two tokenizers, without their models."""
    model = config.model
    llm_tokenizer = load_tokenizer(model.llm, model.llm_revision)
    return PalamProcessor(
        load_tokenizer(model.encoder, model.encoder_revision),
        llm_tokenizer,
        template=Template.build(model.mode, model.prompt, llm_tokenizer),
    )


def _answer_tokens(row: Features) -> int:
    return sum(label != IGNORE for label in row["labels"])


def _mean(counts: list[int]) -> int:
    return max(1, round(statistics.fmean(counts)))
