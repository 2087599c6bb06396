"""A thin subclass of the transformers Trainer: only the bridge is saved, and a folder appears whole or not at all."""

import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState, PrinterCallback, TrainerState
from transformers.trainer_utils import set_seed

from palam.errors import PalamError
from palam.files import replacing
from palam.model import ADAPTER, PalamModel
from palam.training.data import Collator, LengthGroupedSampler

STATE = "trainer_state.json"
PREFIX = "checkpoint-"


@dataclass
class PalamTrainingArguments(TrainingArguments):  # type: ignore[misc]
    """The library's training arguments, and those of a bridge.

    Args:
        mixing_learning_rate: learning rate of the fusion's own weights; None is that of the mapper.
    """

    mixing_learning_rate: float | None = field(default=None, metadata={"help": "learning rate of the fusion"})


class NonFiniteLoss(PalamError):
    """The loss or a gradient is not a finite number; names the rows of the batch."""


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The last complete checkpoint of a run, or None. A folder being written has another name until it is whole."""
    found = [
        path
        for path in Path(folder).glob(f"{PREFIX}*")
        if path.name.removeprefix(PREFIX).isdigit() and (path / STATE).is_file()
    ]
    return max(found, key=lambda path: int(path.name.removeprefix(PREFIX)), default=None)


class PalamTrainer(Trainer):  # type: ignore[misc]
    """Trains the bridge of a [`PalamModel`].

    Args:
        model: its bases are frozen; what requires a gradient is trained.
        args: [`PalamTrainingArguments`].
        train_dataset: with `lengths`; see `palam.training.data`.
        eval_dataset: English validation data, or None.
        **kwargs: of the library's Trainer.
    """

    def __init__(
        self,
        model: PalamModel,
        args: PalamTrainingArguments,
        train_dataset: Any,
        eval_dataset: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(model.processor),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            **kwargs,
        )
        self.remove_callback(PrinterCallback)
        self.tokens = 0
        self._since = (time.perf_counter(), 0)

    # -- data and optimiser ---------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        data = train_dataset if train_dataset is not None else self.train_dataset
        return LengthGroupedSampler(data.lengths, self.args.per_device_train_batch_size, self.args.seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the fusion's weights at their own rate; no weight decay on vectors."""
        if self.optimizer is None:
            args = self.args
            mixing = {id(parameter) for parameter in self.model.bridge.fusion.parameters()}
            rate = args.learning_rate if args.mixing_learning_rate is None else args.mixing_learning_rate
            groups: dict[tuple[float, float], list[nn.Parameter]] = {}
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    key = (
                        rate if id(parameter) in mixing else args.learning_rate,
                        args.weight_decay if parameter.ndim > 1 else 0.0,
                    )
                    groups.setdefault(key, []).append(parameter)
            kind, settings = self.get_optimizer_cls_and_kwargs(args, self.model)
            self.optimizer = kind(
                [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()], **settings
            )
        return self.optimizer

    # -- steps ----------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """The library's step; stops the run at the first loss or gradient that is not finite."""
        self.tokens += int(inputs["attention_mask"].sum()) + int(inputs["encoder_attention_mask"].sum())
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not loss.isfinite() or not all(bool(gradient.isfinite().all()) for gradient in gradients):
            raise NonFiniteLoss(
                f"the loss or its gradient is not finite at step {self.state.global_step + 1}, training rows "
                f"{inputs['rows']}; nothing of this step was kept: look at these rows, or lower the learning rate"
            )
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add real tokens per second since the last entry."""
        now, (then, tokens) = time.perf_counter(), self._since
        if "loss" in logs:
            logs["tokens_per_second"] = round((self.tokens - tokens) / max(now - then, 1e-9), 1)
        self._since = (now, self.tokens)
        super().log(logs, *args, **kwargs)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        self.model.save_pretrained(output_dir or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        if not self.args.should_save:
            return
        run = Path(self.args.output_dir)
        folder = run / f"{PREFIX}{self.state.global_step}"
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(run / f"{PREFIX}{self.state.best_global_step}")
        with replacing(folder, marker=STATE) as aside:
            self.model.write(aside)
            self._save_optimizer_and_scheduler(str(aside))
            self._save_scaler(str(aside))
            self._save_rng_state(str(aside))
            for callback in [*self.callback_handler.callbacks, self.control]:
                if isinstance(callback, ExportableState):
                    self.state.stateful_callbacks[type(callback).__name__] = callback.state()
            self.state.save_to_json(str(aside / STATE))
        keep = {folder, Path(self.state.best_model_checkpoint or folder)}
        for old in run.glob(f"{PREFIX}*"):
            if old not in keep:
                shutil.rmtree(old, ignore_errors=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._load_weights(Path(self.state.best_model_checkpoint))

    def _load_weights(self, folder: Path) -> None:
        self.model.bridge.load_state_dict(load_file(folder / "model.safetensors"))
        if self.model.config.adapter:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.model.llm, load_file(folder / ADAPTER / "adapter_model.safetensors"))


def resumed_state(folder: Path) -> TrainerState:
    """The state that a checkpoint resumes from."""
    return TrainerState.load_from_json(str(folder / STATE))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    set_seed(seed)
    random.seed(seed)
