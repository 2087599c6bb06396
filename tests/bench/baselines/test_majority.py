"""The most frequent label."""

from palam.bench.baselines.base import BaselineInput
from palam.bench.baselines.majority import Majority
from palam.models.model_config import ModelConfig
from palam.tasks.registry import get_task
from palam.tasks.task import Example
from palam.training.config import RuntimeConfig
from palam.training.data import TrainingData


def test_the_majority_is_the_most_frequent_label_of_the_training_data(tmp_path):
    train = [Example(row, {"text": "a"}, label) for row, label in enumerate("xyyz")]
    data = TrainingData(None, train, [], "en", "")
    given = BaselineInput(
        model=ModelConfig(),
        runtime=RuntimeConfig(),
        data=data,
        task=get_task("demo"),
        rows={"si": train[:2]},
        batch_size=32,
        load_bases=lambda: None,
        folder=tmp_path,
    )
    outcome = Majority({}).run(given)
    assert outcome.figures == {"label": "y"}
    assert [item["prediction"] for item in outcome.predictions] == ["y", "y"]
    assert [item["label"] for item in outcome.predictions] == ["x", "y"]
