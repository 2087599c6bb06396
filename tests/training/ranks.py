"""What `torchrun` starts in the tests of several processes: `torchrun … ranks.py JOBS.json`.

Each job is `{"settings": ..., "out": ..., ...}`: a training run, whose record is written to
`<out>.record.<rank>.pt`.
"""

import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch
from transformers import TrainerCallback

from palam.errors import PalamError
from palam.models.modeling import PalamModel
from palam.models.processing import IGNORE
from palam.training.collator import Collator
from palam.training.config import TrainConfig
from palam.training.run import train
from palam.utils.processes import leave_processes, process_index


class Record(TrainerCallback):
    """Keeps the gradient of each step, and stops the run after a step as Ctrl-C does."""

    def __init__(self, stop_at):
        self.stop_at = stop_at
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        self.gradients.append(torch.cat([gradient.flatten() for gradient in gradients]).clone())

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.stop_at:
            raise KeyboardInterrupt


def recorded_batches(batches):
    """Let the collator note the rows of each batch that have labels."""
    collate = Collator.__call__

    def collate_and_note(self, rows):
        learned = [row["row"] for row in rows if any(label != IGNORE for label in row["labels"])]
        batches.append(learned)
        return collate(self, rows)

    Collator.__call__ = collate_and_note
    return collate


def poisoned(row):
    """Let the loss of every batch with this row be infinite."""
    forward = PalamModel.forward

    def forward_with_poison(self, **inputs):
        output = forward(self, **inputs)
        if row in inputs.get("rows", ()) and output.loss is not None:
            output.loss = output.loss * torch.inf
        return output

    PalamModel.forward = forward_with_poison
    return forward


@mock.patch("palam.utils.device.pick_attention", new=mock.Mock(return_value="eager"))
def run(job):
    """Run a job; returns its record.

    Which attention is faster is not measured: a busy machine may find another one in each process.
    """
    batches = []
    record = Record(job.get("stop_at"))
    collate = recorded_batches(batches)
    forward = PalamModel.forward
    if "poison" in job:
        poisoned(job["poison"])
    error = None
    try:
        config = TrainConfig.from_settings(job["settings"])
        train(config, Path(job["out"]), resume=job.get("resume", False), callbacks=[record])
    except (PalamError, KeyboardInterrupt) as stopped:
        error = f"{type(stopped).__name__}: {stopped}"
    finally:
        Collator.__call__ = collate
        PalamModel.forward = forward
    return {
        "batches": batches,
        "gradients": record.gradients,
        "error": error,
        "drawn": torch.rand(1).item(),
    }


def main():
    """Run all jobs."""
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        torch.save(run(job), f"{job['out']}.record.{process_index()}.pt")
    leave_processes()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
