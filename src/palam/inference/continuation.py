"""Σ log P of labels' later tokens, after texts that the LLM has read, in three ways.

Packed: side by side in one row, where the LLM keeps them apart. Sequentially: one after the other,
each after a copy of the cache. In whole sequences: each text is read again with each label.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from palam.inference.answers import Answer, AnswerTree, answer_trees, of_equal_length
from palam.models.modeling import PalamModel
from palam.models.sequence import LLMInputs

MIN_CALL_TOKENS = 8
"""Tokens of one label that are read in one call, however many rows it has."""
MAX_CALL_TOKENS = 256
"""Label tokens in all rows of one call, where there are few rows and many labels."""
MAX_TREE_TOKENS = 512
"""Label tokens after one copy of the texts' cache."""
MAX_ROWS = 32
"""Rows of one call, where a text is repeated for several labels."""
MAX_REPEATED_TOKENS = 8192
"""Tokens in all rows of one call, where a text is read again with labels."""


class ReadTexts(NamedTuple):
    """A batch of texts that the LLM has read."""

    inputs: LLMInputs
    """The mask is over a cached prefix too, and the positions after it."""
    first_logprobs: Tensor
    """[batch, vocabulary], of what follows each text."""
    cache: Any
    """The LLM's cache; None if there is none, or it is not to be used."""

    @property
    def rows(self) -> int:
        """How many texts."""
        return len(self.inputs.attention_mask)

    @property
    def width(self) -> int:
        """How many positions, padding included."""
        return self.inputs.attention_mask.shape[1]


class AnswerReader:
    """Scores the later tokens of answers: all but the first, which the text's own logits give.

    Args:
        model: whose LLM has read the texts.
    """

    def __init__(self, model: PalamModel) -> None:
        self.model = model

    # ------------------------------------------------------------------ several answers in a row
    def score_packed(self, read: ReadTexts, answers: Sequence[Answer], most_packed: int) -> Tensor:
        """Σ log P of the later tokens of answers that stand side by side. The cache grows.

        Args:
            read: the texts, with a cache.
            answers: of two tokens or more each.
            most_packed: tokens of several answers in one call; more, if the answers are very many.

        Returns:
            [batch, answers].
        """
        scores = torch.zeros(read.rows, len(answers), device=self.model.device)
        trees = answer_trees(answers, MAX_TREE_TOKENS)
        most_of_one = max(MIN_CALL_TOKENS, MAX_CALL_TOKENS // read.rows)
        if len(trees) > 1:
            most_packed = max(most_packed, most_of_one)
        for tree in trees[:-1]:
            copied = read._replace(cache=copy.deepcopy(read.cache))
            packs = tree.packs(most_packed, most_of_one)
            scores[:, tree.numbers] = self._score_tree(copied, tree, packs)
        packs = trees[-1].packs(most_packed, most_of_one)
        scores[:, trees[-1].numbers] = self._score_tree(read, trees[-1], packs)
        return scores

    def _score_tree(self, read: ReadTexts, tree: AnswerTree, packs: Iterable[range]) -> Tensor:
        """Σ log P of the later tokens of a tree's answers [batch, answers]. The cache grows.

        Args:
            read: the texts.
            tree: of the answers.
            packs: its nodes, those of one call at a time.
        """
        logprobs = []
        for nodes in packs:
            inputs = self._packed_inputs(read, tree, nodes)
            output = self.model.run_llm(inputs, len(nodes), cache=read.cache, use_cache=True)
            # One position after the other: all at once, it would need copies of all logits.
            for position, node in enumerate(nodes):
                targets = list(tree.targets[node])
                logits = output.logits[:, position].float()
                logprobs.append(logits[:, targets] - logits.logsumexp(-1, keepdim=True))
        return _sum_over_paths(tree, torch.cat(logprobs, 1))

    def _packed_inputs(self, read: ReadTexts, tree: AnswerTree, nodes: range) -> LLMInputs:
        """Some nodes of a tree after the texts' cache, which holds the nodes before them too.

        A node sees its text and the nodes above it.
        """
        text = read.inputs
        device = self.model.device
        ids = torch.tensor(tree.ids[nodes.start : nodes.stop], device=device)
        depths = torch.tensor(tree.depths[nodes.start : nodes.stop], device=device)
        dtype = text.inputs_embeds.dtype
        embeds = self.model.embed(ids).to(dtype)
        sees_nodes = torch.zeros(len(nodes), nodes.stop, dtype=torch.bool)
        for line, above in enumerate(tree.ancestors()[nodes.start : nodes.stop]):
            sees_nodes[line, above] = True
        sees_text = text.attention_mask.bool()
        visible = torch.cat(
            [
                sees_text[:, None].expand(-1, len(nodes), -1),
                sees_nodes.to(device).expand(read.rows, -1, -1),
            ],
            2,
        )
        hidden = ~visible[:, None]  # [batch, 1, nodes, texts and nodes]
        mask = torch.zeros_like(hidden, dtype=dtype)
        mask = mask.masked_fill(hidden, torch.finfo(dtype).min)
        return LLMInputs(
            inputs_embeds=embeds.expand(read.rows, -1, -1),
            attention_mask=mask,
            position_ids=text.position_ids[:, -1:] + depths,
        )

    # ------------------------------------------------------------------ one answer in a row
    def score_sequentially(
        self, read: ReadTexts, answers: Sequence[Answer], *, one_token_at_a_time: bool = False
    ) -> Tensor:
        """Σ log P of the later tokens of answers, each after a copy of the cache.

        It is copied since some kinds cannot be cut back. Where there are few texts, it is repeated
        for several answers of the same length.

        Args:
            read: the texts, with a cache.
            answers: of two tokens or more each.
            one_token_at_a_time: the LLM reads each token in a call of its own.

        Returns:
            [batch, answers].
        """
        scores = torch.zeros(read.rows, len(answers), device=self.model.device)
        count = max(1, MAX_ROWS // read.rows)
        for numbers in of_equal_length(answers):
            for first in range(0, len(numbers), count):
                part = numbers[first : first + count]
                repeated = _repeat(read, len(part))
                tokens = self._id_rows([answers[number] for number in part], read.rows)
                step = max(MIN_CALL_TOKENS, MAX_CALL_TOKENS // len(tokens))
                sums = self._sum_after_cache(repeated, tokens, 1 if one_token_at_a_time else step)
                scores[:, part] = sums.view(read.rows, len(part))
        return scores

    def _sum_after_cache(self, read: ReadTexts, tokens: Tensor, step: int) -> Tensor:
        """Σ log P of later tokens [rows], one answer's in each row. The cache grows.

        Args:
            read: the text of each row.
            tokens: [rows, tokens], each answer from its first token on.
            step: how many tokens are read at a time.
        """
        later = tokens.shape[1] - 1
        sums = torch.zeros(read.rows, device=tokens.device)
        for start in range(0, later, step):
            stop = min(later, start + step)
            inputs = self._appended_inputs(read.inputs, tokens, start, stop)
            output = self.model.run_llm(inputs, stop - start, cache=read.cache, use_cache=True)
            sums = _add_logprobs(sums, output.logits, tokens[:, start + 1 : stop + 1])
        return sums

    def _appended_inputs(self, text: LLMInputs, tokens: Tensor, start: int, stop: int) -> LLMInputs:
        """Tokens of the answers, from `start` to before `stop`, after what the cache holds."""
        embeds = self.model.embed(tokens[:, start:stop])
        depths = torch.arange(start + 1, stop + 1, device=tokens.device)
        answer_mask = text.attention_mask.new_ones(len(tokens), stop)
        return LLMInputs(
            inputs_embeds=embeds.to(text.inputs_embeds.dtype),
            attention_mask=torch.cat([text.attention_mask, answer_mask], 1),
            position_ids=text.position_ids[:, -1:] + depths,
        )

    def score_whole_sequences(self, read: ReadTexts, answers: Sequence[Answer]) -> Tensor:
        """Σ log P of the later tokens of answers, each of which is read with its text again.

        Args:
            read: the texts; their cache is not used.
            answers: of two tokens or more each.

        Returns:
            [batch, answers].
        """
        scores = torch.zeros(read.rows, len(answers), device=self.model.device)
        for numbers in of_equal_length(answers):
            later = len(answers[numbers[0]]) - 1
            fitting = MAX_REPEATED_TOKENS // (read.width + later)
            rows_per_call = max(1, min(MAX_ROWS, fitting, MAX_CALL_TOKENS // later))
            texts_per_call = min(read.rows, rows_per_call)
            count = rows_per_call // texts_per_call
            for place in range(0, read.rows, texts_per_call):
                texts = _rows_of(read, place, place + texts_per_call)
                for first in range(0, len(numbers), count):
                    part = numbers[first : first + count]
                    repeated = _repeat(texts, len(part))
                    tokens = self._id_rows([answers[number] for number in part], texts.rows)
                    sums = self._sum_of_whole(repeated.inputs, tokens)
                    scores[place : place + texts.rows, part] = sums.view(texts.rows, len(part))
        return scores

    def _sum_of_whole(self, text: LLMInputs, tokens: Tensor) -> Tensor:
        """Σ log P of later tokens [rows], one answer's in each row, after its text.

        Args:
            text: of each row.
            tokens: [rows, tokens], each answer from its first token on.
        """
        later = tokens.shape[1] - 1
        inputs = self._appended_inputs(text, tokens, 0, later)
        inputs = replace(
            inputs,
            inputs_embeds=torch.cat([text.inputs_embeds, inputs.inputs_embeds], 1),
            position_ids=torch.cat([text.position_ids, inputs.position_ids], 1),
        )
        output = self.model.run_llm(inputs, later)
        sums = torch.zeros(len(tokens), device=tokens.device)
        return _add_logprobs(sums, output.logits, tokens[:, 1:])

    def _id_rows(self, answers: Sequence[Answer], texts: int) -> Tensor:
        """Answers of one length as ids [texts · answers, tokens], all of them for each text."""
        ids = torch.tensor([list(answer) for answer in answers], device=self.model.device)
        return ids.repeat(texts, 1)


def _rows_of(read: ReadTexts, start: int, stop: int) -> ReadTexts:
    """Some of the texts, without a cache."""
    return ReadTexts(
        inputs=read.inputs.rows(slice(start, stop)),
        first_logprobs=read.first_logprobs[start:stop],
        cache=None,
    )


def _repeat(read: ReadTexts, count: int) -> ReadTexts:
    """The texts, each repeated for so many answers, with a copy of their cache."""
    cache = copy.deepcopy(read.cache)
    if count == 1:
        return read._replace(cache=cache)
    if cache is not None:
        rows = torch.arange(read.rows, device=read.inputs.attention_mask.device)
        cache.reorder_cache(rows.repeat_interleave(count))
    return ReadTexts(
        inputs=read.inputs.repeated(count),
        first_logprobs=read.first_logprobs,
        cache=cache,
    )


def _add_logprobs(sums: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Sums [rows], and log P of targets [rows, tokens] by logits [rows, tokens, vocabulary]."""
    # One position after the other: all at once, it would need copies of all logits.
    for position in range(targets.shape[1]):
        scores = logits[:, position].float()
        chosen = scores.gather(1, targets[:, position, None])[:, 0]
        sums = sums + (chosen - scores.logsumexp(-1))
    return sums


def _sum_over_paths(tree: AnswerTree, logprobs: Tensor) -> Tensor:
    """Σ log P along each answer's path [batch, answers].

    Args:
        tree: of the answers.
        logprobs: [batch, targets of all nodes], node after node.
    """
    starts = []
    start = 0
    for targets in tree.targets:
        starts.append(start)
        start += len(targets)
    answers: list[int] = []
    columns: list[int] = []
    for number, path in enumerate(tree.paths):
        answers.extend([number] * len(path))
        columns.extend(starts[step.node] + step.place for step in path)
    sums = logprobs.new_zeros(len(logprobs), len(tree.paths))
    index = torch.tensor(answers, device=logprobs.device)
    return sums.index_add(1, index, logprobs[:, columns])
