"""Numbers that are not finite are refused in one line that names the part and the dtype."""

import math

import pytest
import torch
from helpers import refusal

from palam.models.finite import check_finite, check_logits, is_finite

FINITE = [
    torch.ones(2, 3),
    torch.zeros(0, 4),
    torch.tensor([torch.finfo(torch.float16).max], dtype=torch.float16),
    torch.full((4,), torch.finfo(torch.float32).max),  # their sum is not finite
    torch.tensor([1, 2]),
    torch.tensor(True),
    torch.ones(2, requires_grad=True),
    1.5,
    3,
]


@pytest.mark.parametrize("values", FINITE)
def test_finite_numbers_pass(values):
    assert is_finite(values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_among_many_is_found(dtype, value):
    values = torch.ones(3, 5, 7, dtype=dtype)
    values[1, 4, 2] = value
    assert not is_finite(values)
    assert not is_finite(value)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (None, "the encoder's states are not finite (NaN or infinite)"),
        (torch.float32, "the encoder's states are not finite (NaN or infinite)"),
        (torch.float16, "the encoder's states are not finite in fp16: use --dtype bf16 or fp32"),
        (torch.bfloat16, "the encoder's states are not finite in bf16: use --dtype fp32"),
    ],
)
def test_the_message_names_the_part_and_the_dtype(dtype, message):
    assert refusal(check_finite, torch.tensor([1.0, math.nan]), "the encoder's states", dtype) == (
        message
    )


def test_the_first_name_is_told():
    weights = {"a": torch.ones(2), "b": torch.tensor([math.inf]), "c": torch.tensor([math.nan])}
    expected = "the bridge's weights (b) are not finite (NaN or infinite)"
    assert refusal(check_finite, weights, "the bridge's weights") == expected
    check_finite({"a": torch.ones(2)}, "the bridge's weights")
    priors = {"sports": -1.0, "health": math.nan}
    expected = "the labels' priors (health) are not finite (NaN or infinite)"
    assert refusal(check_finite, priors, "the labels' priors") == expected


def test_logits_from_which_a_token_can_be_chosen_pass():
    logits = torch.tensor([[0.0, -math.inf, 2.0], [-math.inf, -math.inf, 1e4]])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        check_logits(logits.to(dtype), dtype)
    check_logits(torch.full((1, 2, 50_000), 6e4, dtype=torch.float16), torch.float16)


@pytest.mark.parametrize(
    "row", [[0.0, math.nan], [0.0, math.inf], [-math.inf, -math.inf], [math.nan, -math.inf]]
)
def test_logits_from_which_nothing_can_be_chosen_are_refused(row):
    logits = torch.tensor([[[0.0, 1.0], row]])
    expected = "the LLM's logits are not finite (NaN or infinite)"
    assert refusal(check_logits, logits, torch.float32) == expected
    expected = "the LLM's logits are not finite in fp16: use --dtype bf16 or fp32"
    assert refusal(check_logits, logits.half(), torch.float16) == expected
