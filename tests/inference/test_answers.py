"""The tree of labels' tokens, against the labels themselves."""

import random

import pytest

from palam.inference.answers import answer_trees, of_equal_length, spread

END = 0


def random_answers(count, seed):
    """Answers with many common beginnings, each once."""
    draw = random.Random(seed)
    answers = set()
    while len(answers) < count:
        length = draw.randint(1, 5)
        answers.add((*(draw.randint(1, 4) for _ in range(length)), END))
    return [list(answer) for answer in sorted(answers, key=lambda _: draw.random())]


def read_back(tree):
    """What each answer's path says: the tokens read, and those predicted."""
    ancestors = tree.ancestors()
    for path in tree.paths:
        read = [tree.ids[step.node] for step in path]
        predicted = [list(tree.targets[step.node])[step.place] for step in path]
        for depth, step in enumerate(path, start=1):
            assert tree.depths[step.node] == depth
            assert ancestors[step.node] == [other.node for other in path[:depth]]
        yield read, predicted


@pytest.mark.parametrize("most", [1, 7, 40, 1000])
def test_every_answer_can_be_read_back_from_its_tree(most):
    answers = random_answers(200, seed=most)
    numbers = []
    for tree in answer_trees(answers, most):
        assert len(tree) <= max(most, 5)
        for number, (read, predicted) in zip(tree.numbers, read_back(tree), strict=True):
            assert read == answers[number][:-1]
            assert predicted == answers[number][1:]
        numbers += tree.numbers
    assert sorted(numbers) == list(range(200))


def test_a_common_beginning_is_one_node():
    (tree,) = answer_trees([[1, 2, 3, END], [7, END], [1, 2, 4, END], [1, END]], 100)
    assert tree.ids == [1, 2, 3, 4, 7]
    assert tree.parents == [-1, 0, 1, 1, -1]
    assert tree.numbers == [3, 0, 2, 1]


def test_without_common_beginnings_the_order_stays():
    answers = [[number, 50, END] for number in (9, 3, 7, 1)]
    (tree,) = answer_trees(answers, 100)
    assert tree.numbers == [0, 1, 2, 3]
    assert tree.ids == [9, 50, 3, 50, 7, 50, 1, 50]


@pytest.mark.parametrize(("most", "most_of_one"), [(8, 8), (1, 100), (1000, 8), (3, 5)])
def test_packs_hold_all_nodes_in_order_and_no_more_than_allowed(most, most_of_one):
    for tree in answer_trees([*random_answers(60, seed=1), list(range(5, 40))], 500):
        packs = list(tree.packs(most, most_of_one))
        assert [node for pack in packs for node in pack] == list(range(len(tree)))
        assert all(0 < len(pack) <= max(most, most_of_one) for pack in packs)


def test_an_answer_stays_in_one_pack_where_it_fits():
    answers = [[number, 50, 51, END] for number in range(1, 6)]
    (tree,) = answer_trees(answers, 100)
    assert [len(pack) for pack in tree.packs(8, 8)] == [6, 6, 3]


def test_answers_of_equal_length_go_together():
    assert of_equal_length([[1, 2, 0], [1, 0], [3, 4, 0]]) == [[1], [0, 2]]


def test_a_few_of_many_answers_are_the_shortest_the_longest_and_others_in_order():
    answers = random_answers(100, seed=3)
    chosen = spread(answers, 8)
    assert len(chosen) == 8
    lengths = [len(answer) for answer in chosen]
    assert min(lengths) == min(map(len, answers))
    assert max(lengths) == max(map(len, answers))
    places = [answers.index(answer) for answer in chosen]
    assert places == sorted(places)
    assert spread(answers, 100) == answers
    assert len(spread(answers, 1)) == 1
