"""What a report says of each method."""

import pytest

from palam.bench.glossary import describe_method
from palam.bench.methods import TrainedMethod

LAST = "A bridge. LangBridge's choice (ACL 2024): the encoder's last layer alone"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"lr": 4e-3}, ". Learning rate: 0.004"),
        ({"lr": [5e-4, 1e-3, 2e-5]}, ". Learning rate: 0.0005 or 0.001 or 2e-05"),
        (
            {"mapper_options": {"hidden_size": 32, "depth": 2}},
            ". Mapper options: hidden size 32, depth 2",
        ),
        ({"label_tasks": ["sib200", "xnli"]}, ". Label tasks: sib200, xnli"),
        ({"lexicon": "words.csv", "lr": 1}, ". Lexicon: words.csv. Learning rate: 1"),
    ],
)
def test_what_a_method_sets_is_said_of_it(settings, said):
    method = TrainedMethod.parse({"fusion": "last", **settings})
    assert describe_method(method, {"task": "sib200"}) == LAST + said
