"""A thin subclass of the transformers Trainer: only the bridge is saved, and a folder appears whole or not at all."""

import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState, PrinterCallback, TrainerState
from transformers.trainer_utils import TrainOutput

from palam.errors import PalamError
from palam.models.checkpoint import ADAPTER_FOLDER
from palam.models.modeling import PalamModel
from palam.models.processing import IGNORE
from palam.training.averaging import AveragedAdamW
from palam.training.collator import Collator
from palam.training.sampler import LengthGroupedSampler
from palam.utils.files import atomic_directory

STATE = "trainer_state.json"
PREFIX = "checkpoint-"


@dataclass
class PalamTrainingArguments(TrainingArguments):
    """The library's training arguments, and those of a bridge.

    Args:
        mixing_learning_rate: learning rate of the fusion's own weights; None is that of the mapper.
        average_from: take the mean of the weights since this step, see [`AveragedAdamW`]; None takes the weights.
    """

    fusion_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the fusion"}
    )
    average_from: int | None = field(
        default=None, metadata={"help": "first step of the mean of the weights"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self._n_gpu = min(
            self._n_gpu, 1
        )  # torch's DataParallel cannot split a batch that names its rows


class NonFiniteLoss(PalamError):
    """The loss or a gradient is not a finite number; names the rows of the batch."""


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The last complete checkpoint of a run, or None. A folder being written has another name until it is whole."""
    found = [state.parent for state in Path(folder).glob(f"{PREFIX}*/{STATE}")]
    found = [path for path in found if path.name.removeprefix(PREFIX).isdigit()]
    return max(found, key=lambda path: int(path.name.removeprefix(PREFIX)), default=None)


class PalamTrainer(Trainer):
    """Trains the bridge of a [`PalamModel`].

    Args:
        model: its bases are frozen; what requires a gradient is trained.
        args: [`PalamTrainingArguments`].
        **kwargs: of the library's Trainer; `train_dataset` has `lengths`, see `palam.training.data`.
    """

    model: Any
    args: Any
    state: Any

    def __init__(self, model: PalamModel, args: PalamTrainingArguments, **kwargs: Any) -> None:
        super().__init__(model=model, args=args, data_collator=Collator(model.processor), **kwargs)
        self.remove_callback(PrinterCallback)
        self.tokens = 0
        self._since = (time.perf_counter(), 0)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """The library's; from the last checkpoint of a run that had come to its end, only the best weights are taken.

        Raises:
            NonFiniteLoss: a loss or gradient is not finite; the checkpoints stay as they are.
        """
        if resume_from_checkpoint:
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / STATE))
            if state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
                self.state = state
                self._load_best_model()
                return TrainOutput(state.global_step, math.nan, {})
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        rows = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(train_dataset or self.train_dataset, rows, self.args.seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the fusion's weights at their own rate; no weight decay on vectors."""
        if self.optimizer is None:
            args = self.args
            mixing = {id(parameter) for parameter in self.model.bridge.fusion.parameters()}
            rate = (
                args.learning_rate
                if args.fusion_learning_rate is None
                else args.fusion_learning_rate
            )
            groups: dict[tuple[float, float], list[nn.Parameter]] = {}
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    lr = rate if id(parameter) in mixing else args.learning_rate
                    decay = args.weight_decay if parameter.ndim > 1 else 0.0
                    groups.setdefault((lr, decay), []).append(parameter)
            kind, settings = self.get_optimizer_cls_and_kwargs(args, self.model)
            if args.average_from is not None:
                kind, settings = AveragedAdamW, settings | {"start": args.average_from}
            parts = [
                {"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()
            ]
            self.optimizer = kind(parts, **settings)
        return self.optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The library's step; stops the run at the first loss or gradient that is not finite."""
        self.tokens += sum(
            int(mask.sum()) for name, mask in inputs.items() if name.endswith("attention_mask")
        )
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not loss.isfinite() or not all(
            bool(gradient.isfinite().all()) for gradient in gradients
        ):
            raise NonFiniteLoss(
                f"the loss or its gradient is not finite at step {self.state.global_step + 1}, training rows "
                f"{inputs['rows']}; nothing of this step was kept: look at these rows, or lower the learning rate"
            )
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The library's; with a `teacher`, KL(the LLM reading the text itself ‖ through the bridge) per label."""
        teacher = inputs.pop("teacher", None)
        if teacher is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels, keep = inputs.pop("labels"), inputs["logits_to_keep"]
        with torch.no_grad():
            wanted = model(**teacher, logits_to_keep=keep).logits
        output = model(**inputs)
        at = labels[:, -keep:][:, 1:] != IGNORE
        ours, theirs = (
            logits[:, :-1][at].float().log_softmax(-1) for logits in (output.logits, wanted)
        )
        total = F.kl_div(ours, theirs, log_target=True, reduction="sum")
        loss = total / (at.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add real tokens per second since the last entry; stop at a validation loss that is not finite."""
        now, (then, tokens) = time.perf_counter(), self._since
        if "loss" in logs:
            logs["tokens_per_second"] = round((self.tokens - tokens) / max(now - then, 1e-9), 1)
        self._since = (now, self.tokens)
        if not math.isfinite(logs.get("eval_loss", 0.0)):
            raise NonFiniteLoss(
                f"the validation loss is not finite after step {self.state.global_step}: lower the learning rate"
            )
        super().log(logs, *args, **kwargs)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        self.model.save_pretrained(output_dir or self.args.output_dir)

    def _checkpoint(self, step: int | None) -> Path:
        return Path(self.args.output_dir) / f"{PREFIX}{step or self.state.global_step}"

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        if not self.args.should_save:
            return
        folder, best = self._checkpoint(None), self._checkpoint(self.state.best_global_step)
        self.state.best_model_checkpoint = str(best)
        shutil.rmtree(folder, ignore_errors=True)  # one that was left incomplete
        with atomic_directory(folder, marker=STATE) as aside:
            self.model.write(aside)
            self._save_optimizer_and_scheduler(str(aside))
            self._save_scaler(str(aside))
            self._save_rng_state(str(aside))
            for callback in [*self.callback_handler.callbacks, self.control]:
                if isinstance(callback, ExportableState):
                    self.state.stateful_callbacks[type(callback).__name__] = callback.state()
            self.state.save_to_json(str(aside / STATE))
        for old in folder.parent.glob(f"{PREFIX}*"):
            if old not in (folder, best):
                shutil.rmtree(old, ignore_errors=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._load_weights(self._checkpoint(self.state.best_global_step))

    def _load_weights(self, folder: Path) -> None:
        self.model.bridge.load_state_dict(load_file(folder / "model.safetensors"))
        if self.model.config.adapter:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(
                self.model.llm, load_file(folder / ADAPTER_FOLDER / "adapter_model.safetensors")
            )
