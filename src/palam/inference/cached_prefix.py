"""What all texts begin with, such as examples: the LLM reads it once for all of them."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch

from palam.inference.batches import Features
from palam.models.llm_cache import cache_of
from palam.models.modeling import PalamModel
from palam.models.processing import TEXT_SLOT
from palam.models.sequence import LLMInputs


class CachedPrefix(NamedTuple):
    """What stands before every text, as the LLM has read it."""

    cache: Any
    """The LLM's cache, of one row."""
    tokens: int
    """How many it holds."""

    @classmethod
    def read(cls, model: PalamModel, ids: Sequence[int]) -> Self:
        """Let a model's LLM read ids."""
        row = torch.tensor([ids], device=model.device)
        inputs = LLMInputs.of_vectors(model.embed(row))
        output = model.run_llm(inputs, 1, use_cache=True)
        return cls(cache_of(output), len(ids))

    def cache_for(self, inputs: LLMInputs) -> Any:
        """A copy of the cache, its one row repeated for each row of an input."""
        cache = copy.deepcopy(self.cache)
        rows = len(inputs.attention_mask)
        cache.reorder_cache(inputs.attention_mask.new_zeros(rows))
        return cache

    def before(self, inputs: LLMInputs) -> LLMInputs:
        """An input with its mask over the prefix too, and its positions after it."""
        mask = inputs.attention_mask
        prefix_mask = mask.new_ones(len(mask), self.tokens)
        return replace(
            inputs,
            attention_mask=torch.cat([prefix_mask, mask], 1),
            position_ids=inputs.position_ids + self.tokens,
        )

    def taken_from(self, row: Features) -> Features:
        """A text's features without the tokens that the prefix holds."""
        later_ids = row["input_ids"][self.tokens :]
        return {**row, "input_ids": later_ids}


NO_PREFIX = CachedPrefix(cache=None, tokens=0)


def common_prefix(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """The ids that all rows begin with, up to the text's slot."""
    lists = [list(row) for row in rows]
    first = min(lists)
    last = max(lists)  # what these two share, all between them share
    length = 0
    for ours, theirs in zip(first, last, strict=False):
        if ours != theirs or ours == TEXT_SLOT:
            break
        length += 1
    return first[:length]
