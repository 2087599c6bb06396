"""A head on the encoder: what its states alone tell, without an LLM."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import PreTrainedModel

from palam.bench.baseline_plan import plan_encoder_reading
from palam.bench.baselines.base import Amounts, Baseline, BaselineInput, Outcome, Reading
from palam.errors import PalamError
from palam.inference.prediction import Prediction
from palam.models.backbones.encoder import encode, mean_over_tokens
from palam.models.backbones.loading import load_tokenizer
from palam.models.model_config import ModelConfig
from palam.models.new_processor import longest_text
from palam.models.template import clean
from palam.tasks.task import Example
from palam.utils.device import Placement

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the weights' squares, to choose from."""
BATCH_SIZE = 32
"""Texts that the encoder reads at a time."""

Features = NDArray[np.float64]
Classes = NDArray[np.int64]


class TextFeatures:
    """The mean of a text's token states, each layer normalised.

    Args:
        encoder: the loaded encoder, whose positions bound the longest text.
        model: names its tokenizer, and the most tokens of a text.
        layers: `"last"`, or the `"mean"` of all layers.

    Raises:
        PalamError: an encoder that must be told the language, or more tokens than it takes.
    """

    def __init__(self, encoder: PreTrainedModel, model: ModelConfig, layers: str) -> None:
        self.encoder = encoder
        self.tokenizer = load_tokenizer(model.encoder, model.encoder_revision)
        if hasattr(self.tokenizer, "src_lang"):
            raise PalamError("the head's encoder must not need to be told the language")
        self.max_length = longest_text(encoder, self.tokenizer, model.max_length)
        self.layers = layers

    def of(self, texts: Sequence[str]) -> Features:
        """The features of texts, [texts, d_enc]."""
        batches = [
            self._of_batch(list(texts[start : start + BATCH_SIZE]))
            for start in range(0, len(texts), BATCH_SIZE)
        ]
        return torch.cat(batches).double().numpy()

    @torch.no_grad()
    def _of_batch(self, texts: list[str]) -> torch.Tensor:
        batch = self.tokenizer(
            [clean(text) for text in texts],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        ).to(self.encoder.device)
        mask = batch["attention_mask"]
        states = encode(self.encoder, batch["input_ids"], mask)
        chosen = states[-1:] if self.layers == "last" else states
        means = []
        for state in chosen:
            normalized = F.layer_norm(state.float(), state.shape[-1:])
            means.append(mean_over_tokens(normalized, mask))
        return torch.stack(means).mean(0).cpu()


def check_installed() -> None:
    """Refuse a head without scikit-learn.

    Raises:
        PalamError: it is missing; the message says how to get it.
    """
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError:
        raise PalamError('the head needs scikit-learn: pip install "palam[bench]"') from None


class LogisticHead:
    """Logistic regression on standardised features, by scikit-learn.

    It minimises the mean cross-entropy + penalty / 2 · |W|²; the intercepts are not penalised.

    Args:
        features: of the training texts, [texts, d_enc].
        labels: theirs, as positions in the task's labels, [texts].
        penalty: of the weights' squares.

    Raises:
        PalamError: all texts have one label, or scikit-learn is missing.
    """

    def __init__(self, features: Features, labels: Classes, penalty: float) -> None:
        check_installed()
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        classes = len(np.unique(labels))
        if classes < 2:
            raise PalamError("a head needs training texts of two labels or more")
        # scikit-learn's C weights the sum of the losses against |W|² / 2. Of two classes it has one
        # vector w in place of w / 2 and -w / 2, whose squares come to half of its own.
        strength = penalty / 2 if classes == 2 else penalty
        regression = LogisticRegression(C=1 / (len(labels) * strength), tol=1e-6, max_iter=1000)
        self._pipeline = make_pipeline(StandardScaler(), regression)
        self._pipeline.fit(features, labels)

    def predict(self, features: Features) -> Classes:
        """The label with the highest probability, [texts]."""
        labels: Classes = self._pipeline.predict(features)
        return labels

    def loss(self, features: Features, labels: Classes, label_count: int) -> float:
        """The mean cross-entropy.

        Args:
            features: of other texts.
            labels: theirs.
            label_count: of the task; one that was not trained on has no probability.
        """
        from sklearn.metrics import log_loss

        probabilities = np.zeros((len(labels), label_count))
        probabilities[:, self._pipeline.classes_] = self._pipeline.predict_proba(features)
        return float(log_loss(labels, probabilities, labels=range(label_count)))


class Head(Baseline):
    """Logistic regression on the encoder's states, trained on English.

    The penalty with the lowest English validation loss is taken. The problem is convex: there is
    no seed. Its setting `layers` is `"last"`, or the `"mean"` of all layers.
    """

    def check_installed(self) -> None:
        """See [`Baseline.check_installed`]: scikit-learn."""
        check_installed()

    def run(self, given: BaselineInput) -> Outcome:
        """See [`Baseline.run`].

        Raises:
            PalamError: a task without labels, an encoder that must be told the language, or
                scikit-learn is missing.
        """
        task = given.task
        if task.has_free_answers:
            raise PalamError(f"a head gives a label, and {task.name} has none")
        names = list(task.labels)
        text_features = TextFeatures(given.encoder, given.model, self.settings["layers"])

        def features_of(examples: Sequence[Example]) -> Features:
            return text_features.of([task.render(example) for example in examples])

        def classes_of(examples: Sequence[Example]) -> Classes:
            return np.array([names.index(example.label) for example in examples])

        train, dev = given.data.train, given.data.dev
        train_features, train_classes = features_of(train), classes_of(train)
        dev_features, dev_classes = features_of(dev), classes_of(dev)
        heads: dict[float, LogisticHead] = {}
        losses: dict[float, float] = {}
        for penalty in PENALTIES:
            heads[penalty] = LogisticHead(train_features, train_classes, penalty)
            losses[penalty] = heads[penalty].loss(dev_features, dev_classes, len(names))
        best = min(losses, key=lambda penalty: losses[penalty])

        predictions = []
        for code, examples in given.rows.items():
            predicted = heads[best].predict(features_of(examples))
            for example, label in zip(examples, predicted.tolist(), strict=True):
                prediction = Prediction(
                    language=code,
                    row=example.row,
                    label=example.label,
                    prediction=names[label],
                )
                predictions.append(prediction)
        return Outcome(predictions, {"penalty": best, "validation_loss": losses[best]})

    def readings(
        self, model: ModelConfig, placement: Placement, amounts: Amounts, num_seeds: int
    ) -> list[Reading]:
        """The encoder reads each text once."""
        texts = amounts.train + amounts.dev + amounts.read
        return [Reading(texts, plan_encoder_reading(model, placement))]
