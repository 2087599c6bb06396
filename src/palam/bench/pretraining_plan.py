"""What the training of a general bridge will need, by the text that it will read."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from palam.bench.device_memory import Device
from palam.bench.plan import ANY_DEVICE, Plan, plan
from palam.models.new_processor import build_processor
from palam.models.processing import count_labels
from palam.training.build import build_dataset, with_prompt_of
from palam.training.config import TrainConfig
from palam.training.data import read_training_data
from palam.training.datasets import Features
from palam.training.distillation import MAX_ANSWER_TOKENS, prompted_features, rows_by_prompt
from palam.training.raw_text import RawTextDataset, is_learned

SAMPLE_ROWS = 512
"""So many rows are tokenised to find how long one is."""

Item = TypeVar("Item")


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
    learned = [example for example in data.train if is_learned(example.fields["text"])]
    sample = replace(data, train=spread_sample(learned, SAMPLE_ROWS))
    processor = build_processor(with_prompt_of(config.model, data))
    dataset = build_dataset(config, sample, sample.train, processor)
    assert isinstance(dataset, RawTextDataset)
    if config.optim.prompts_file is not None:
        assume_answers(dataset, config.optim.prompts_file, config)
    rows = [dataset[index] for index in range(len(dataset))]
    answers = [count_labels(row["labels"]) for row in rows]
    return plan(
        config.model,
        config.optim,
        config.runtime,
        rows=len(learned),
        text_tokens=_mean([_text_tokens(row) for row in rows]),
        prompt_tokens=_mean(
            [len(row["input_ids"]) - 1 - count for row, count in zip(rows, answers, strict=True)]
        ),
        answer_tokens=_mean(answers),
        hardware=hardware,
    )


def assume_answers(dataset: RawTextDataset, prompts_file: Path, config: TrainConfig) -> None:
    """Give each text the longest answer to its prompt that the LLM may give.

    Args:
        dataset: its source's `prompted` rows are filled in.
        prompts_file: the prompts.
        config: of the run.

    Raises:
        PalamError: a file without prompts, or a prompt without its slot.
    """
    source = dataset.source
    answer = [0] * MAX_ANSWER_TOKENS
    num_texts = len(dataset.texts)
    for prompt, rows in rows_by_prompt(prompts_file, num_texts, config.runtime.seed).items():
        template = source.processor.template.with_prompt(
            config.model.mode, prompt, source.processor.llm_tokenizer
        )
        processor = source.processor.with_template(template)
        texts = [dataset.texts[row] for row in rows]
        languages = [source.language] * len(texts)
        features = prompted_features(processor, texts, [answer] * len(texts), languages)
        source.prompted.update(zip(rows, features, strict=True))
    dataset.set_epoch(0)


def spread_sample(items: Sequence[Item], count: int) -> list[Item]:
    """So many items, evenly spread over all of them; all, if there are fewer.

    Args:
        items: to choose from.
        count: how many.
    """
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _text_tokens(row: Features) -> int:
    """Those of the first encoder, of which each becomes a vector that the LLM reads."""
    return sum(token_id >= 0 for token_id in row["encoder_input_ids"])


def _mean(counts: list[int]) -> int:
    return max(1, round(statistics.fmean(counts)))
