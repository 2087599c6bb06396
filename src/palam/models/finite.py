"""Numbers that are not finite: refused where they enter, with the part that they come from."""

from collections.abc import Mapping

import torch
from torch import Tensor

from palam.errors import PalamError

HINTS = {
    torch.float16: "in fp16: use --dtype bf16 or fp32",
    torch.bfloat16: "in bf16: use --dtype fp32",
}
"""What a message says of the dtypes that may be the cause."""


def is_finite(values: Tensor | float) -> bool:
    """Whether none of these numbers is NaN or infinite."""
    tensor = torch.as_tensor(values).detach()
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # NaN is passed on by both; no tensor of booleans is made.
    extremes = torch.stack(tensor.aminmax())
    return bool(extremes.isfinite().all())


def check_finite(
    values: Tensor | Mapping[str, Tensor] | Mapping[str, float],
    what: str,
    dtype: torch.dtype | None = None,
) -> None:
    """Refuse numbers among which one is NaN or infinite.

    Args:
        values: a tensor of any shape, or tensors or numbers by name; integers are always finite.
        what: the part that they are of, in the plural: `"the encoder's states"`.
        dtype: in which they were computed, if that may be the cause; see [`HINTS`].

    Raises:
        PalamError: a number is not finite. The message names the part, the first name, and where
            the dtype has 16 bits what to use in its place.
    """
    named = values if isinstance(values, Mapping) else {"": values}
    for name, numbers in named.items():
        if is_finite(numbers):
            continue
        where = f" ({name})" if name else ""
        hint = HINTS.get(dtype, "(NaN or infinite)") if dtype else "(NaN or infinite)"
        raise PalamError(f"{what}{where} are not finite {hint}")


def check_logits(logits: Tensor, dtype: torch.dtype) -> None:
    """Refuse an LLM's logits from which nothing can be chosen.

    Args:
        logits: [..., vocabulary]; minus infinity, with which some LLMs rule out tokens, is no
            fault.
        dtype: of the LLM.

    Raises:
        PalamError: NaN or infinity is among them.
    """
    check_finite(logits.float().logsumexp(-1), "the LLM's logits", dtype)
