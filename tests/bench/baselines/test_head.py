"""The head: at the minimum of what it is said to minimise."""

import math
import unicodedata

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from palam import PalamError
from palam.bench.baselines.head import LogisticHead, TextFeatures
from palam.models.backbones.encoder import load_encoder
from palam.models.model_config import ModelConfig


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_the_head_is_at_the_minimum_of_the_penalised_cross_entropy(classes, penalty):
    """Compared with a plain minimisation: the weights are penalised, the bias is not."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(80, 5, generator=generator, dtype=torch.float64)
    direction = torch.randn(5, classes, generator=generator, dtype=torch.float64)
    noise = torch.randn(80, classes, generator=generator, dtype=torch.float64)
    labels = (features @ direction + noise).argmax(1)
    fitted = LogisticHead(features.numpy(), labels.numpy(), penalty)

    standardised = (features - features.mean(0)) / features.std(0, unbiased=False)
    weight = torch.zeros(5, classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(standardised @ weight + bias, labels)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    logits = standardised @ weight + bias
    expected = F.cross_entropy(logits, labels).item()
    loss = fitted.loss(features.numpy(), labels.numpy(), classes)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert fitted.predict(features.numpy()).tolist() == logits.argmax(1).tolist()


def test_a_label_that_was_not_trained_on_has_no_probability():
    features = np.array([[0.0], [0.1], [1.0], [1.1]])
    fitted = LogisticHead(features, np.array([0, 0, 2, 2]), 1e-2)
    assert fitted.predict(features).tolist() == [0, 0, 2, 2]
    assert fitted.loss(features, np.array([0, 0, 2, 2]), 3) < math.log(3)
    assert fitted.loss(features, np.array([1, 1, 1, 1]), 3) > 30
    with pytest.raises(PalamError, match="two labels or more"):
        LogisticHead(features, np.array([1, 1, 1, 1]), 1e-2)


def test_the_head_reads_what_bridges_read(base_folder):
    """In the composed form, and without what no tokenizer takes."""
    folder = str(base_folder("bert"))
    text_features = TextFeatures(load_encoder(folder), ModelConfig(encoder=folder), "mean")
    composed = "caf\u00e9 \u0d9a\u0ddc\ufffd"
    apart = unicodedata.normalize("NFD", composed[:-1]) + "\ud800"
    assert apart != composed
    np.testing.assert_array_equal(text_features.of([composed]), text_features.of([apart]))


def test_the_head_reads_texts_of_more_tokens_than_the_encoder_has_positions(base_folder):
    words = tiny.TEXT["en"].split()
    folder = str(base_folder("bert"))  # of 128 positions
    text_features = TextFeatures(load_encoder(folder), ModelConfig(encoder=folder), "mean")
    assert text_features.max_length == 128
    features = text_features.of([" ".join(words * 20), words[0]])
    assert features.shape == (2, 32)
    assert np.isfinite(features).all()
