"""A run's configuration as the arguments of the transformers Trainer."""

import math
from pathlib import Path
from typing import NamedTuple

from palam.errors import PalamError
from palam.models.registry import FUSIONS
from palam.training.config import OptimConfig, TrainConfig
from palam.training.trainer import PalamTrainingArguments
from palam.utils.processes import num_processes


def training_arguments(
    config: TrainConfig,
    *,
    rows: int,
    device: str,
    work: Path,
) -> PalamTrainingArguments:
    """What the trainer is told of a run.

    Args:
        config: of the run.
        rows: of the training data.
        device: the kind of device the model is on, e.g. `"cuda"`.
        work: the folder of the checkpoints.
    """
    optim = config.optim
    steps = RunLength.of(optim, rows).steps
    schedule = "cosine"
    average_from = None
    if optim.average_weights_from is not None:
        schedule = "constant_with_warmup"
        average_from = int(optim.average_weights_from * steps)
    fusion_lr = optim.fusion_lr
    if fusion_lr is None:
        fusion_lr = FUSIONS[config.model.fusion].learning_rate
    rows_per_process = optim.batch_size // num_processes()
    validate_every = "steps" if optim.eval_steps else "epoch"
    return PalamTrainingArguments(
        output_dir=str(work),
        seed=config.runtime.seed,
        report_to=config.runtime.report_to,
        # how long, in which batches
        num_train_epochs=optim.epochs,
        max_steps=optim.max_steps,
        per_device_train_batch_size=rows_per_process,
        per_device_eval_batch_size=2 * rows_per_process,
        gradient_accumulation_steps=optim.gradient_accumulation_steps,
        # the optimiser
        learning_rate=optim.lr,
        fusion_learning_rate=fusion_lr,
        hidden_weight=optim.hidden_weight,
        lr_scheduler_type=schedule,
        warmup_steps=int(optim.warmup * steps),
        average_from=average_from,
        weight_decay=optim.weight_decay,
        adam_beta1=optim.adam_beta1,
        adam_beta2=optim.adam_beta2,
        max_grad_norm=optim.max_grad_norm,
        # validation and checkpoints
        eval_strategy=validate_every,
        eval_steps=optim.eval_steps,
        save_strategy=validate_every,
        save_steps=optim.eval_steps or 500,  # by epochs, the number is not used
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        prediction_loss_only=True,
        # the log
        logging_steps=max(1, min(10, steps // 20)),
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        # the batches' way to the model
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        # several processes: every trained weight has a gradient in each of them
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
    )


def check_batch_size(optim: OptimConfig, processes: int) -> None:
    """Refuse batches that several processes cannot share evenly.

    Args:
        optim: has the batch size, of all processes together.
        processes: how many there are.

    Raises:
        PalamError: the batch size is no multiple of the number of processes.
    """
    batch_size = optim.batch_size
    if batch_size % processes:
        next_size = batch_size + -batch_size % processes
        raise PalamError(
            f"batch_size is {batch_size}, of all processes together; with {processes} processes "
            f"it must be a multiple of {processes}, e.g. {next_size}"
        )


class RunLength(NamedTuple):
    """How long a run is, if it does not stop early."""

    steps: int
    """Of the optimiser."""
    batches: int
    """That are read for them; more than one a step if gradients are accumulated."""

    @classmethod
    def of(cls, optim: OptimConfig, rows: int) -> "RunLength":
        """As the trainer counts it.

        Args:
            optim: batch size, accumulation, and epochs or steps.
            rows: of the training data.
        """
        batches_per_epoch = math.ceil(rows / optim.batch_size)
        steps_per_epoch = math.ceil(batches_per_epoch / optim.gradient_accumulation_steps)
        steps = optim.max_steps
        if steps <= 0:
            steps = math.ceil(steps_per_epoch * optim.epochs)
        whole_epochs, further_steps = divmod(steps, steps_per_epoch)
        # An epoch's last step may have fewer batches than the others.
        further_batches = min(further_steps * optim.gradient_accumulation_steps, batches_per_epoch)
        return cls(steps, whole_epochs * batches_per_epoch + further_batches)
