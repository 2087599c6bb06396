"""How long a run is: what is told before, and what the trainer then does."""

import pytest
from helpers import read_jsonl
from transformers import TrainerCallback

from palam.training.arguments import RunLength
from palam.training.config import OptimConfig
from palam.training.data import read_training_data
from palam.training.run import train


class CountedBatches(TrainerCallback):
    """Counts the batches whose gradients are computed."""

    def __init__(self):
        self.batches = 0

    def on_substep_end(self, args, state, control, **kwargs):
        self.batches += 1

    def on_step_end(self, args, state, control, **kwargs):
        self.batches += 1


@pytest.mark.parametrize(
    "length",
    [
        {"epochs": 2},
        {"epochs": 1.3},
        {"epochs": 0.4},
        {"epochs": 2, "gradient_accumulation_steps": 3},
        {"epochs": 1.3, "gradient_accumulation_steps": 3},
        {"max_steps": 3},
        {"max_steps": 5, "gradient_accumulation_steps": 3},
    ],
)
def test_a_run_has_the_steps_and_batches_that_were_told(settings, bases, tmp_path, length):
    config = settings("answers", batch_size=4, **{"max_steps": -1, **length})
    data = read_training_data(config.data, seed=config.runtime.seed, prompt=config.model.prompt)
    counted = CountedBatches()
    train(config, tmp_path / "out", bases=bases, callbacks=[counted])
    last_step = max(entry["step"] for entry in read_jsonl(tmp_path / "out" / "log.jsonl"))
    assert RunLength.of(config.optim, len(data.train)) == (last_step, counted.batches)


def test_no_row_is_counted_twice_where_an_epochs_last_step_is_short():
    optim = OptimConfig(batch_size=4, gradient_accumulation_steps=3, epochs=2)
    # 4 batches an epoch: a step of three and one of one
    assert RunLength.of(optim, 15) == (4, 8)
