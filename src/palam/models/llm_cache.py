"""The LLM's cache of what it has read, under whichever name this transformers has for it."""

from collections.abc import Collection
from typing import Any

CACHE_NAMES = ("cache", "past_key_values")
"""transformers' newer releases have the first, and warn of the other."""


def cache_argument(arguments: Collection[str]) -> str:
    """What a forward pass calls the cache that it is given.

    Args:
        arguments: the names that it takes.
    """
    return "cache" if "cache" in arguments else "past_key_values"


def cache_arguments(output: Any) -> dict[str, Any]:
    """The cache in a model's output as the argument of its next call; {} if there is none."""
    cache = cache_of(output)
    return {} if cache is None else {cache_argument(output): cache}


def cache_of(output: Any) -> Any:
    """The cache in the LLM's output, or None."""
    for name in CACHE_NAMES:
        if name in output:
            return output[name]
    return None
