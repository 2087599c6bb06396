"""What is read, in which order, and where raw text is cut."""

from types import SimpleNamespace

import pytest
import torch
from tiny import TEXT

from palam.models.processing import IGNORE, TEXT_SLOT
from palam.tasks.sampling import passage
from palam.tasks.soft_labels import SoftAnswer
from palam.tasks.task import Example
from palam.training.collator import Collator
from palam.training.data import JoinedTexts
from palam.training.datasets import AnswerDataset, TextChanges
from palam.training.raw_text import RawTextDataset
from palam.training.sampler import LengthGroupedSampler

LENGTHS = [(7 * i) % 61 + 3 for i in range(150)]
LINES = [TEXT["en"][i : i + 90] for i in range(0, 200, 20)]


def order(seed=0, epoch=0, batch_size=8, lengths=LENGTHS):
    sampler = LengthGroupedSampler(SimpleNamespace(lengths=lengths), batch_size, seed)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(lengths)
    return list(sampler)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 150])
def test_each_row_once_an_epoch(rows):
    assert sorted(order(lengths=LENGTHS[:rows])) == list(range(rows))


def test_the_order_depends_on_seed_and_epoch_alone():
    assert order(3, 5) == order(3, 5)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_less_padding_than_in_random_order():
    def padding(rows):
        batches = [[LENGTHS[i] for i in rows[j : j + 8]] for j in range(0, len(rows), 8)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    shuffled = torch.randperm(len(LENGTHS), generator=torch.Generator().manual_seed(0)).tolist()
    assert padding(order()) < 0.3 * padding(shuffled)


def test_of_a_soft_answer_one_is_drawn_in_each_epoch(tiny_model):
    processor = tiny_model().processor
    soft = SoftAnswer(("sports", "health"), (0.5, 0.5))
    data = AnswerDataset(processor, LINES[:3], ["travel", soft, soft])
    plain = {
        word: AnswerDataset(processor, LINES[:3], [word] * 3) for word in ("travel", *soft.answers)
    }
    drawn = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        assert data[0] == plain["travel"][0]
        words = data.current_answers([1, 2])
        assert [data[1], data[2]] == [plain[words[0]][1], plain[words[1]][2]]
        drawn.add(tuple(words))
    assert len(drawn) == 4
    data.set_epoch(3)
    again = AnswerDataset(processor, LINES[:3], ["travel", soft, soft])
    again.set_epoch(3)
    assert [data[row] for row in range(3)] == [again[row] for row in range(3)]
    # The texts are the same in every epoch, so the encoder need not read them again.
    assert data.repeated_encoder_ids() is not None


def test_answers_are_the_processors_features(tiny_model):
    model = tiny_model()
    texts = LINES[:3]
    answers = ["sports", "science/technology", "health"]
    data = AnswerDataset(model.processor, texts, answers)
    batch = Collator(model.processor)([data[i] for i in (2, 0, 1)])
    expected = model.processor([texts[i] for i in (2, 0, 1)], [answers[i] for i in (2, 0, 1)])
    assert batch["rows"] == [2, 0, 1]
    for name, value in expected.items():
        assert torch.equal(batch[name], value)
    last_logits = model(**expected).logits[:, -batch["logits_to_keep"] :]
    assert torch.allclose(model(**batch).logits, last_logits, atol=1e-5)
    assert torch.allclose(model(**batch).loss, model(**expected).loss, atol=1e-6)
    assert data.lengths.tolist() == lengths_of(data)


def lengths_of(data):
    return [len(row["encoder_input_ids"]) + len(row["input_ids"]) for row in data.rows]


ARTICLE = (
    'One two three four. Five "six seven." Eight nine?\n'
    "Ten eleven twelve thirteen fourteen! Fifteen."
)


def test_passages_change_with_the_epoch_and_not_with_the_order_of_reading(tiny_model):
    processor = tiny_model().processor

    def rows(seed, *epochs, passage_words=3):
        data = AnswerDataset(
            processor, [ARTICLE] * 6, ["sports"] * 6, changes=TextChanges(passage_words), seed=seed
        )
        sampler = LengthGroupedSampler(data, 2, seed)
        for epoch in epochs:
            sampler.set_epoch(epoch)
            assert sorted(sampler) == list(range(6))
        assert data.lengths.tolist() == lengths_of(data)
        return [tuple(row["encoder_input_ids"]) for row in data.rows]

    assert rows(0, 2) == rows(0, 0, 1, 2) == rows(0, 2, 2)
    assert len({tuple(rows(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
    passages = processor.encode_texts([passage(ARTICLE, 3, number) for number in range(5)])
    assert set(rows(0, 1)) <= {tuple(tokens["input_ids"]) for tokens in passages}
    assert rows(0, 1, passage_words=None) == rows(0, passage_words=None)
    before = processor.stats[""].texts
    rows(0, 1, 2)
    assert processor.stats[""].texts == before + 6, "each text counts once"


def test_the_cut_depends_on_seed_epoch_and_row(tiny_model):
    processor = tiny_model().processor

    def cuts(seed, epoch, texts=LINES):
        data = RawTextDataset(processor, texts, seed=seed)
        data.set_epoch(epoch)
        return [data.objectives["continue"].cut(i, epoch) for i in range(len(data))]

    assert cuts(1, 2) == cuts(1, 2)
    assert cuts(1, 2)[:4] == cuts(1, 2, LINES[:4]), "it depends on the other rows"
    assert len({tuple(cuts(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    same = cuts(0, 0, [LINES[0]] * 10)
    assert len(set(same)) > 3, "all rows are cut at one place"


def test_the_parts_are_the_text_again(tiny_model):
    odd = ["  two words ", "one", "", "a\tb\u00a0 c\nd", "මම ගෙදර යනවා"]
    data = RawTextDataset(tiny_model().processor, odd)
    assert data.texts == ["two words", "a\tb\u00a0 c\nd", "මම ගෙදර යනවා"]
    for epoch in range(5):
        data.set_epoch(epoch)
        for index, text in enumerate(data.texts):
            beginning, rest = data.objectives["continue"].cut(index, data.epoch)
            assert beginning + rest == text
            assert beginning.strip()
            assert rest[0].isspace()


def test_the_loss_is_on_the_continuation_alone(tiny_model):
    model = tiny_model()
    data = RawTextDataset(model.processor, LINES)
    encoder, llm = model.processor.encoder_tokenizer, model.processor.llm_tokenizer
    for index in range(len(data)):
        beginning, rest = data.objectives["continue"].cut(index, data.epoch)
        row = data[index]
        assert row["encoder_input_ids"] == encoder(beginning)["input_ids"]
        answer = [*llm(rest, add_special_tokens=False)["input_ids"], llm.eos_token_id]
        assert row["input_ids"] == [llm.bos_token_id, TEXT_SLOT, *answer]
        assert row["labels"] == [IGNORE, IGNORE, *answer]


def test_a_long_text_is_read_up_to_its_cut(tiny_model):
    model = tiny_model(max_length=12)
    data = RawTextDataset(model.processor, [" ".join(LINES)], max_answer=9)
    tokenizer = model.processor.encoder_tokenizer
    for epoch in range(8):
        data.set_epoch(epoch)
        beginning, rest = data.objectives["continue"].cut(0, epoch)
        whole = tokenizer(beginning)["input_ids"]
        last_tokens = whole if len(whole) <= 12 else [whole[0], *whole[-11:]]
        assert data[0]["encoder_input_ids"] == last_tokens
        continuation = model.processor.llm_tokenizer(rest, add_special_tokens=False)["input_ids"]
        answer = data[0]["input_ids"][2:]
        if len(continuation) > 9:
            assert answer == continuation[:9]
        else:
            assert answer == [*continuation, answer[-1]]
    assert tokenizer.truncation_side == "right"


def test_only_texts_that_stay_the_same_are_read_again(tiny_model):
    processor = tiny_model().processor
    answers = ["sports"] * len(LINES)
    data = AnswerDataset(processor, LINES, answers)
    assert list(data.repeated_encoder_ids()) == [row["encoder_input_ids"] for row in data.rows]
    for changing in (
        AnswerDataset(processor, LINES, answers, changes=TextChanges(3)),
        AnswerDataset(processor, LINES, answers, llm_only=True),
        RawTextDataset(processor, LINES),
    ):
        assert changing.repeated_encoder_ids() is None


def test_the_fields_of_examples_as_one_text():
    examples = [Example(row, {"a": f"a {row}", "b": "b"}, "label") for row in range(4)]
    texts = JoinedTexts(examples)
    assert len(texts) == 4
    assert texts[2] == texts[-2] == "a 2\nb"
    assert texts[1:3] == ["a 1\nb", "a 2\nb"]
    assert list(texts) == texts[:]
