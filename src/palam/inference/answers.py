"""The tokens of labels, arranged for the LLM: what several begin with is read once."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Answer = Sequence[int]
"""The ids of a label's tokens and the EOS after them."""


class Step(NamedTuple):
    """From one token of an answer to the next."""

    node: int
    """The token that the LLM has read; see [`AnswerTree`]."""
    place: int
    """Of the next one among those that follow the node."""


class AnswerTree:
    """Answers of two tokens or more, whose common beginnings are read once.

    A node is a token that the LLM reads, after the text and the nodes above it. An answer's first
    token is the text's to predict, and its last is read by no one. So these two are four nodes, at
    which five values of log P are taken:

        a b c EOS      a ── b ──┬─ c      P(b | a)  P(c | a b)  P(EOS | a b c)
        a b d EOS               └─ d                P(d | a b)  P(EOS | a b d)

    Attributes:
        ids: [nodes], each node's token.
        depths: [nodes], positions after the text, from 1.
        parents: [nodes], the node above each; -1 is the text.
        targets: [nodes], the tokens that follow each in some answer, and the place of each among
            them.
        numbers: [answers], which answers it holds.
        paths: [answers], each one's steps.
        added: [answers], how many nodes came with each; nodes are in the order of their answers.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depths: list[int] = []
        self.parents: list[int] = []
        self.targets: list[dict[int, int]] = []
        self.numbers: list[int] = []
        self.paths: list[list[Step]] = []
        self.added: list[int] = []
        self._nodes: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def new_nodes(self, answer: Answer) -> int:
        """How many nodes an answer would add."""
        beginnings = [tuple(answer[:depth]) for depth in range(1, len(answer))]
        return sum(beginning not in self._nodes for beginning in beginnings)

    def add(self, number: int, answer: Answer) -> None:
        """Add an answer.

        Args:
            number: of the answer.
            answer: its ids.
        """
        nodes_before = len(self)
        path = []
        parent = -1
        for depth in range(1, len(answer)):
            node = self._node(tuple(answer[:depth]), parent)
            targets = self.targets[node]
            place = targets.setdefault(answer[depth], len(targets))
            path.append(Step(node, place))
            parent = node
        self.numbers.append(number)
        self.paths.append(path)
        self.added.append(len(self) - nodes_before)

    def _node(self, beginning: tuple[int, ...], parent: int) -> int:
        """The node at the end of a beginning, new or not."""
        if beginning not in self._nodes:
            self._nodes[beginning] = len(self)
            self.ids.append(beginning[-1])
            self.depths.append(len(beginning))
            self.parents.append(parent)
            self.targets.append({})
        return self._nodes[beginning]

    def ancestors(self) -> list[list[int]]:
        """The nodes that each sees: those above it and itself."""
        lines: list[list[int]] = []
        for node, parent in enumerate(self.parents):
            above = lines[parent] if parent >= 0 else []
            lines.append([*above, node])
        return lines

    def packs(self, most: int, most_of_one: int) -> Iterator[range]:
        """The nodes in their order, some at a time; an answer's are together where they can be.

        Args:
            most: nodes of several answers at a time.
            most_of_one: nodes of a single answer at a time.
        """
        limit = max(most, most_of_one)
        start = 0
        stop = 0
        for added in self.added:
            if stop > start and stop - start + added > most:
                yield range(start, stop)
                start = stop
            stop += added
            while stop - start > limit:
                yield range(start, start + limit)
                start += limit
        if stop > start:
            yield range(start, stop)


def answer_trees(answers: Sequence[Answer], most: int) -> list[AnswerTree]:
    """Answers in as few trees as their size allows.

    Args:
        answers: of two tokens or more each. Those with the same first token go together; else they
            keep their order.
        most: nodes of a tree; one of a single answer may have more.
    """
    places: dict[int, int] = {}
    for answer in answers:
        places.setdefault(answer[0], len(places))
    numbers = sorted(
        range(len(answers)),
        key=lambda number: (places[answers[number][0]], tuple(answers[number])),
    )
    trees = [AnswerTree()]
    for number in numbers:
        answer = answers[number]
        if len(trees[-1]) and len(trees[-1]) + trees[-1].new_nodes(answer) > most:
            trees.append(AnswerTree())
        trees[-1].add(number, answer)
    return trees


def of_equal_length(answers: Sequence[Answer]) -> list[list[int]]:
    """The numbers of the answers, those of the same length together, the shortest first."""
    groups: dict[int, list[int]] = defaultdict(list)
    for number, answer in enumerate(answers):
        groups[len(answer)].append(number)
    return [groups[length] for length in sorted(groups)]


def spread(answers: Sequence[Answer], count: int) -> list[Answer]:
    """Some of the answers in their order, from the shortest to the longest and between.

    Args:
        answers: all of them.
        count: how many, one at least; all, where there are no more.
    """
    if len(answers) <= count:
        return list(answers)
    by_length = sorted(range(len(answers)), key=lambda number: len(answers[number]))
    last = len(answers) - 1
    between = max(1, count - 1)
    chosen = {by_length[place * last // between] for place in range(count)}
    return [answers[number] for number in sorted(chosen)]
