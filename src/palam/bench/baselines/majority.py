"""The most frequent label of the training data, for every text."""

from collections import Counter

from palam.bench.baselines.base import Amounts, Baseline, BaselineInput, Outcome, Reading
from palam.inference.prediction import Prediction
from palam.models.model_config import ModelConfig
from palam.utils.device import Placement


class Majority(Baseline):
    """Always the same label; it reads nothing."""

    def run(self, given: BaselineInput) -> Outcome:
        """See [`Baseline.run`]."""
        counts = Counter(example.label for example in given.data.train)
        [(label, _)] = counts.most_common(1)
        predictions = [
            Prediction(language=code, row=example.row, label=example.label, prediction=label)
            for code, examples in given.rows.items()
            for example in examples
        ]
        return Outcome(predictions, {"label": label})

    def readings(
        self, model: ModelConfig, placement: Placement, amounts: Amounts, num_seeds: int
    ) -> list[Reading]:
        """None: no model reads anything."""
        return []
