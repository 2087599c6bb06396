"""A thin subclass of the transformers Trainer.

Only the bridge is saved, a folder appears whole or not at all, and a loss that is not finite stops
the run. Several processes compute what one computes: a step has the same rows and the same loss,
and the first process writes.
"""

import json
import math
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import ExportableState, PrinterCallback, TrainerState
from transformers.trainer_utils import TrainOutput

from palam.errors import PalamError
from palam.models.checkpoint import ADAPTER_FOLDER
from palam.models.finite import HINTS, check_finite, is_finite
from palam.models.modeling import PalamModel, answer_loss
from palam.models.processing import IGNORE
from palam.training.averaging import AveragedAdamW
from palam.training.checksums import is_whole, write_checksums
from palam.training.distillation import distillation_loss, hidden_distance
from palam.training.read_texts import ReadTexts
from palam.training.sampler import FilledDataset, LengthGroupedSampler, WholeBatches
from palam.utils.files import atomic_directory
from palam.utils.processes import any_process, gather, is_main, process_index, wait_for_all

STATE_FILE = "trainer_state.json"
TEXTS_FILE = "read_texts.json"
CHECKPOINT_PREFIX = "checkpoint-"
STARTER_EMBEDDING_RMS = 0.13595983386039734
"""Root mean square of the starter LLM's input embeddings: the learning rate is in its units."""


@dataclass
class PalamTrainingArguments(TrainingArguments):
    """The library's training arguments, and those of a bridge.

    Args:
        fusion_learning_rate: learning rate of the fusion's own weights; None is that of the mapper.
        hidden_weight: weight of [`hidden_distance`] in the loss of taught rows.
        average_from: take the mean of the weights since this step, see [`AveragedAdamW`]; None
            takes the weights themselves.
    """

    fusion_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the fusion"}
    )
    hidden_weight: float = field(
        default=0.0, metadata={"help": "weight of the hidden states' distance"}
    )
    average_from: int | None = field(
        default=None, metadata={"help": "first step of the mean of the weights"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        # The library looks for labels among the names of `forward`'s parameters.
        self.label_names = self.label_names or ["labels"]
        # torch's DataParallel cannot split a batch that names its rows.
        self._n_gpu = min(self._n_gpu, 1)


class NonFiniteLoss(PalamError):
    """The loss or a gradient is not a finite number; names the rows of the batch."""


def embedding_units(embedding_rms: float) -> float:
    """By how much the output of a mapper is larger than with the starter LLM.

    AdamW moves every weight by about its learning rate, whatever the size of the gradient. With
    this factor on the rate, the mapper's output moves by the same share of the LLM's embeddings in
    a step, whatever their size.

    Args:
        embedding_rms: of [`PalamConfig`].

    Returns:
        The quotient of the two sizes, to three digits; 1 where the size is not known.
    """
    if not 0 < embedding_rms < math.inf:
        return 1.0
    return float(f"{embedding_rms / STARTER_EMBEDDING_RMS:.3g}")


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a run, damaged ones too, the newest first.

    A folder that is being written has another name until it is whole.
    """
    by_step = {}
    for checkpoint in Path(folder).glob(f"{CHECKPOINT_PREFIX}*"):
        step = checkpoint.name.removeprefix(CHECKPOINT_PREFIX)
        if step.isdecimal():
            by_step[int(step)] = checkpoint
    return [by_step[step] for step in sorted(by_step, reverse=True)]


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The last checkpoint of a run from which it can be resumed, or None.

    All of its files are as they were written, and those of the best one before it too.
    """
    for checkpoint in checkpoints(folder):
        if is_whole(checkpoint) and is_whole(_best_as_of(checkpoint)):
            return checkpoint
    return None


def _best_as_of(checkpoint: Path) -> Path:
    """The best checkpoint at the time when a whole one was written; often itself."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    step = state.get("best_global_step")
    return checkpoint.with_name(f"{CHECKPOINT_PREFIX}{step}") if step else checkpoint


class PalamTrainer(Trainer):
    """Trains the bridge of a [`PalamModel`].

    Args:
        model: its base models are frozen; what requires a gradient is trained.
        args: [`PalamTrainingArguments`].
        **kwargs: of the library's Trainer; `train_dataset` is a [`TrainingDataset`].

    Attributes:
        read_texts: counts the texts of the batches that were trained on and validated on; once
            `train` has returned, the processor's statistics are of these.
    """

    model: Any
    args: Any
    state: Any
    train_dataset: Any

    def __init__(
        self,
        model: PalamModel,
        args: PalamTrainingArguments,
        **kwargs: Any,
    ) -> None:
        self.read_texts = ReadTexts(model.processor)
        if args.world_size > 1:
            kwargs["train_dataset"] = FilledDataset(kwargs["train_dataset"])
            kwargs["eval_dataset"] = FilledDataset(kwargs["eval_dataset"])
            _leave_out_frozen_weights(model)
        super().__init__(model=model, args=args, data_collator=self.read_texts, **kwargs)
        if not is_main():  # each process draws its own dropout
            set_seed(args.seed + process_index())
        self.remove_callback(PrinterCallback)
        self.tokens = 0
        self._logged_tokens = 0
        self._logged_at = time.perf_counter()

    # ------------------------------------------------------------------ steps
    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """The library's; of a run that had come to its end, only the best weights are loaded.

        Args:
            resume_from_checkpoint: folder of the checkpoint to resume from, or None.
            *args, **kwargs: of the library's.

        Raises:
            NonFiniteLoss: a loss or gradient is not finite; the checkpoints stay as they are.
        """
        if resume_from_checkpoint:
            checkpoint = Path(resume_from_checkpoint)
            self.read_texts.load(checkpoint / TEXTS_FILE)
            state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
            control = state.stateful_callbacks["TrainerControl"]["args"]
            if control["should_training_stop"]:
                self.state = state
                self._load_best_model()
                self.read_texts.settle()
                return TrainOutput(state.global_step, math.nan, {})
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        self.read_texts.settle()
        return output

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        args = self.args
        dataset = train_dataset or self.train_dataset
        rows_per_batch = args.per_device_train_batch_size * args.world_size
        rows_per_step = rows_per_batch * args.gradient_accumulation_steps
        if args.world_size == 1:
            return LengthGroupedSampler(dataset, rows_per_step, args.seed)
        return LengthGroupedSampler(dataset.rows, rows_per_step, args.seed, rows_per_batch)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        args = self.args
        if args.world_size == 1:
            return super()._get_eval_sampler(eval_dataset)
        rows_per_batch = args.per_device_eval_batch_size * args.world_size
        return WholeBatches(len(eval_dataset), rows_per_batch)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the fusion's weights at their own rate; no weight decay on vectors.

        The rate of the mapper's readout and the boundary is in units of the LLM's embeddings, see
        [`embedding_units`].
        """
        if self.optimizer is None:
            args = self.args
            groups = self._parameter_groups()
            adamw, settings = self.get_optimizer_cls_and_kwargs(args, self.model)
            if args.average_from is None:
                self.optimizer = adamw(groups, **settings)
            else:
                self.optimizer = AveragedAdamW(groups, start=args.average_from, **settings)
        return self.optimizer

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained, by learning rate and weight decay."""
        args = self.args
        special_rates = self._special_rates()
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                continue
            rate = special_rates.get(id(parameter), args.learning_rate)
            decay = args.weight_decay if parameter.ndim > 1 else 0.0
            group = groups.setdefault(
                (rate, decay),
                {"params": [], "lr": rate, "weight_decay": decay},
            )
            group["params"].append(parameter)
        return list(groups.values())

    def _special_rates(self) -> dict[int, float]:
        """The learning rates of the weights that have another than the rest, by their `id`."""
        args = self.args
        bridge = self.model.bridge
        output_rate = args.learning_rate * embedding_units(self.model.config.embedding_rms)
        rates = {id(bridge.boundary): output_rate}
        for parameter in bridge.mapper.readout.parameters():
            rates[id(parameter)] = output_rate
        if args.fusion_learning_rate is not None:
            for parameter in bridge.fusion_weights():
                rates[id(parameter)] = args.fusion_learning_rate
        return rates

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The library's step; stops the run at the first loss or gradient that is not finite."""
        self.read_texts.use(inputs)
        for name, value in inputs.items():
            if name.endswith("attention_mask"):
                self.tokens += int(value.sum())
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        finite = bool(loss.isfinite()) and self._gradients_are_finite()
        if any_process(not finite):
            raise self._non_finite_loss(inputs, loss)
        return loss

    def _non_finite_loss(self, inputs: dict[str, Any], loss: Tensor) -> "NonFiniteLoss":
        """The error of a step whose loss or gradient is not finite, the same in every process.

        Args:
            inputs: this process's batch.
            loss: of that batch.
        """
        overflow = self._overflow(inputs)
        overflows = [message for message in gather(overflow) if message is not None]
        if overflows:
            return NonFiniteLoss(f"{overflows[0]}; nothing of this step was kept")
        # Gradients are added up over the processes, losses are not.
        batches = gather((bool(loss.isfinite()), inputs["rows"]))
        blamed = [rows for loss_is_finite, rows in batches if not loss_is_finite]
        if not blamed:
            blamed = [rows for _, rows in batches]
        rows = [row for batch_rows in blamed for row in batch_rows]
        return NonFiniteLoss(
            f"the loss or its gradient is not finite at step {self.state.global_step + 1}, "
            f"training rows {rows}; nothing of this step was kept: "
            f"look at these rows, or lower the learning rate{self._dtype_hint()}"
        )

    def _overflow(self, inputs: dict[str, Any]) -> str | None:
        """What to say if it is the LLM whose numbers overflow in its dtype; else None.

        What the LLM computes in 16 bits is then not finite, and what it reads is. (The encoder's
        states are checked wherever it reads.)

        Args:
            inputs: the batch whose loss or gradient is not finite.
        """
        model = self.model
        if model.llm.dtype not in HINTS or model.shards_llm or not is_finite(model.bridge.boundary):
            return None
        batch = self._prepare_inputs(inputs)
        batch.pop("teacher", None)
        batch.pop("taught", None)
        try:
            with torch.no_grad():
                text_ids = batch.get("encoder_input_ids")
                if text_ids is not None:
                    mapped = model.encoding.mapped(text_ids, batch["encoder_attention_mask"])
                    if not is_finite(mapped):
                        return None
                logits = model(**batch).logits
            check_finite(logits, "the LLM's logits", model.llm.dtype)
        except PalamError as error:
            return str(error)
        return None

    def _dtype_hint(self) -> str:
        """What a message adds where the base models compute in 16 bits; else nothing."""
        hint = HINTS.get(self.model.llm.dtype)
        return f"; the numbers may also have overflowed {hint}" if hint else ""

    def _gradients_are_finite(self) -> bool:
        for parameter in self.model.parameters():
            gradient = parameter.grad
            if gradient is not None and not gradient.isfinite().all():
                return False
        return True

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The library's; where rows of the batch are taught, with [`distillation_loss`] and
        [`hidden_distance`] of them."""
        teacher = inputs.pop("teacher", None)
        if teacher is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        taught = inputs.pop("taught")
        labels = inputs.pop("labels")
        keeps_states = self.args.hidden_weight > 0
        with torch.no_grad():
            teaching = self.model(
                **teacher,
                logits_to_keep=inputs["logits_to_keep"],
                output_hidden_states=keeps_states,
            )
        output = model(**inputs, output_hidden_states=keeps_states)
        if num_items_in_batch is None:
            num_labels = (labels != IGNORE).sum().clamp(min=1)
        else:
            num_labels = num_items_in_batch
        loss = distillation_loss(
            output.logits[taught], teaching.logits, labels[taught], num_items_in_batch=num_labels
        )
        if keeps_states:
            distance = hidden_distance(
                output.hidden_states[0][taught],
                teaching.hidden_states[0],
                labels[taught],
                num_items_in_batch=num_labels,
            )
            loss = loss + self.args.hidden_weight * distance
        if len(taught) < len(labels):
            own_labels = labels.clone()
            own_labels[taught] = IGNORE
            loss = loss + answer_loss(output.logits, own_labels, num_labels)
        if num_items_in_batch is not None:
            loss = loss * self.args.world_size  # the processes' gradients are averaged
        return (loss, output) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """The library's; of several processes, the loss of the batch that they share."""
        self.read_texts.use(inputs)
        if self.args.world_size == 1:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        num_labels = self.accelerator.reduce((inputs["labels"] != IGNORE).sum(), "sum")
        with torch.no_grad():
            loss = self.compute_loss(model, inputs, num_items_in_batch=num_labels)
        return self.accelerator.reduce(loss, "mean"), None, None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The library's, with the real tokens per second since the last entry.

        Raises:
            NonFiniteLoss: the entry has a validation loss that is not finite.
        """
        now = time.perf_counter()
        if "loss" in logs:
            tokens = sum(gather(self.tokens - self._logged_tokens))
            seconds = max(now - self._logged_at, 1e-9)
            logs["tokens_per_second"] = round(tokens / seconds, 1)
        self._logged_at = now
        self._logged_tokens = self.tokens
        validation_loss = logs.get("eval_loss", 0.0)
        if not math.isfinite(validation_loss):
            raise NonFiniteLoss(
                f"the validation loss is not finite after step {self.state.global_step}: "
                f"lower the learning rate{self._dtype_hint()}"
            )
        super().log(logs, *args, **kwargs)

    # ------------------------------------------------------------------ checkpoints
    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        self.model.save_pretrained(output_dir or self.args.output_dir)

    def _checkpoint_folder(self, step: int) -> Path:
        return Path(self.args.output_dir) / f"{CHECKPOINT_PREFIX}{step}"

    def _best_checkpoint(self) -> Path:
        """The best so far by its validation loss; the present one if there is none yet."""
        state = self.state
        return self._checkpoint_folder(state.best_global_step or state.global_step)

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        folder = self._checkpoint_folder(self.state.global_step)
        best = self._best_checkpoint()
        self.state.best_model_checkpoint = str(best)
        random_states = self._random_states()
        if is_main():
            self._write_checkpoint(folder, best, random_states)
        wait_for_all()

    def _write_checkpoint(self, folder: Path, best: Path, random_states: dict[str, bytes]) -> None:
        """Write a checkpoint, and remove all others but the best.

        Args:
            folder: of the checkpoint.
            best: of the best checkpoint so far.
            random_states: files by name, one of each process.
        """
        shutil.rmtree(folder, ignore_errors=True)  # one that was left incomplete
        with atomic_directory(folder, marker=STATE_FILE) as aside:
            self.model.write_checkpoint(aside)
            self._save_optimizer_and_scheduler(str(aside))
            self._save_scaler(str(aside))
            for name, content in random_states.items():
                (aside / name).write_bytes(content)
            self._collect_callback_states()
            self.state.save_to_json(str(aside / STATE_FILE))
            self.read_texts.save(aside / TEXTS_FILE)
            write_checksums(aside)
        for older in folder.parent.glob(f"{CHECKPOINT_PREFIX}*"):
            if older not in (folder, best):
                shutil.rmtree(older, ignore_errors=True)

    def _random_states(self) -> dict[str, bytes]:
        """The files with the random states of all processes, by their names."""
        with tempfile.TemporaryDirectory() as folder:
            self._save_rng_state(folder)
            files = [(path.name, path.read_bytes()) for path in Path(folder).iterdir()]
        return dict(file for process_files in gather(files) for file in process_files)

    def _collect_callback_states(self) -> None:
        """Put what callbacks remember, such as the patience used up, into the trainer's state."""
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                name = type(callback).__name__
                self.state.stateful_callbacks[name] = callback.state()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._load_weights(self._best_checkpoint())

    def _load_weights(self, folder: Path) -> None:
        self.model.bridge.load_state_dict(load_file(folder / "model.safetensors"))
        if self.model.config.adapter:
            from peft import set_peft_model_state_dict

            adapter = load_file(folder / ADAPTER_FOLDER / "adapter_model.safetensors")
            set_peft_model_state_dict(self.model.llm, adapter)


def _leave_out_frozen_weights(model: PalamModel) -> None:
    """Let the processes share what is trained alone: the rest is the same, or spread, already."""
    names = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    names += [name for name, _ in model.named_buffers()]
    leave_out: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    leave_out(model, names)
