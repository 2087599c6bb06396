"""A solved bridge is calibrated by English alone: the size with the lowest loss, and the priors."""

import copy

import pytest
import tiny
import torch
import torch.nn.functional as F

from palam.inference.calibration import calibrate_to_task
from palam.inference.scoring import score_labels
from palam.tasks.registry import get_task
from palam.tasks.task import Example

TASK = get_task("sib200")
LABELS = list(TASK.labels)
WORDS = tiny.TEXT["en"].split()
ROWS = [Example(i, {"text": " ".join(WORDS[i : i + 5])}, LABELS[i % 7]) for i in range(42)]
TRAIN, DEV = ROWS[:28], ROWS[28:]


def plain(model, factor):
    """Loss and priors with the mapper's output times a factor, by hand."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.bridge.mapper.readout.weight *= factor
        changed.bridge.mapper.readout.bias *= factor
    words = list(TASK.labels.values())
    train_texts = [row.fields["text"] for row in TRAIN]
    dev_texts = [row.fields["text"] for row in DEV]
    targets = torch.tensor([LABELS.index(row.label) for row in DEV])
    priors = score_labels(changed, train_texts, words).mean(0)
    scores = score_labels(changed, dev_texts, words) - priors
    return F.cross_entropy(scores, targets).item(), priors


@pytest.mark.parametrize("factors", [(1.0, 0.5, 3.0), (3.0, 1.0), (2.0,)])
def test_the_factor_with_the_lowest_english_loss_is_taken(tiny_model, factors):
    model = tiny_model("xlmr", fusion="mean", mode="prompt", prompt=TASK.prompt)
    expected = {factor: plain(model, factor) for factor in factors}
    weight = model.bridge.mapper.readout.weight.clone()
    result = calibrate_to_task(model, TASK, TRAIN, DEV, "eng_Latn", factors=factors)
    for factor, (loss, _) in expected.items():
        assert result["losses"][str(factor)] == pytest.approx(loss, abs=1e-3)
    best = min(expected, key=lambda factor: expected[factor][0])
    assert result["factor"] == best
    torch.testing.assert_close(model.bridge.mapper.readout.weight, best * weight)
    priors = [model.config.label_priors[word] for word in TASK.labels.values()]
    torch.testing.assert_close(torch.tensor(priors), expected[best][1], atol=1e-3, rtol=0)


def test_training_labels_are_not_looked_at(tiny_model):
    results = []
    for labels in (LABELS, LABELS[:1]):
        model = tiny_model("bert", fusion="last", mode="prompt", prompt=TASK.prompt)
        train = [Example(row.row, row.fields, labels[row.row % len(labels)]) for row in TRAIN]
        result = calibrate_to_task(model, TASK, train, DEV, "eng_Latn")
        results.append((result, model.config.label_priors))
    assert results[0] == results[1]
