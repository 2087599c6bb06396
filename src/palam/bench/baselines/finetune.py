"""The encoder fine-tuned whole on the same English rows: what it transfers without an LLM.

A copy of it is trained, by the transformers Trainer, with the library's head for text
classification. Where the library has none on top of the encoder alone (T5's encoder, NLLB's), the
head is a linear layer on the mean of a text's states.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_callback import PrinterCallback

from palam.bench.baseline_plan import BACKWARD, plan_encoder_training
from palam.bench.baselines.base import (
    Amounts,
    Baseline,
    BaselineInput,
    Outcome,
    Reading,
)
from palam.bench.baselines.finetune_checkpoints import (
    NUM_KEPT,
    BestWeights,
    FinetuneTrainer,
    SaveNowAndThen,
    is_done,
    mark_done,
)
from palam.bench.setting_values import parse_rates
from palam.errors import PalamError
from palam.inference.prediction import Prediction
from palam.models.backbones.encoder import encoder_shape, mean_over_tokens
from palam.models.backbones.loading import load_tokenizer
from palam.models.encoder_text import source_language
from palam.models.model_config import ModelConfig
from palam.models.new_processor import longest_text
from palam.models.template import clean
from palam.tasks.task import Example, Task
from palam.training.trainer import newest_checkpoint
from palam.utils.device import Placement

BATCH_SIZE = 16
WARMUP = 0.1
"""Share of the steps in which the learning rate rises; then it falls evenly to zero."""
WEIGHT_DECAY = 0.01

TokenRow = dict[str, Any]
"""A text's `input_ids` and `attention_mask`, and its label's number as `labels`."""


class LabelledTokens:
    """Examples as an encoder reads them, each with its label's number.

    Args:
        encoder: the loaded encoder, whose positions bound the longest text.
        model: names its tokenizer, and the most tokens of a text.
        task: of the examples.

    Raises:
        PalamError: a tokenizer that cannot be loaded, or more tokens than the encoder takes.
    """

    def __init__(self, encoder: PreTrainedModel, model: ModelConfig, task: Task) -> None:
        self.tokenizer = load_tokenizer(model.encoder, model.encoder_revision)
        self.max_length = longest_text(encoder, self.tokenizer, model.max_length)
        self.task = task
        self.labels = list(task.labels)

    def of(self, examples: Sequence[Example], language: str) -> list[TokenRow]:
        """The tokens of examples.

        Args:
            examples: of one language.
            language: its code, for tokenizers that must be told.

        Raises:
            PalamError: the tokenizer must be told, and does not have it.
        """
        if hasattr(self.tokenizer, "src_lang"):
            self.tokenizer.src_lang = source_language(self.tokenizer, language)
        rows = []
        for example in examples:
            text = clean(self.task.render(example))
            tokens = self.tokenizer(text, truncation=True, max_length=self.max_length)
            row = {
                "input_ids": tokens["input_ids"],
                "attention_mask": tokens["attention_mask"],
                "labels": self.labels.index(example.label),
            }
            rows.append(row)
        return rows


class MeanPoolClassifier(nn.Module):
    """A copy of an encoder, and a linear layer on the mean of a text's last states.

    Args:
        encoder: which is copied.
        num_labels: of the task.
    """

    def __init__(self, encoder: PreTrainedModel, num_labels: int) -> None:
        super().__init__()
        trained: Any = copy.deepcopy(encoder)
        self.encoder = trained.float()
        self.head = nn.Linear(encoder_shape(encoder).hidden_size, num_labels)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """The logits [batch, labels], and the mean cross-entropy if labels are given.

        Args:
            input_ids: [batch, tokens].
            attention_mask: [batch, tokens], 0 for padding.
            labels: numbers of labels, [batch].
        """
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        logits = self.head(mean_over_tokens(output.last_hidden_state, attention_mask))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def build_classifier(encoder: PreTrainedModel, num_labels: int, seed: int) -> nn.Module:
    """A copy of an encoder in fp32, all of it trainable, with a new head.

    Args:
        encoder: the loaded encoder; it is not changed.
        num_labels: of the task.
        seed: of the head's weights.

    Raises:
        PalamError: the encoder's weights are held in fewer bits.
    """
    if getattr(encoder, "is_quantized", False):
        raise PalamError("the encoder is fine-tuned whole; give no load_in")
    config = copy.deepcopy(encoder.config)
    config.num_labels = num_labels
    set_seed(seed)
    classifier: Any
    if _library_builds_on(encoder, config):
        library: Any = AutoModelForSequenceClassification
        classifier = library.from_config(config, trust_remote_code=False, dtype=torch.float32)
        # Without the pooler, which a bridge's encoder does not have: it is part of the head.
        classifier.base_model.load_state_dict(encoder.state_dict(), strict=False)
    else:
        classifier = MeanPoolClassifier(encoder, num_labels)
    trainable: nn.Module = classifier.requires_grad_(True)
    return trainable


def _library_builds_on(encoder: PreTrainedModel, config: Any) -> bool:
    """Whether the library has a classifier on top of this very encoder, without a decoder."""
    library: Any = AutoModelForSequenceClassification
    try:
        with torch.device("meta"):
            sketch = library.from_config(config, trust_remote_code=False)
    except ValueError:  # it has none for this kind
        return False
    return type(sketch.base_model) is type(encoder)


class Finetune(Baseline):
    """The encoder with a head, both trained on English, with every seed.

    The first seed tries all rates; the others take the one that it has chosen. Small encoders and
    few rows need the higher rates.
    """

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates to choose from, by the validation loss."""
        return parse_rates(self.settings["lr"])

    @property
    def epochs(self) -> int:
        """Of a run; after each the validation loss is measured."""
        return int(self.settings["epochs"])

    def run(self, given: BaselineInput) -> Outcome:
        """See [`Baseline.run`] and [`finetune`]."""
        rates = self.rates if given.chosen_lr is None else (given.chosen_lr,)
        return finetune(given, rates=rates, epochs=self.epochs)

    def num_runs(self, num_seeds: int) -> int:
        """One for each rate, and one for each further seed."""
        return len(self.rates) + num_seeds - 1

    def readings(
        self, model: ModelConfig, placement: Placement, amounts: Amounts, num_seeds: int
    ) -> list[Reading]:
        """What the encoder reads while it is trained, and without."""
        training = plan_encoder_training(model, placement)
        operations = training.operations / (1 + BACKWARD)
        reading = training._replace(operations=operations, memory_bytes=0)
        epochs = self.num_runs(num_seeds) * self.epochs
        return [
            Reading(epochs * amounts.train, training),
            Reading(epochs * amounts.dev + num_seeds * amounts.read, reading),
        ]


def finetune(given: BaselineInput, *, rates: Sequence[float], epochs: int) -> Outcome:
    """The encoder with a head, both trained on English.

    A copy of it is trained, in fp32 on the same kind of device. Of all rates and epochs, the
    weights with the lowest English validation loss are taken. With the folder of a call that was
    stopped, and the same arguments, the rest is done, and the outcome is the same.

    Args:
        given: the encoder, the rows and the seed: of the head, the order of the rows, and dropout.
        rates: learning rates to choose from.
        epochs: of each run.

    Raises:
        PalamError: a task without labels, an encoder whose weights are held in fewer bits, or
            losses none of which is finite.
    """
    if given.task.has_free_answers:
        raise PalamError(f"fine-tuning gives a label, and {given.task.name} has none")
    runs = _Runs(given, epochs)
    for rate in rates:
        runs.train(rate)
    if math.isinf(runs.best.loss):
        raise PalamError("the fine-tuned encoder's validation loss is not finite")
    return runs.outcome()


class _Runs:
    """The runs with several learning rates, and the best weights of all.

    Args:
        given: see [`finetune`].
        epochs: of each run.
    """

    def __init__(self, given: BaselineInput, epochs: int) -> None:
        self.given = given
        self.epochs = epochs
        self.tokens = LabelledTokens(given.encoder, given.model, given.task)
        self.train_rows = self.tokens.of(given.data.train, given.data.language)
        self.dev_rows = self.tokens.of(given.data.dev, given.data.language)
        self.num_steps = epochs * math.ceil(len(self.train_rows) / BATCH_SIZE)
        self.best = BestWeights(given.folder)

    def train(self, rate: float) -> None:
        """Train with a rate, from the newest checkpoint if there is one; nothing if it is done."""
        folder = self._folder(rate)
        if is_done(folder):
            return
        checkpoint = newest_checkpoint(folder)
        self._trainer(rate).train(None if checkpoint is None else str(checkpoint))
        mark_done(folder)

    def outcome(self) -> Outcome:
        """What the best weights say of all rows that are read."""
        trainer = self._trainer(self.best.lr)
        self.best.load(trainer.model)
        predictions = []
        for code, examples in self.given.rows.items():
            rows: Any = self.tokens.of(examples, code)
            numbers = np.asarray(trainer.predict(rows).predictions).argmax(-1).tolist()
            for example, number in zip(examples, numbers, strict=True):
                prediction = Prediction(
                    language=code,
                    row=example.row,
                    label=example.label,
                    prediction=self.tokens.labels[number],
                )
                predictions.append(prediction)
        figures = {
            "lr": self.best.lr,
            "validation_loss": self.best.loss,
            "steps": self.num_steps,
            "trained_parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        }
        return Outcome(predictions, figures)

    def _folder(self, rate: float) -> Path:
        """Where the checkpoints of the run with a rate are."""
        return self.given.folder / f"{rate:g}"

    def _trainer(self, rate: float) -> FinetuneTrainer:
        """A run at its start."""
        seed = self.given.runtime.seed
        device = self.given.encoder.device.type
        arguments = TrainingArguments(
            output_dir=str(self._folder(rate)),
            seed=seed,
            report_to="none",
            num_train_epochs=self.epochs,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=2 * BATCH_SIZE,
            learning_rate=rate,
            lr_scheduler_type="linear",
            warmup_steps=int(WARMUP * self.num_steps),
            weight_decay=WEIGHT_DECAY,
            eval_strategy="epoch",
            save_strategy="no",  # a callback says when
            save_total_limit=NUM_KEPT,
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=device == "cpu",
            dataloader_pin_memory=device == "cuda",
            remove_unused_columns=False,
        )
        trainer = FinetuneTrainer(
            model=build_classifier(self.given.encoder, len(self.tokens.labels), seed),
            args=arguments,
            data_collator=DataCollatorWithPadding(self.tokens.tokenizer),
            train_dataset=self.train_rows,
            eval_dataset=self.dev_rows,
            callbacks=[self.best, SaveNowAndThen()],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer
