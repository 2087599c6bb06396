"""The LLM's cache of what it has read, under whichever name this transformers has for it."""

from collections.abc import Collection
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

CACHE_NAMES = ("cache", "past_key_values")
"""transformers' newer releases have the first, and warn of the other."""


def cache_argument(arguments: Collection[str]) -> str:
    """What a forward pass calls the cache that it is given.

    Args:
        arguments: the names that it takes.
    """
    return "cache" if "cache" in arguments else "past_key_values"


def cache_of(output: Any) -> Any:
    """The cache in the LLM's output, or None."""
    for name in CACHE_NAMES:
        if name in output:
            return output[name]
    return None


def repeated_cache(cache: Any, rows: int, times: int) -> Any:
    """A cache with each row several times, side by side.

    Args:
        cache: of the LLM; changed.
        rows: how many it holds.
        times: how often each is wanted.

    Returns:
        The cache; None where a layer keeps anything but keys and values.
    """
    if not _keeps_keys_and_values_alone(cache):
        return None
    cache.reorder_cache(torch.arange(rows).repeat_interleave(times))
    return cache


def _keeps_keys_and_values_alone(cache: Any) -> bool:
    kinds = (DynamicLayer, DynamicSlidingWindowLayer)
    is_plain = type(cache) is DynamicCache  # classes made of it keep more beside
    return is_plain and all(type(layer) in kinds for layer in cache.layers)
